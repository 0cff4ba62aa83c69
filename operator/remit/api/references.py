"""References of an operation to keys of Secrets and ConfigMaps. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from remit.api.base import ConfigMapKeySelector, SecretKeySelector

Reference = SecretKeySelector | ConfigMapKeySelector


def references(model: BaseModel, path: str = "") -> Iterator[tuple[str, Reference]]:
    """Yields every reference in `model` with its field path, such as `headers[0].valueFrom.secretKeyRef`."""
    for name, info in type(model).model_fields.items():
        value, here = getattr(model, name), f"{path}.{info.alias or name}".lstrip(".")
        if isinstance(value, Reference):
            yield here, value
        elif isinstance(value, BaseModel):
            yield from references(value, here)
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from references(item, f"{here}[{index}]")
