"""The rules every object's metadata obeys, in the order and the words of a kube-apiserver.

What only the server may write (uid, timestamps, generation) is kept right by the caller and not looked at here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final

from remit.controlplane.schema import naming
from remit.controlplane.schema.causes import Cause, forbidden, invalid_value, required, too_long

_ANNOTATIONS_LIMIT: Final = 256 * 1024
"""Bytes of all keys and values together."""
_STANDARD_FINALIZERS: Final = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
_LABEL_NAMED: Final = frozenset({"Namespace"})
"""Kinds whose names become DNS labels."""


def validate_metadata(
    obj: dict[str, Any], *, namespaced: bool, old: dict[str, Any] | None = None, kind: str = ""
) -> list[Cause]:
    """Every mistake in `obj["metadata"]`; `old` is the object before an update. `kind` defaults to the object's own."""
    metadata: dict[str, Any] = obj.get("metadata") or {}
    shape = _shape(metadata)
    if shape:
        return shape
    rule = naming.label_name if (kind or obj.get("kind")) in _LABEL_NAMED else naming.subdomain
    causes = [
        *_names(metadata, rule),
        *_namespace(metadata, namespaced),
        *_labels(metadata.get("labels") or {}),
        *_annotations(metadata.get("annotations") or {}),
        *_owners(metadata.get("ownerReferences") or []),
        *_finalizers(metadata.get("finalizers") or [], builtin="/" not in obj.get("apiVersion", "")),
    ]
    if old is not None:
        causes += _transition(metadata, old.get("metadata") or {})
    return causes


def _shape(metadata: dict[str, Any]) -> list[Cause]:
    """Types first: the other rules count on them."""
    causes = [
        _type(f"metadata.{name}", metadata[name], "string")
        for name in ("name", "generateName", "namespace")
        if not isinstance(metadata.get(name) or "", str)
    ]
    for name in ("labels", "annotations"):
        values = metadata.get(name) or {}
        if not isinstance(values, dict):
            causes.append(_type(f"metadata.{name}", values, "object"))
        else:
            causes += [
                _type(f"metadata.{name}.{key}", v, "string") for key, v in values.items() if not isinstance(v, str)
            ]
    for name, item_type, called in (("finalizers", str, "string"), ("ownerReferences", dict, "object")):
        items = metadata.get(name) or []
        if not isinstance(items, list):
            causes.append(_type(f"metadata.{name}", items, "array"))
        else:
            causes += [
                _type(f"metadata.{name}[{index}]", item, called)
                for index, item in enumerate(items)
                if not isinstance(item, item_type)
            ]
    return causes


def _type(field: str, value: Any, expected: str) -> Cause:
    cause = invalid_value(field, value, f"must be of type {expected}")
    return cause._replace(reason="FieldValueTypeInvalid")


def _each(field: str, value: Any, mistakes: Iterable[str]) -> list[Cause]:
    return [invalid_value(field, value, why) for why in mistakes]


def _names(metadata: dict[str, Any], rule: Callable[[str], list[str]]) -> list[Cause]:
    name, prefix = metadata.get("name") or "", metadata.get("generateName") or ""
    causes = []
    if prefix:
        # A suffix is appended, so a dash at the end of the prefix is not at the end of the name.
        causes += _each("metadata.generateName", prefix, rule(prefix[:-1] + "a" if prefix[-1] == "-" else prefix))
    if not name:
        return [*causes, required("metadata.name", "name or generateName is required")]
    return [*causes, *_each("metadata.name", name, rule(name))]


def _namespace(metadata: dict[str, Any], namespaced: bool) -> list[Cause]:
    namespace = metadata.get("namespace") or ""
    if not namespaced:
        return [forbidden("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required("metadata.namespace")]
    return _each("metadata.namespace", namespace, naming.label_name(namespace))


def _labels(labels: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    for key, value in labels.items():
        causes += _each("metadata.labels", key, naming.qualified_name(key))
        causes += _each("metadata.labels", value, naming.label_value(value))
    return causes


def _annotations(annotations: dict[str, str]) -> list[Cause]:
    causes: list[Cause] = []
    for key in annotations:
        # The prefix of an annotation may contain upper case letters, unlike that of a label.
        causes += _each("metadata.annotations", key, naming.qualified_name(key.lower()))
    if sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items()) > _ANNOTATIONS_LIMIT:
        causes.append(too_long("metadata.annotations", f"may not be more than {_ANNOTATIONS_LIMIT} bytes"))
    return causes


def _owners(references: list[dict[str, Any]]) -> list[Cause]:
    field = "metadata.ownerReferences"
    causes: list[Cause] = []
    controllers: list[str] = []
    for reference in references:
        api_version = reference.get("apiVersion") or ""
        group, _, version = api_version.rpartition("/")
        if not version or "/" in group:
            causes.append(invalid_value(f"{field}.apiVersion", api_version, "version must not be empty"))
        empty = [name for name in ("kind", "name", "uid") if not reference.get(name)]
        causes += [invalid_value(f"{field}.{name}", "", "must not be empty") for name in empty]
        if api_version == "v1" and reference.get("kind") == "Event":
            causes.append(invalid_value(field, reference, "/v1, Kind=Event is disallowed from being an owner"))
        if reference.get("controller") is True:
            controllers.append(f"{reference.get('kind')}/{reference.get('name')}")
    if len(controllers) > 1:
        # The message names two references, however many there are: the first and the superfluous one.
        for extra in controllers[1:]:
            why = (
                'Only one reference can have Controller set to true. Found "true" in references for '
                f"{controllers[0]} and {extra}"
            )
            causes.append(invalid_value(field, references, why))
    return causes


def _finalizers(finalizers: list[str], *, builtin: bool) -> list[Cause]:
    field = "metadata.finalizers"
    causes: list[Cause] = []
    for index, finalizer in enumerate(finalizers):
        causes += _each(field, finalizer, naming.qualified_name(finalizer))
        if builtin and "/" not in finalizer and finalizer not in _STANDARD_FINALIZERS:
            why = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid_value(f"{field}[{index}]", finalizer, why))
    if {"orphan", "foregroundDeletion"} <= set(finalizers):
        why = "finalizer orphan and foregroundDeletion cannot be both set"
        causes.append(invalid_value(field, finalizers, why))
    return causes


def _transition(metadata: dict[str, Any], before: dict[str, Any]) -> list[Cause]:
    if not before.get("deletionTimestamp"):
        return []
    fresh = sorted(set(metadata.get("finalizers") or ()) - set(before.get("finalizers") or ()))
    if not fresh:
        return []
    listed = ", ".join(f'"{finalizer}"' for finalizer in fresh)
    why = f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}"
    return [forbidden("metadata.finalizers", why)]
