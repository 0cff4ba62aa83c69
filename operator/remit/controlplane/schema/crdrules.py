"""Finds mistakes in the CEL rules that a schema declares, apart from their expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from remit.controlplane.schema.causes import Cause, invalid_value, not_supported, required
from remit.controlplane.schema.structural import Node

Raw = dict[str, Any]

_REASONS: Final = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def declared_rules(schema: Raw, path: str, follows: Callable[[Raw, str], bool]) -> Iterator[Cause]:
    """`follows` tells whether a fieldPath leads to a field of the schema."""
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        where = f"{path}.x-kubernetes-validations[{index}]"
        yield from _texts(rule, where)
        if "reason" in rule and rule["reason"] not in _REASONS:
            yield not_supported(f"{where}.reason", rule["reason"], _REASONS)
        if field := rule.get("fieldPath"):
            if not field.strip():
                yield invalid_value(f"{where}.fieldPath", field, "must be non-empty if specified")
            if _has_newlines(field):
                yield invalid_value(f"{where}.fieldPath", field, "must not contain line breaks")
            if not follows(schema, field):
                yield invalid_value(f"{where}.fieldPath", field, "must be a valid path")


def _texts(rule: Raw, where: str) -> Iterator[Cause]:
    source, message, expression = (rule.get(word) or "" for word in ("rule", "message", "messageExpression"))
    if not source.strip():
        yield required(f"{where}.rule", "rule is not specified")
    elif message and not message.strip():
        yield invalid_value(f"{where}.message", message, "must be non-empty if specified")
    elif _has_newlines(message.strip()):
        yield invalid_value(f"{where}.message", message, "must not contain line breaks")
    elif _has_newlines(source.strip()) and not message.strip():
        yield required(f"{where}.message", "message must be specified if rule contains line breaks")
    if expression and not expression.strip():
        yield required(f"{where}.messageExpression", "messageExpression must be non-empty if specified")


def _has_newlines(text: str) -> bool:
    return "\n" in text or "\r" in text


def unusable_old_self(node: Node, path: str, uncorrelatable: str = "") -> list[Cause]:
    """Rules that speak of oldSelf where there is none, and that prepare for one without speaking of it.

    `uncorrelatable`: the path of what has no older self, as the items of a list that is no map.
    """
    causes = []
    for index, rule in enumerate(node.rules):
        where = f"{path}.x-kubernetes-validations[{index}]"
        declared = node.raw["x-kubernetes-validations"][index]
        if rule.transition and uncorrelatable:
            why = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelatable}"
            causes.append(invalid_value(f"{where}.rule", rule.source, why))
        elif not rule.transition and "optionalOldSelf" in declared:
            why = "may not be set if oldSelf is not used in rule"
            causes.append(invalid_value(f"{where}.optionalOldSelf", declared["optionalOldSelf"], why))
    for name, child in node.properties.items():
        causes += unusable_old_self(child, f"{path}.properties[{name}]", uncorrelatable)
    if node.additional is not None:
        causes += unusable_old_self(node.additional, f"{path}.additionalProperties", uncorrelatable)
    if node.items is not None:
        within = uncorrelatable or (path if node.list_type != "map" else "")
        causes += unusable_old_self(node.items, f"{path}.items", within)
    return causes
