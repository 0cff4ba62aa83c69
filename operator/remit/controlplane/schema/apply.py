"""Server-side apply: merge what one manager wants into the object, and take out what it no longer wants.

The rules are those of sigs.k8s.io/structured-merge-diff, the texts those of a kube-apiserver. Managers of other API
versions are taken to name their fields alike, so a CRD whose versions differ in shape needs more than this.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson

from remit.controlplane.schema import fieldset
from remit.controlplane.schema.causes import Cause
from remit.controlplane.schema.fieldset import FieldSet, Path, SchemaDict
from remit.controlplane.schema.formats import timestamp
from remit.controlplane.schema.jsontypes import same
from remit.controlplane.schema.managedfields import (
    Entry,
    HasRaw,
    Managers,
    ownable,
    read,
    release,
    unmanaged,
    write,
)
from remit.controlplane.schema.merging import merge
from remit.errors import ApiError

_BEFORE: Final = "before-first-apply"
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"


class Conflict(NamedTuple):
    owner: Entry
    path: Path


class ApplyConflict(ApiError):
    """Others own fields with other values (HTTP 409). `causes` has one `FieldManagerConflict` for each field."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__(_message(conflicts), status=409, reason="Conflict")
        self.causes = [
            Cause("FieldManagerConflict", f"conflict with {_owner(owner)}", fieldset.show(path))
            for owner, path in conflicts
        ]


def server_side_apply(
    live: dict[str, Any] | None,
    config: dict[str, Any],
    *,
    manager: str,
    force: bool,
    schema: HasRaw | None,
    api_version: str,
    now: datetime,
    subresource: str | None = None,
) -> dict[str, Any]:
    """The object after `manager` applied `config`, managedFields included; nothing given is changed.

    At the main endpoint of a resource with a status subresource, the caller leaves `status` out of `config`.
    Raises `ApplyConflict` unless `force`, and `ApiError` for a `config` that cannot be applied.
    """
    if config.get("metadata", {}).get("managedFields") is not None:
        raise ApiError("metadata.managedFields must be nil", status=400, reason="BadRequest")
    rules = fieldset.object_schema(schema.raw if schema else None)
    wanted = {**config, "metadata": {k: v for k, v in config.get("metadata", {}).items() if k != "managedFields"}}
    if subresource:
        wanted = {key: wanted[key] for key in ("apiVersion", "kind", "metadata", subresource) if key in wanted}
        wanted["metadata"] = {}
    _check_lists(wanted, rules)
    before = unmanaged(live or {key: config[key] for key in ("apiVersion", "kind") if key in config})
    managers = read((live or {}).get("metadata", {}).get("managedFields"))
    if live is not None and not managers:
        found = ownable(fieldset.compare({"metadata": {}}, before, rules).added)
        if not subresource:
            found = frozenset(path for path in found if path[0] != "f:status")
        first = Entry(_BEFORE, "Update", api_version, "", timestamp(now), found)
        managers = {first.identity: first} if found else {}

    said = fieldset.fields_of(wanted, rules)
    mine = Entry(manager, "Apply", api_version, subresource or "", "", ownable(said))
    last = managers.pop(mine.identity, None)
    after = merge(before, wanted, rules)
    if last is not None:
        owned = said.union({("f:metadata",)}, *(entry.fields for entry in managers.values()))
        after = _prune(after, last.fields, owned, rules)

    changed = fieldset.compare(before, after, rules)
    taken = changed.added | changed.modified
    conflicts = _conflicts(managers, taken)
    if conflicts and not force:
        tolerated = _applied_by_client(before, manager, rules)
        conflicts = [conflict for conflict in conflicts if conflict.path not in tolerated]
        if conflicts:
            raise ApplyConflict(conflicts)
    managers = release(managers, taken | changed.removed)
    if mine.fields:
        time = (last.time if last else "") if same(before, after) else timestamp(now)
        managers[mine.identity] = Entry(manager, "Apply", api_version, mine.subresource, time, mine.fields)
    result: dict[str, Any] = orjson.loads(orjson.dumps(unmanaged(after)))
    write(result, managers)
    if manager == "kubectl" and not subresource:
        _keep_last_applied(result, config)
    return result


def _prune(merged: Any, last: FieldSet, owned: FieldSet, rules: SchemaDict) -> Any:
    """Take out what the manager applied the last time and nobody claims now.

    Parents count as members where the schema lists them, so an emptied `spec.list` goes with its last item; a removal
    never takes along what was there before and nobody owns.
    """
    last = fieldset.with_parents(last, rules)
    everything = fieldset.with_parents(fieldset.fields_of(merged, rules), rules)

    def fields(value: Any) -> FieldSet:
        return fieldset.with_parents(fieldset.fields_of(value, rules), rules)

    bare = fieldset.without(merged, rules, last)
    kept = fieldset.without(merged, rules, everything - fields(bare) - fieldset.with_parents(owned, rules))
    return fieldset.without(merged, rules, (everything - fields(kept)) & last)


def _conflicts(managers: Managers, taken: FieldSet) -> list[Conflict]:
    return [Conflict(entry, path) for _, entry in sorted(managers.items()) for path in sorted(entry.fields & taken)]


def _applied_by_client(live: dict[str, Any], manager: str, rules: SchemaDict) -> FieldSet:
    """The fields that `kubectl apply` without `--server-side` wrote before: kubectl may take it over without a
    conflict."""
    text = (live["metadata"].get("annotations") or {}).get(_LAST_APPLIED)
    if manager != "kubectl" or not text:
        return frozenset()
    try:
        applied = orjson.loads(text)
    except ValueError:
        return frozenset()
    return fieldset.fields_of(applied, rules) if isinstance(applied, dict) else frozenset()


def _keep_last_applied(obj: dict[str, Any], config: dict[str, Any]) -> None:
    """Update the annotation of client-side apply, if there is one, so that the user can return to it."""
    annotations = obj["metadata"].get("annotations") or {}
    if _LAST_APPLIED not in annotations:
        return
    noted = unmanaged(config)
    others = {k: v for k, v in (noted["metadata"].get("annotations") or {}).items() if k != _LAST_APPLIED}
    noted["metadata"] = {k: v for k, v in noted["metadata"].items() if k != "annotations"}
    if others:
        noted["metadata"]["annotations"] = others
    annotations[_LAST_APPLIED] = orjson.dumps(noted, option=orjson.OPT_SORT_KEYS).decode() + "\n"


def _check_lists(config: dict[str, Any], rules: SchemaDict) -> None:
    """Raises `ApiError` for items that cannot be told apart."""

    def refuse(path: Path, why: str) -> ApiError:
        metadata = config.get("metadata", {})
        what = f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"
        kind = f"{config.get('apiVersion', '')}, Kind={config.get('kind', '')}"
        text = f"failed to create typed patch object ({what}; {kind}): {fieldset.show(path)}: {why}"
        return ApiError(text, status=500)

    def walk(value: Any, schema: SchemaDict | None, path: Path) -> None:
        if isinstance(value, list) and schema and schema.get("x-kubernetes-list-type", "atomic") != "atomic":
            seen: set[str] = set()
            for index, item in enumerate(value):
                element = fieldset.item_element(item, schema)
                if element is None:
                    keys = orjson.dumps(schema.get("x-kubernetes-list-map-keys", [])).decode()
                    raise refuse(
                        path,
                        f"element {index}: associative list with keys has an element that omits all key fields {keys} "
                        "(and doesn't have default values for any key fields)",
                    )
                if element in seen:
                    raise refuse(path, f"duplicate entries for key {fieldset.show((element,))}")
                seen.add(element)
        for element, part in (fieldset.children(value, schema) or {}).items():
            walk(part.value, part.schema, (*path, element))

    walk(config, rules, ())


def _message(conflicts: list[Conflict]) -> str:
    if len(conflicts) == 1:
        owner, path = conflicts[0]
        return f"Apply failed with 1 conflict: conflict with {_owner(owner)}: {fieldset.show(path)}"
    lines: dict[str, list[str]] = {}
    for owner, path in conflicts:
        lines.setdefault(f"conflicts with {_owner(owner)}:", []).append(f"- {fieldset.show(path)}")
    listed = "\n".join("\n".join([who, *paths]) for who, paths in lines.items())
    return f"Apply failed with {len(conflicts)} conflicts: {listed}"


def _owner(entry: Entry) -> str:
    shown = orjson.dumps(entry.manager).decode()
    if entry.subresource:
        shown += f" with subresource {orjson.dumps(entry.subresource).decode()}"
    return f"{shown} using {entry.api_version}" if entry.operation == "Update" else shown
