"""CustomResourceDefinitions: what is filled in, and what is wrong with one."""

from __future__ import annotations

from typing import Any

import orjson

from remit.controlplane.schema.causes import Cause, Invalid, forbidden, invalid_value, required
from remit.controlplane.schema.jsonpath import compile_path
from remit.controlplane.schema.naming import dns1035_label, subdomain
from remit.controlplane.schema.schema import Schema

Raw = dict[str, Any]

_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_MOST_SELECTABLE = 8
_LONGEST_WARNING = 256
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")


def default_crd(crd: Raw) -> None:
    """Fill in, in place, what users of CRDs leave out."""
    spec = crd.get("spec")
    if not isinstance(spec, dict):
        return
    names = spec.get("names")
    if isinstance(names, dict) and isinstance(names.get("kind"), str):
        names.setdefault("listKind", f"{names['kind']}List")
        names.setdefault("singular", names["kind"].lower())
    spec.setdefault("conversion", {"strategy": "None"})


def validate_crd(crd: Raw, old: Raw | None = None) -> list[Cause]:
    """Everything that is wrong with a definition whose fields are of the right types."""
    spec = crd.get("spec") or {}
    if "names" not in spec or "versions" not in spec:
        return []  # the schema of CRDs has said so already
    causes = [*_names(spec), *_versions(spec)]
    if spec.get("preserveUnknownFields"):
        causes.append(
            invalid_value("spec.preserveUnknownFields", True, "must be false in order to use defaults in the schema")
        )
    strategy = (spec.get("conversion") or {}).get("strategy")
    if not strategy:
        causes.append(required("spec.conversion.strategy"))
    elif strategy != "None":
        causes.append(
            forbidden("spec.conversion.strategy", "this control plane converts nothing; use the strategy None")
        )
    if old is not None:
        causes += _unchanged(spec, old["spec"])
    else:
        causes += _named(crd, spec)
    return causes


def _named(crd: Raw, spec: Raw) -> list[Cause]:
    plural, group, name = spec["names"].get("plural", ""), spec.get("group", ""), crd["metadata"].get("name")
    if name == f"{plural}.{group}":
        return []
    return [invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group')]


def _names(spec: Raw) -> list[Cause]:
    names, group = spec["names"], spec.get("group") or ""
    causes = (
        [invalid_value("spec.group", group, why) for why in subdomain(group)] if group else [required("spec.group")]
    )
    if group and "." not in group:
        causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    for field in ("plural", "singular", "kind", "listKind"):
        value = names.get(field) or ""
        where = f"spec.names.{field}"
        if not value:
            causes.append(required(where))
        else:
            causes += [invalid_value(where, value, why) for why in dns1035_label(value.lower())]
    for field in ("shortNames", "categories"):
        for index, value in enumerate(names.get(field) or ()):
            where = f"spec.names.{field}[{index}]"
            causes += [invalid_value(where, value, why) for why in dns1035_label(value)]
    plural = names.get("plural") or ""
    if plural and plural != plural.lower():
        causes += [invalid_value("spec.names.plural", plural, why) for why in dns1035_label(plural)]
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(invalid_value("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    if spec.get("scope") not in {"Cluster", "Namespaced"}:
        message = f'Unsupported value: "{spec.get("scope") or ""}": supported values: "Cluster", "Namespaced"'
        causes.append(Cause("FieldValueNotSupported", message, "spec.scope"))
    return causes


def _versions(spec: Raw) -> list[Cause]:
    causes: list[Cause] = []
    versions = spec["versions"]
    seen: set[str] = set()
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        name = version.get("name") or ""
        if name in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{name}"', f"{path}.name"))
        seen.add(name)
        causes += [invalid_value(f"{path}.name", name, why) for why in dns1035_label(name)]
        causes += _version(version, path, single=len(versions) == 1)
    if sum(bool(version.get("storage")) for version in versions) != 1:
        shown = orjson.dumps([]).decode() if not versions else orjson.dumps(versions).decode()
        why = "must have exactly one version marked as storage version"
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {shown}: {why}", "spec.versions"))
    return causes


def _version(version: Raw, path: str, *, single: bool) -> list[Cause]:
    where = "spec.validation.openAPIV3Schema" if single else f"{path}.schema.openAPIV3Schema"
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    if not isinstance(schema, dict):
        return [required(f"{path}.schema.openAPIV3Schema", "schemas are required")]
    causes: list[Cause] = []
    try:
        Schema.compile(schema, path=where)
    except Invalid as error:
        causes += error.causes
    else:
        causes += _defaults_fit(schema, where)
    top = "spec" if single else path
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        causes += _column(column, f"{top}.additionalPrinterColumns[{index}]")
    causes += _scale((version.get("subresources") or {}).get("scale"), f"{top}.subresources.scale")
    causes += _selectable(version.get("selectableFields") or [], schema, f"{top}.selectableFields")
    return causes + _deprecation(version, f"{path}.deprecationWarning")


def _scale(scale: Raw | None, path: str) -> list[Cause]:
    """Where the replicas are: paths below `.spec` and `.status`."""
    if scale is None:
        return []
    causes = []
    roots: dict[str, tuple[str, ...]] = {"specReplicasPath": (".spec",), "statusReplicasPath": (".status",)}
    roots["labelSelectorPath"] = (".spec", ".status")
    for field, under in roots.items():
        where, given = f"{path}.{field}", scale.get(field) or ""
        if not given:
            causes += [] if field == "labelSelectorPath" else [required(where)]
        elif not given.startswith("."):
            causes.append(invalid_value(where, given, "must be a simple json path starting with ."))
        elif not given.startswith(tuple(f"{root}." for root in under)):
            causes.append(invalid_value(where, given, f"should be a json path under {' or '.join(under)}"))
    return causes


def _selectable(fields: list[Raw], schema: Raw, path: str) -> list[Cause]:
    """Fields to select by are declared ones, of a type that can be compared with text."""
    causes = []
    seen: set[str] = set()
    for index, field in enumerate(fields):
        where, given = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not given:
            causes.append(required(where))
        elif why := _unselectable(given, schema):
            causes.append(invalid_value(where, given, why))
        elif given in seen:
            causes.append(Cause("FieldValueDuplicate", f'Duplicate value: "{given}"', where))
        seen.add(given)
    if len(fields) > _MOST_SELECTABLE:
        message = f"Too many: {len(fields)}: must have at most {_MOST_SELECTABLE} items"
        causes.append(Cause("FieldValueTooMany", message, path))
    return causes


def _unselectable(path: str, schema: Raw) -> str:
    if "[" in path:
        return "is an invalid path: array notation is not allowed"
    first, *rest = path.removeprefix(".").split(".")
    part: Any = None if first == "metadata" else (schema.get("properties") or {}).get(first)
    for name in rest:
        part = ((part or {}).get("properties") or {}).get(name)
    if part is None or not path.startswith("."):
        return "is an invalid path: does not refer to a valid field"
    if part.get("type") in {"string", "boolean", "integer"}:
        return ""
    types = "string, boolean or integer"
    return f"must point to a field of type {types}. Enum string fields and strings with formats are allowed."


def _deprecation(version: Raw, path: str) -> list[Cause]:
    warning = version.get("deprecationWarning")
    if warning is None:
        return []
    causes = []
    if not version.get("deprecated"):
        causes.append(invalid_value(path, warning, "can only be set for deprecated versions"))
    if not warning.isprintable():
        index = next(index for index, character in enumerate(warning) if not character.isprintable())
        why = f"must only contain printable UTF-8 characters; non-printable character found at index {index}"
        causes.append(invalid_value(path, warning, why))
    if not warning:
        causes.append(invalid_value(path, warning, "must not be an empty string"))
    if len(warning) > _LONGEST_WARNING:
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {_LONGEST_WARNING} bytes", path))
    return causes


def _column(column: Raw, path: str) -> list[Cause]:
    causes = [required(f"{path}.{field}") for field in ("name", "type", "jsonPath") if not column.get(field)]
    if column.get("type") and column["type"] not in _COLUMN_TYPES:
        supported = ", ".join(f'"{name}"' for name in _COLUMN_TYPES)
        message = f'Unsupported value: "{column["type"]}": supported values: {supported}'
        causes.append(Cause("FieldValueNotSupported", message, f"{path}.type"))
    if column.get("format") and column["format"] not in _COLUMN_FORMATS:
        why = f"must be one of {','.join(_COLUMN_FORMATS)}"
        causes.append(invalid_value(f"{path}.format", column["format"], why))
    if column.get("jsonPath"):
        try:
            compile_path(column["jsonPath"])
        except ValueError as error:
            causes.append(invalid_value(f"{path}.jsonPath", column["jsonPath"], f"is an invalid path: {error}"))
    return causes


def _defaults_fit(schema: Raw, path: str) -> list[Cause]:
    """A default must itself be valid: it will be stored in every object that leaves the field out."""
    causes: list[Cause] = []

    def look(raw: Raw, where: str) -> None:
        if "default" in raw:
            part = {name: value for name, value in raw.items() if name != "default"}
            if part.get("type") or part.get("x-kubernetes-int-or-string"):
                holder = Schema.compile({"type": "object", "properties": {"default": part}}, path=where)
                value = {"default": orjson.loads(orjson.dumps(raw["default"]))}
                holder.default(value)
                found = holder.validate(value)
                causes.extend(Cause(cause.reason, cause.message, f"{where}.{cause.field}") for cause in found)
        for name, part in raw.get("properties", {}).items():
            look(part, f"{where}.properties[{name}]")
        for word in ("items", "additionalProperties"):
            if isinstance(raw.get(word), dict):
                look(raw[word], f"{where}.{word}")

    look(schema, path)
    return causes


def _unchanged(spec: Raw, old: Raw) -> list[Cause]:
    """Names that clients have built on cannot change."""
    causes = []
    for path in (("group",), ("scope",), ("names", "plural"), ("names", "kind")):
        new_value, old_value = _dig(spec, path), _dig(old, path)
        if new_value != old_value:
            causes.append(invalid_value(".".join(("spec", *path)), new_value, "field is immutable"))
    return causes


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = (value or {}).get(part)
    return value
