"""Generates the API reference in `docs/` from the schemas of the CRDs, so that the two always agree."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from remit.api.crd import crds
from remit.api.group import API_VERSION, GROUP

Schema = dict[str, Any]

_INTRODUCTION = f"""\
# API reference

Generated from `operator/remit/api` by `make crds`. Do not edit.

The kinds of `{API_VERSION}`, all namespaced, all in the category `remit` (`kubectl get remit`). `kubectl explain` shows
the same texts. A star marks what must be given.
"""
_ELSEWHERE = {"spec.stages.prePromotion[].task", "spec.stages.postPromotion[].task"}
_OBVIOUS = {("minLength", 1), ("minItems", 1), ("minimum", 0)}
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches `` {} ``",
}


def render() -> str:
    """Returns the whole document, as Markdown."""
    return "\n".join([_INTRODUCTION, *(part for crd in crds() for part in _kind(crd["spec"]))])


def _kind(spec: dict[str, Any]) -> Iterator[str]:
    names, version = spec["names"], spec["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    selectable = ", ".join(f"`{field['jsonPath'][1:]}`" for field in version["selectableFields"])
    yield f"## {names['kind']}\n\n{schema['description']}\n"
    yield f"Names: `{names['plural']}.{GROUP}`, {short}. Field selectors: {selectable}.\n"
    for part in ("spec", "status"):
        yield f"### {names['kind']} {part}\n\n{schema['properties'][part]['description']}\n"
        rows = "".join(_rows(part, schema["properties"][part]))
        yield f"| field | type | meaning |\n| --- | --- | --- |\n{rows}"
        if rules := dict.fromkeys(_rules(part, schema["properties"][part])):
            yield f"Rules:\n\n{''.join(rules)}"


def _rows(path: str, schema: Schema) -> Iterator[str]:
    required = schema.get("required", [])
    for name, part in schema.get("properties", {}).items():
        field = f"{path}.{name}"
        yield f"| `{field}`{' *' if name in required else ''} | {_type(part)} | {_meaning(part, field)} |\n"
        items = part.get("items", {})
        if field not in _ELSEWHERE:
            yield from _rows(field, part)
            yield from _rows(f"{field}[]", items)


def _rules(path: str, schema: Schema) -> Iterator[str]:
    if path in _ELSEWHERE:
        return
    for rule in schema.get("x-kubernetes-validations", []):
        yield f"- `{path}`: {rule['message']}.\n"
    for name, part in schema.get("properties", {}).items():
        yield from _rules(f"{path}.{name}", part)
    if "items" in schema:
        yield from _rules(f"{path}[]", schema["items"])


def _type(schema: Schema) -> str:
    if schema.get("x-kubernetes-int-or-string"):
        return "integer or string"
    match schema["type"]:
        case "array":
            return f"list of {_type(schema['items'])}"
        case "object" if "additionalProperties" in schema:
            return f"map to {_type(schema['additionalProperties'])}"
        case "string" if schema.get("format") == "date-time":
            return "time"
        case name:
            return str(name)


def _meaning(schema: Schema, field: str) -> str:
    parts = [schema.get("description", "").replace("\n\n", " ")]
    if field in _ELSEWHERE:
        parts.append("Fields as of an [ExecutionTask's spec](#executiontask-spec), but for schedule, cancel and TTL.")
    if "enum" in schema:
        parts.append(f"One of {', '.join(f'`{value}`' for value in schema['enum'])}.")
    bounds = [
        text.format(schema[key])
        for key, text in _BOUNDS.items()
        if key in schema and (key, schema[key]) not in _OBVIOUS
    ]
    if bounds:
        sentence = ", ".join(bounds)
        parts.append(f"{sentence[0].upper()}{sentence[1:]}.")
    default = schema.get("default", {})
    if default != {}:
        parts.append(f"Default: `{default if isinstance(default, str) else json.dumps(default)}`.")
    return " ".join(part for part in parts if part).replace("|", "\\|")
