"""Base classes of whole objects: metadata, spec and status, as the API server returns them."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from remit.api.base import Rule, StatusModel, Time
from remit.api.group import API_VERSION
from remit.api.mistakes import first_mistake
from remit.errors import InvalidInput


class ObjectMeta(StatusModel):
    """The part of `metadata` that Remit reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    resource_version: str = ""
    generation: int = 1
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    creation_timestamp: Time | None = None
    deletion_timestamp: Time | None = None
    finalizers: list[str] = []
    owner_references: list[dict[str, Any]] = []


class CustomResource(BaseModel):
    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """CEL rules for the whole object. The generator writes them into the CRD."""

    api_version: Literal["remit.dev/v1alpha1"] = API_VERSION
    metadata: ObjectMeta

    @classmethod
    def parse(cls, obj: dict[str, Any]) -> Self:
        """Returns the object as a model of this kind. Raises `InvalidInput` that names the first invalid field and what
        is wrong with it."""
        try:
            return cls.model_validate(obj)
        except ValidationError as error:
            field, message = first_mistake(error, cls)
            raise InvalidInput(message, field=field) from None

    @property
    def key(self) -> str:
        """`namespace/name`."""
        return f"{self.metadata.namespace}/{self.metadata.name}"
