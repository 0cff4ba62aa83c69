"""Base classes and common parts of the API models: camelCase on the wire, immutable values, and types that the kinds
share."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    JsonValue,
    PlainSerializer,
    model_validator,
)
from pydantic.alias_generators import to_camel


class Rule(NamedTuple):
    """A CEL validation rule (`x-kubernetes-validations`) that the API server enforces."""

    rule: str
    message: str
    field_path: str = ""

    def as_schema(self) -> dict[str, str]:
        schema = {"rule": self.rule, "message": self.message}
        return schema | {"fieldPath": self.field_path} if self.field_path else schema


class SpecModel(BaseModel):
    """Base class of the parts of a spec, which users write.

    An unknown field is an error: a rule or a limit that this version does not know must not be skipped silently. The
    docstring below each field becomes its description in the CRDs, and so in `kubectl explain`.
    """

    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    exactly_one: ClassVar[tuple[str, ...]] = ()
    """Fields, by their name on the wire, exactly one of which must be set. Empty: no such requirement."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """Further CEL rules for this part of the schema. The generator writes them into the CRD."""

    @model_validator(mode="after")
    def _has_exactly_one(self) -> Self:
        if not self.exactly_one:
            return self
        aliases = {field.alias or name: name for name, field in type(self).model_fields.items()}
        given = [alias for alias in self.exactly_one if getattr(self, aliases[alias]) is not None]
        if len(given) != 1:
            raise ValueError(f"{exactly_one_message(self.exactly_one)}; {' and '.join(given) or 'none'} given")
        return self

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler.resolve_ref_schema(handler(core_schema))
        rules = list(cls.rules)
        if cls.exactly_one:
            count = " + ".join(f"(has(self.{field}) ? 1 : 0)" for field in cls.exactly_one)
            rules.insert(0, Rule(f"{count} == 1", exactly_one_message(cls.exactly_one)))
        if rules:
            schema["x-kubernetes-validations"] = [rule.as_schema() for rule in rules]
        return schema


def exactly_one_message(fields: tuple[str, ...]) -> str:
    return f"set exactly one of {', '.join(fields[:-1])} or {fields[-1]}"


class StatusModel(BaseModel):
    """Base class of the parts of a status, which Remit writes.

    Unknown fields, which a newer version may have written, are ignored: status can always be computed again.
    """

    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """Base class of the parts of a status that the operator makes decisions with.

    A record is serialized like a `StatusModel`, but it is a frozen dataclass in the program: the constructor does not
    validate, and type checkers check the fields that are passed to `dataclasses.replace`.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore"
    )


def _rfc3339(value: datetime.datetime) -> str:
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rfc3339_micro(value: datetime.datetime) -> str:
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A point in time with a precision of seconds, like Kubernetes' `Time`."""

MicroTime = Annotated[AwareDatetime, PlainSerializer(_rfc3339_micro, return_type=str, when_used="json")]
"""A point in time with a precision of microseconds, like Kubernetes' `MicroTime`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""An object's name, in the form that Kubernetes accepts."""

DataKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
"""A key in the data of a Secret or a ConfigMap."""


def map_by(key: str) -> dict[str, JsonValue]:
    """Returns the schema extension of a list whose items are identified by `key`. The API server refuses two items with
    the same key, and server-side apply merges items by it."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class LabelSelectorRequirement(SpecModel):
    key: Annotated[str, Field(min_length=1, max_length=317)]
    """The label key that the requirement applies to."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to `values`."""
    values: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=64)] = []
    """The values for In and NotIn; empty for Exists and DoesNotExist."""


class LabelSelector(SpecModel):
    """Selects objects by label. An empty selector selects every object. All requirements must match."""

    match_labels: Annotated[
        dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=64)
    ] = {}
    """Labels that an object must have with exactly these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=64)] = []
    """Requirements on labels, all of which must hold."""


class SecretKeySelector(SpecModel):
    name: Name
    """Name of the Secret, in the object's own namespace."""
    key: DataKey
    """Key in the Secret's data."""
    optional: bool = False
    """Whether to continue without the value when the Secret or the key does not exist."""


class ConfigMapKeySelector(SpecModel):
    name: Name
    """Name of the ConfigMap, in the object's own namespace."""
    key: DataKey
    """Key in the ConfigMap's data."""
    optional: bool = False
    """Whether to continue without the value when the ConfigMap or the key does not exist."""


class ValueSource(SpecModel):
    """The source of a value. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret. The run receives the value; it is redacted everywhere else."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap."""


class EnvVar(SpecModel):
    rules = (Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),)

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
    """Name of the environment variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """The literal value. References such as `$(NAME)` in it are not expanded."""
    value_from: ValueSource | None = None
    """The source of the value, instead of `value`."""


class ObjectSource(SpecModel):
    name: Name
    """Name of the object, in the task's own namespace."""
    optional: bool = False
    """Whether to continue without the object when it does not exist."""


class EnvFromSource(SpecModel):
    """Every key of a ConfigMap or a Secret as environment variables. Exactly one reference is set."""

    exactly_one = ("secretRef", "configMapRef")

    prefix: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", max_length=128)] = ""
    """Prefix of every key. Prefix and key together must be a valid variable name: letters, digits and underscores."""
    secret_ref: ObjectSource | None = None
    """The Secret whose keys become variables."""
    config_map_ref: ObjectSource | None = None
    """The ConfigMap whose keys become variables."""


class Condition(StatusModel):
    """One aspect of an object's state, to be read by programs, like Kubernetes' `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    """Type of the condition, in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether the condition holds."""
    reason: Annotated[str, Field(max_length=1024)] = ""
    """Reason of the status, as one stable CamelCase word. Reasons are part of the API."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Explanation of the status for people."""
    last_transition_time: Time | None = None
    """When `status` last changed."""
    observed_generation: int | None = None
    """The `metadata.generation` that the condition was computed for."""


Conditions = Annotated[list[Condition], Field(json_schema_extra=map_by("type"))]
