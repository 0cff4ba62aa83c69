"""How a mistake in an object is told, in the words of Kubernetes' field errors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from remit.errors import RemitError


class Cause(NamedTuple):
    """One mistake: `details.causes[]` of a `Status`. `field` is a dotted path such as `metadata.name`."""

    reason: str
    message: str
    field: str


class Invalid(RemitError):
    """The object breaks its rules (HTTP 422). `causes` lists every mistake found."""

    def __init__(self, causes: Sequence[Cause]) -> None:
        super().__init__(", ".join(f"{cause.field}: {cause.message}" for cause in causes))
        self.causes = list(causes)


def joined(path: str, key: str) -> str:
    """The dotted path of a field of what stands at `path`, which is empty for the object itself."""
    return f"{path}.{key}" if path else key


def invalid_value(field: str, value: Any, why: str) -> Cause:
    shown = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", field)


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", field)


def too_long(field: str, why: str) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: {why}", field)


def forbidden(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def not_supported(field: str, value: str, supported: Sequence[str]) -> Cause:
    listed = ", ".join(f'"{name}"' for name in supported)
    shown = json.dumps(value, ensure_ascii=False)
    return Cause("FieldValueNotSupported", f"Unsupported value: {shown}: supported values: {listed}", field)
