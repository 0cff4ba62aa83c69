"""What every model of the API shares: camelCase on the wire, unknown fields refused, values immutable."""

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
    """A CEL rule (`x-kubernetes-validations`) that the API server holds users to."""

    rule: str
    message: str
    field_path: str = ""

    def as_schema(self) -> dict[str, str]:
        schema = {"rule": self.rule, "message": self.message}
        return schema | {"fieldPath": self.field_path} if self.field_path else schema


class SpecModel(BaseModel):
    """A part of what users write.

    An unknown field is an error, not noise: a rule or a limit that this version does not know must not be skipped.
    Descriptions in the CRDs (and so in `kubectl explain`) are the docstrings below each field.
    """

    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True
    )

    exactly_one: ClassVar[tuple[str, ...]] = ()
    """Fields, by their name on the wire, of which one and only one is set."""
    rules: ClassVar[tuple[Rule, ...]] = ()
    """What else must hold, in CEL; goes into the CRD."""

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
    """A part of what Remit writes. A newer version's fields are ignored: status can always be worked out again."""

    model_config = ConfigDict(
        defer_build=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusRecord:
    """A part of status that decisions are made with: like `StatusModel` on the wire, a frozen dataclass in the program.

    Making one does not validate it, and type checkers see the fields that `dataclasses.replace` is given.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="ignore"
    )


def _rfc3339(value: datetime.datetime) -> str:
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _rfc3339_micro(value: datetime.datetime) -> str:
    return value.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Time = Annotated[AwareDatetime, PlainSerializer(_rfc3339, return_type=str, when_used="json")]
"""A moment in whole seconds, as Kubernetes' `Time`."""

MicroTime = Annotated[AwareDatetime, PlainSerializer(_rfc3339_micro, return_type=str, when_used="json")]
"""A moment in microseconds, as Kubernetes' `MicroTime`."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
"""An object's name, as Kubernetes takes it."""

DataKey = Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
"""A key in the data of a Secret or a ConfigMap."""


def map_by(key: str) -> dict[str, JsonValue]:
    """Schema of a list whose items are told apart by `key`: no two have the same, and server-side apply merges them."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class LabelSelectorRequirement(SpecModel):
    key: Annotated[str, Field(min_length=1, max_length=317)]
    """The label key that the requirement is about."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label's value relates to `values`."""
    values: Annotated[list[Annotated[str, Field(max_length=63)]], Field(max_length=64)] = []
    """The values for In and NotIn; empty for Exists and DoesNotExist."""


class LabelSelector(SpecModel):
    """Selects objects by label; empty selects every object. All parts must match."""

    match_labels: Annotated[
        dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=64)
    ] = {}
    """Labels that must be there with exactly these values."""
    match_expressions: Annotated[list[LabelSelectorRequirement], Field(max_length=64)] = []
    """Requirements on labels, all of which must hold."""


class SecretKeySelector(SpecModel):
    name: Name
    """Name of the Secret, in the object's own namespace."""
    key: DataKey
    """Key in the Secret's data."""
    optional: bool = False
    """Go on without the value when the Secret or the key is not there."""


class ConfigMapKeySelector(SpecModel):
    name: Name
    """Name of the ConfigMap, in the object's own namespace."""
    key: DataKey
    """Key in the ConfigMap's data."""
    optional: bool = False
    """Go on without the value when the ConfigMap or the key is not there."""


class ValueSource(SpecModel):
    """Where a value comes from. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret. The value is given to the run and redacted everywhere else."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap."""


class EnvVar(SpecModel):
    rules = (Rule("!(has(self.value) && has(self.valueFrom))", "set value or valueFrom, not both"),)

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
    """Name of the environment variable."""
    value: Annotated[str, Field(max_length=32768)] | None = None
    """The value as it is; nothing is expanded in it."""
    value_from: ValueSource | None = None
    """Where the value comes from, instead of `value`."""


class ObjectSource(SpecModel):
    name: Name
    """Name of the object, in the task's own namespace."""
    optional: bool = False
    """Go on without it when it is not there."""


class EnvFromSource(SpecModel):
    """Every key of a ConfigMap or a Secret as environment variables. Exactly one reference is set."""

    exactly_one = ("secretRef", "configMapRef")

    prefix: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$", max_length=128)] = ""
    """Put before every key. Both together must be the name of a variable: letters, digits and underscores."""
    secret_ref: ObjectSource | None = None
    """The Secret whose keys become variables."""
    config_map_ref: ObjectSource | None = None
    """The ConfigMap whose keys become variables."""


class Condition(StatusModel):
    """One aspect of an object's state, for machines, as Kubernetes' `metav1.Condition`."""

    type: Annotated[str, Field(max_length=316)]
    """Which aspect, in CamelCase."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=1024)] = ""
    """Why, as one stable CamelCase word: it is API."""
    message: Annotated[str, Field(max_length=32768)] = ""
    """Why, for people."""
    last_transition_time: Time | None = None
    """When `status` last changed."""
    observed_generation: int | None = None
    """The `metadata.generation` that this was worked out for."""


Conditions = Annotated[list[Condition], Field(json_schema_extra=map_by("type"))]
