"""Selects the tasks of a policy by Kubernetes' rules for label selectors."""

from __future__ import annotations

from collections.abc import Mapping

from remit.api.base import LabelSelector, LabelSelectorRequirement


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Whether all parts of the selector match. An empty selector selects everything."""
    return unmet(selector, labels) is None


def unmet(selector: LabelSelector, labels: Mapping[str, str]) -> str | None:
    """None, or the first requirement that `labels` do not meet, as in `team=data` or `env in (dev, test)`."""
    for key, value in selector.match_labels.items():
        if labels.get(key) != value:
            return f"{key}={value}"
    for requirement in selector.match_expressions:
        if not _holds(requirement, labels):
            return _written(requirement)
    return None


def _holds(requirement: LabelSelectorRequirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None


def _written(requirement: LabelSelectorRequirement) -> str:
    match requirement.operator:
        case "Exists":
            return requirement.key
        case "DoesNotExist":
            return f"!{requirement.key}"
        case operator:
            return f"{requirement.key} {operator.lower()} ({', '.join(requirement.values)})"
