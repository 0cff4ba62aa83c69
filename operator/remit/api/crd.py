"""Generates the CustomResourceDefinitions from the models.

pydantic's JSON schema is not a structural schema in the sense of Kubernetes, so it is rewritten: references are
inlined, `null` is removed, and unions of numbers and strings become int-or-string. An optional object gets `default:
{}` if a field inside it has a default, because the API server sets defaults only inside objects that exist.

Fields inside lists have no defaults. `kubectl apply` and Argo CD compare lists as a whole and would permanently report
every default that the API server adds there as a difference. The description of such a field states its default.

The PyPI package kube-custom-resource inlines references and removes `null`, but it requires its own base class and
supports neither defaults nor CEL, so using it would save little.
"""

from __future__ import annotations

import copy
import functools
import inspect
import json
import re
from dataclasses import dataclass
from typing import Any, Final

import yaml

from remit.api import commandpolicy, deployment, executiontask
from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.api.descriptions import DescribedJsonSchema
from remit.api.executiontask import ExecutionTask
from remit.api.group import GROUP, VERSION
from remit.api.resource import CustomResource

Schema = dict[str, Any]

HEADER: Final = "# Generated from operator/remit/api by `make crds`. Do not edit.\n"
_KEPT: Final = {
    "type", "format", "description", "default", "enum", "pattern", "required",
    "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
}  # fmt: skip
_DROPPED: Final = {"title", "propertyNames"}


@dataclass(frozen=True)
class Kind:
    """How a kind is declared to an API server: its names, columns, selectable fields and subresources."""

    model: type[CustomResource]
    plural: str
    short_names: tuple[str, ...]
    columns: list[dict[str, Any]]
    selectable: tuple[str, ...]
    scalable: bool = False
    first_phase: str | None = None
    """Default of `status.phase`, which the API server sets. The operator then need not write the first status."""


# The short names avoid those of other projects: Tekton uses `task`, Kyverno `cpol` and Kubernetes `deploy`. The kinds
# are not in the category `all`, so that `kubectl delete all --all` does not delete releases.
KINDS: Final = (
    Kind(
        ExecutionTask,
        "executiontasks",
        ("et",),
        executiontask.PRINTER_COLUMNS,
        (".spec.backend", ".status.backend", ".status.phase", ".status.operation"),
        first_phase="Pending",
    ),
    Kind(CommandPolicy, "commandpolicies", ("cmdpol",), commandpolicy.PRINTER_COLUMNS, (".spec.enforcement",)),
    Kind(
        Deployment,
        "deployments",
        ("rdeploy",),
        deployment.PRINTER_COLUMNS,
        (".spec.strategy.type", ".status.phase"),
        scalable=True,
    ),
)


def crds() -> list[dict[str, Any]]:
    """Returns the three CustomResourceDefinitions, as new dicts that the caller may change."""
    return copy.deepcopy(_crds())


@functools.cache
def _crds() -> list[dict[str, Any]]:
    return [_crd(kind) for kind in KINDS]


def render() -> str:
    """Returns all CustomResourceDefinitions as one YAML stream, for `kubectl apply -f -`."""
    return HEADER + "---\n".join(_dump(crd) for crd in crds())


def files() -> dict[str, str]:
    """Returns the files of `crds/`: YAML text by file name."""
    return {f"{GROUP}_{crd['spec']['names']['plural']}.yaml": HEADER + _dump(crd) for crd in crds()}


def structural(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Returns the structural schema that is equivalent to a JSON schema of pydantic. Raises `TypeError` if a structural
    schema cannot express it."""
    schema = _resolved(schema, definitions)
    if schema.get("x-kubernetes-int-or-string"):
        schema = {key: value for key, value in schema.items() if key not in {"anyOf", "type"}}
    result: Schema = {}
    for key, value in schema.items():
        match key, value:
            case "const", _:
                result["enum"] = [value]
            case "description", str():
                result[key] = _paragraphs(value)
            case "properties", dict():
                result[key] = {name: structural(part, definitions) for name, part in value.items()}
            case "items", dict():
                result[key] = _without_defaults(structural(value, definitions))
            case "additionalProperties", dict():
                result[key] = structural(value, definitions)
            case "additionalProperties", False:
                pass  # the API server itself prunes or refuses unknown fields
            case (("exclusiveMinimum" | "exclusiveMaximum"), _):
                result |= {key.replace("exclusiveM", "m"): value, key: True}
            case "uniqueItems", True:
                result["x-kubernetes-list-type"] = "set"
            case _ if key in _KEPT or key.startswith("x-kubernetes-"):
                result[key] = value
            case _ if key not in _DROPPED:
                raise TypeError(f"{key!r} has no place in a structural schema: {schema}")
    return _with_useful_default(result)


def _resolved(schema: Schema, definitions: dict[str, Schema]) -> Schema:
    """Returns the schema with its reference inlined and without `null`. Keys beside a reference override the keys of
    the definition that it refers to."""
    if "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        return _resolved(definitions[schema["$ref"].removeprefix("#/$defs/")] | beside, definitions)
    if "x-kubernetes-int-or-string" not in schema and "anyOf" in schema:
        beside = {key: value for key, value in schema.items() if key != "anyOf"}
        wanted = [part for part in schema["anyOf"] if part != {"type": "null"}]
        if len(wanted) != 1:
            raise TypeError(f"a union of several types has no place in a structural schema: {schema}")
        return _resolved(wanted[0] | beside, definitions)
    return schema


def _with_useful_default(schema: Schema) -> Schema:
    """Keeps a default only if it is useful to users: nulls and empty values would only make objects longer."""
    default = schema.pop("default", None)
    if isinstance(default, dict):
        if any("default" in part for part in schema.get("properties", {}).values()):
            schema["default"] = {}
    elif default not in (None, "", []):
        schema["default"] = default
    return schema


def _without_defaults(schema: Schema) -> Schema:
    """Moves the defaults of all fields into their descriptions and into the rules that refer to these fields."""
    for name, part in (fields := schema.get("properties", {})).items():
        if (default := part.pop("default", None)) not in (None, {}):
            part["description"] = f"{part.get('description', '')} Default: `{json.dumps(default)}`.".lstrip()
            if rules := schema.get("x-kubernetes-validations"):
                schema["x-kubernetes-validations"] = [_with_default(rule, name, default) for rule in rules]
    for part in [*fields.values(), schema.get("items"), schema.get("additionalProperties")]:
        if part:
            _without_defaults(part)
    return schema


def _with_default(rule: dict[str, str], name: str, default: Any) -> dict[str, str]:
    """Returns the rule with the default in place of a field that is not set."""
    value = f"(has(self.{name}) ? self.{name} : {json.dumps(default)})"
    return rule | {"rule": re.sub(rf"(?<!has\()\bself\.{name}\b(?![.\w])", value, rule["rule"])}


def _with_no_defaults(schema: Schema) -> Schema:
    schema.pop("default", None)
    for part in [*schema.get("properties", {}).values(), schema.get("items"), schema.get("additionalProperties")]:
        if part:
            _with_no_defaults(part)
    return schema


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in inspect.cleandoc(text).split("\n\n"))


def _root_schema(kind: Kind) -> Schema:
    model = kind.model
    generated = model.model_json_schema(by_alias=True, schema_generator=DescribedJsonSchema)
    parts = {part: structural(generated["properties"][part], generated["$defs"]) for part in ("spec", "status")}
    # The operator writes status, so its fields have no defaults, except the mark that the operator has not processed
    # the object yet. Without it, tools that follow kstatus would take an object without a status for a finished one.
    unseen = {"observedGeneration": -1} | ({"phase": kind.first_phase} if kind.first_phase else {})
    status = _with_no_defaults(parts["status"]) | {"default": unseen}
    return {
        "type": "object",
        "description": _paragraphs(generated["description"]),
        **({"x-kubernetes-validations": [rule.as_schema() for rule in model.rules]} if model.rules else {}),
        **({"required": ["spec"]} if "spec" in generated["required"] else {}),
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": parts["spec"],
            "status": status,
        },
    }


def _crd(kind: Kind) -> dict[str, Any]:
    name = kind.model.__name__
    subresources: dict[str, Any] = {"status": {}}
    if kind.scalable:
        subresources["scale"] = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": name,
                "listKind": f"{name}List",
                "plural": kind.plural,
                "singular": name.lower(),
                "shortNames": list(kind.short_names),
                "categories": ["remit"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": subresources,
                    "additionalPrinterColumns": [dict(column) for column in kind.columns],
                    "selectableFields": [{"jsonPath": path} for path in kind.selectable],
                    "schema": {"openAPIV3Schema": _root_schema(kind)},
                }
            ],
        },
    }


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes YAML without anchors and aliases, which are hard to read."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _dump(document: dict[str, Any]) -> str:
    return yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)
