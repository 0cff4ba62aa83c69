"""Kubernetes quantities: `500m`, `0.5`, `256Mi`, `2G`.

Written here, in twenty lines, because the client library's parser costs a second of import time.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

from remit.errors import InvalidInput

PATTERN = r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$"
_PARTS = re.compile(r"(?P<number>[0-9]+(\.[0-9]+)?)(?P<unit>[a-zA-Z]*)", re.ASCII)
_UNITS = {
    "": Decimal(1),
    "m": Decimal("0.001"),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTP", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTP", start=1)},
}


def parse_quantity(text: str | int) -> Decimal:
    """The number that a quantity stands for. Raises `InvalidInput` when it is none, or is negative."""
    match = _PARTS.fullmatch(str(text))
    if match is None or match["unit"] not in _UNITS:
        raise InvalidInput(f"{str(text)[:64]!r} is not a quantity; write it as 500m, 0.5, 256Mi or 2G")
    return Decimal(match["number"]) * _UNITS[match["unit"]]


def parse_bytes(text: str | int) -> int:
    """A quantity of bytes, rounded up to a whole one."""
    return int(parse_quantity(text).to_integral_value(rounding="ROUND_CEILING"))


def format_bytes(count: int) -> str:
    """The shortest exact binary form: 536870912 is `512Mi`, 1000 is `1000`."""
    for unit in ("Pi", "Ti", "Gi", "Mi", "Ki"):
        size = int(_UNITS[unit])
        if count and count % size == 0:
            return f"{count // size}{unit}"
    return str(count)


def _check(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError("must be a quantity, such as 500m, 0.5, 256Mi or 2G")  # noqa: TRY004 (pydantic wants ValueError)
    try:
        parse_quantity(value)
    except InvalidInput as error:
        raise ValueError(str(error)) from None
    return value


Quantity = Annotated[
    str | int,
    BeforeValidator(_check),
    WithJsonSchema(
        {
            "x-kubernetes-int-or-string": True,
            "maxLength": 32,
            # A rule and not a pattern: its message is one that a person can act on.
            "x-kubernetes-validations": [
                {
                    "rule": f"type(self) == int ? self >= 0 : self.matches(r'{PATTERN}')",
                    "message": "must be a quantity, such as 500m, 0.5, 256Mi or 2G",
                }
            ],
        }
    ),
]
"""A Kubernetes quantity as users write it; `parse_quantity` gives its number."""
