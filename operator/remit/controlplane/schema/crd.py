"""CustomResourceDefinitions: what is filled in, and what is wrong with one."""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from remit.controlplane.schema.causes import Cause, forbidden, invalid_value, not_supported, required
from remit.controlplane.schema.crdschema import schema_causes, unsupported
from remit.controlplane.schema.fieldpath import follow
from remit.controlplane.schema.naming import dns1035_label, subdomain

Raw = dict[str, Any]

_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")
_APPROVED: Final = "api-approved.kubernetes.io"
_APPROVALS: Final = "https://github.com/kubernetes/enhancements/pull/1111"
_COLUMNS: Final = "additionalPrinterColumns"
_TOP: Final = {
    "schema": "spec.validation",
    _COLUMNS: "spec.additionalPrinterColumns",
    "subresources": "spec.subresources",
    "selectableFields": "spec.selectableFields",
}
"""What is declared for each version, and what it is called where all have the same."""
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
        names["singular"] = names.get("singular") or names["kind"].lower()
        if names["kind"]:
            names["listKind"] = names.get("listKind") or f"{names['kind']}List"
    spec.setdefault("conversion", {"strategy": "None"})


def validate_crd(crd: Raw, old: Raw | None = None) -> list[Cause]:
    """Everything that is wrong with a definition whose fields are of the right types.

    A schema that `old` has just the same is let be, and so is a missing approval: what is stored already may be from a
    version that checked less.
    """
    spec = crd.get("spec") or {}
    causes = [*_names(spec), *_versions(spec, old or {}), *_approval(crd, old)]
    if spec.get("preserveUnknownFields") and not (old or {}).get("spec", {}).get("preserveUnknownFields"):
        why = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        causes.append(invalid_value("spec.preserveUnknownFields", True, why))
    strategy = spec.get("conversion", {"strategy": "None"}).get("strategy")
    if not strategy:
        causes.append(required("spec.conversion.strategy"))
    elif strategy != "None":
        causes.append(
            forbidden("spec.conversion.strategy", "this control plane converts nothing; use the strategy None")
        )
    if old is not None:
        causes += _unchanged(spec, old)
    else:
        causes += _named(crd, spec)
    return causes


def _named(crd: Raw, spec: Raw) -> list[Cause]:
    metadata, names = crd["metadata"], spec.get("names") or {}
    wanted, why = f"{names.get('plural') or ''}.{spec.get('group') or ''}", 'must be spec.names.plural+"."+spec.group'
    given = {field: metadata[field] for field in ("name", "generateName") if metadata.get(field)}
    return [invalid_value(f"metadata.{field}", text, why) for field, text in given.items() if text != wanted]


def _approval(crd: Raw, old: Raw | None) -> list[Cause]:
    """Kubernetes' own groups are for APIs that its community has approved."""
    group = (crd.get("spec") or {}).get("group") or ""
    if not f".{group}".endswith((".k8s.io", ".kubernetes.io")):
        return []
    state, why = _approval_state(crd)
    if state in ("approved", "bypassed") or (old is not None and _approval_state(old)[0] == state):
        return []
    where, given = f"metadata.annotations[{_APPROVED}]", (crd["metadata"].get("annotations") or {}).get(_APPROVED)
    return [required(where, why) if state == "missing" else invalid_value(where, given, why)]


def _approval_state(crd: Raw) -> tuple[str, str]:
    given = (crd["metadata"].get("annotations") or {}).get(_APPROVED) or ""
    why, more = f'protected groups must have approval annotation "{_APPROVED}"', f", see {_APPROVALS}"
    if not given:
        return "missing", f"{why}{more}"
    if given.startswith("unapproved"):
        return "bypassed", ""
    try:
        parts = urlsplit(given)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme and parts.netloc:
        return "approved", ""
    return "wrong", f'{why} with either a URL or a reason starting with "unapproved"{more}'


def _names(spec: Raw) -> list[Cause]:
    names, group = spec.get("names") or {}, spec.get("group") or ""
    causes = (
        [invalid_value("spec.group", group, why) for why in subdomain(group)] if group else [required("spec.group")]
    )
    if not causes and "." not in group:
        causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    for field in ("plural", "singular", "kind", "listKind"):
        value = names.get(field) or ""
        where = f"spec.names.{field}"
        if not value:
            causes.append(required(where))
        else:
            folded = value.lower() if field in ("kind", "listKind") else value
            causes += [invalid_value(where, value, why) for why in dns1035_label(folded)]
    for field in ("shortNames", "categories"):
        for index, value in enumerate(names.get(field) or ()):
            where = f"spec.names.{field}[{index}]"
            causes += [invalid_value(where, value, why) for why in dns1035_label(value)]
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        causes.append(invalid_value("spec.names.listKind", names["listKind"], "kind and listKind may not be the same"))
    if not spec.get("scope"):
        causes.append(required("spec.scope"))
    elif spec["scope"] not in {"Cluster", "Namespaced"}:
        causes.append(not_supported("spec.scope", spec["scope"], ("Cluster", "Namespaced")))
    return causes


def _schemas(crd: Raw) -> Raw:
    """The schema of each version as JSON, by the version's name."""
    versions = (crd.get("spec") or {}).get("versions") or ()
    return {version.get("name") or "": _dumped(_openapi(version)) for version in versions}


def _openapi(version: Raw) -> Raw | None:
    found: Raw | None = (version.get("schema") or {}).get("openAPIV3Schema")
    return found


def _versions(spec: Raw, old: Raw) -> list[Cause]:
    causes: list[Cause] = []
    versions: list[Raw] = spec.get("versions") or []
    names = [version.get("name") or "" for version in versions]
    for index, version in enumerate(versions):
        path = f"spec.versions[{index}]"
        causes += [invalid_value(f"{path}.name", names[index], why) for why in dns1035_label(names[index])]
        causes += _deprecation(version, f"{path}.deprecationWarning")
        if _openapi(version) is None:
            causes.append(required(f"{path}.schema.openAPIV3Schema", "schemas are required"))
    if names and names[0]:
        causes += [invalid_value("spec.version", names[0], why) for why in dns1035_label(names[0])]
    shown = orjson.dumps(names).decode()
    if len(set(names)) < len(names):
        why = f"Invalid value: {shown}: must contain unique version names"
        causes.append(Cause("FieldValueInvalid", why, "spec.versions"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        why = f"Invalid value: {shown}: must have exactly one version marked as storage version"
        causes.append(Cause("FieldValueInvalid", why, "spec.versions"))
    if _dumped(versions) != _dumped((old.get("spec") or {}).get("versions")):
        causes += _fields_of_versions(versions, _schemas(old))
    return [*causes, *_stored(versions, names, old)]


def _stored(versions: list[Raw], names: list[str], old: Raw) -> list[Cause]:
    """Check that versions in which objects are stored stay versions."""
    path, storage = (
        "status.storedVersions",
        [version.get("name") or "" for version in versions if version.get("storage")],
    )
    stored = [*((old.get("status") or {}).get("storedVersions") or ()), *storage[:1]]
    if not stored:
        return [invalid_value(path, [], "must have at least one stored version")]
    causes = [
        invalid_value(path, stored, f"must have the storage version {name}") for name in storage if name not in stored
    ]
    why = "missing from spec.versions; it was previously a storage version, and must remain in spec.versions until no"
    why += " data remains persisted in it and it is removed from status.storedVersions"
    gone = [invalid_value(f"{path}[{i}]", name, why) for i, name in enumerate(stored) if name not in names]
    return [*causes, *gone]


def _fields_of_versions(versions: list[Raw], known: Raw) -> list[Cause]:
    """What all versions have alike is told once, and named as what it was before there were versions."""
    causes: list[Cause] = []
    alike = {word: len({_dumped(_bare(version.get(word))) for version in versions}) == 1 for word in _TOP}
    status = ["status" in (version.get("subresources") or {}) for version in versions]
    for index, version in enumerate(versions):
        at = {word: top if alike[word] else f"spec.versions[{index}].{word}" for word, top in _TOP.items()}
        first = {word for word in _TOP if index == 0 or not alike[word]}
        schema = _openapi(version)
        if "schema" in first and schema is not None and known.get(version.get("name") or "") != _dumped(schema):
            has_status = any(status) if alike["schema"] else status[index]
            causes += schema_causes(schema, f"{at['schema']}.openAPIV3Schema", status=has_status)
        for number, column in enumerate((version.get("additionalPrinterColumns") or ()) if _COLUMNS in first else ()):
            causes += _column(column, f"{at[_COLUMNS]}[{number}]")
        if "subresources" in first:
            causes += _scale((version.get("subresources") or {}).get("scale"), f"{at['subresources']}.scale")
        fields = version.get("selectableFields")
        if fields and "selectableFields" in first:
            if schema is None or alike["schema"] != alike["selectableFields"]:
                why = "may only be set where the schema is: all versions have the same of both, or of neither"
                causes.append(invalid_value(at["selectableFields"], "", why))
            elif not unsupported(schema):
                causes += _selectable(fields, schema, at["selectableFields"])
    return causes


def _bare(value: Any) -> Any:
    """Without what is empty, which is the same as what is not there to Go."""
    if isinstance(value, dict):
        kept = [key for key, part in value.items() if key == "default" or not (part is False or part in ("", []))]
        return {key: _bare(value[key]) for key in kept}
    return [_bare(part) for part in value] if isinstance(value, list) else value


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value or None, option=orjson.OPT_SORT_KEYS)


def _scale(scale: Raw | None, path: str) -> list[Cause]:
    """Check the paths of the replicas, which are below `.spec` and `.status`."""
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
    seen: set[tuple[str, ...]] = set()
    for index, field in enumerate(fields):
        where, given = f"{path}[{index}].jsonPath", field.get("jsonPath") or ""
        if not given:
            causes.append(required(where))
            continue
        try:
            keys, found = follow(given, schema, arrays=False)
        except ValueError as error:
            causes.append(invalid_value(where, given, f"is an invalid path: {error}"))
            continue
        if keys[0] == "metadata":
            causes.append(invalid_value(where, given, "must not point to fields in metadata"))
        if found.get("type") not in {"string", "boolean", "integer"}:
            types = "string, boolean or integer"
            why = f"must point to a field of type {types}. Enum string fields and strings with formats are allowed."
            causes.append(invalid_value(where, given, why))
        if keys in seen:
            causes.append(Cause("FieldValueDuplicate", f"Duplicate value: {json.dumps(given)}", where))
        seen.add(keys)
    if len(seen) > _MOST_SELECTABLE:
        message = f"Too many: {len(seen)}: must have at most {_MOST_SELECTABLE} items"
        causes.append(Cause("FieldValueTooMany", message, path))
    return causes


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
    """A path that starts with a dot is taken, whatever follows: what cannot be read is not shown."""
    causes = [] if column.get("name") else [required(f"{path}.name")]
    types, formats = (f"must be one of {','.join(names)}" for names in (_COLUMN_TYPES, _COLUMN_FORMATS))
    type_, format_, json_path = (column.get(field) or "" for field in ("type", "format", "jsonPath"))
    if not type_:
        causes.append(required(f"{path}.type", types))
    elif type_ not in _COLUMN_TYPES:
        causes.append(invalid_value(f"{path}.type", type_, types))
    if format_ and format_ not in _COLUMN_FORMATS:
        causes.append(invalid_value(f"{path}.format", format_, formats))
    if not json_path:
        causes.append(required(f"{path}.JSONPath"))
    elif not json_path.startswith("."):
        causes.append(invalid_value(f"{path}.JSONPath", json_path, "must be a simple json path starting with ."))
    return causes


def _unchanged(spec: Raw, old: Raw) -> list[Cause]:
    """Names that clients have built on cannot change."""
    causes = []
    conditions = (old.get("status") or {}).get("conditions") or ()
    established = any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
    paths = [("group",), ("names", "plural"), *([("scope",), ("names", "kind")] if established else [])]
    for path in paths:
        new_value, old_value = _dig(spec, path), _dig(old["spec"], path)
        if new_value != old_value:
            causes.append(invalid_value(".".join(("spec", *path)), new_value, "field is immutable"))
    return causes


def _dig(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        value = (value or {}).get(part)
    return value
