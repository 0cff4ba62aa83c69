"""Kubernetes quantities: `500m`, `0.5`, `256Mi`, `2G`.

Remit has a parser of its own, because importing the client library's parser takes a second.
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
    """Returns the number that a quantity stands for. Raises `InvalidInput` if the text is not a quantity or is
    negative."""
    match = _PARTS.fullmatch(str(text))
    if match is None or match["unit"] not in _UNITS:
        raise InvalidInput(f"{str(text)[:64]!r} is not a quantity; write it as 500m, 0.5, 256Mi or 2G")
    return Decimal(match["number"]) * _UNITS[match["unit"]]


def parse_bytes(text: str | int) -> int:
    """Returns a quantity in bytes, rounded up to a whole number. Raises `InvalidInput` like `parse_quantity`."""
    return int(parse_quantity(text).to_integral_value(rounding="ROUND_CEILING"))


def format_bytes(count: int) -> str:
    """Returns the shortest exact binary form of a number of bytes: `512Mi` for 536870912, `1000` for 1000."""
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
            # A rule and not a pattern, because a rule can have a message that explains what to write.
            "x-kubernetes-validations": [
                {
                    "rule": f"type(self) == int ? self >= 0 : self.matches(r'{PATTERN}')",
                    "message": "must be a quantity, such as 500m, 0.5, 256Mi or 2G",
                }
            ],
        }
    ),
]
"""A Kubernetes quantity in the form that users write. `parse_quantity` returns its number."""
