"""Suggested policies as YAML that says for whom each rule is, as JSON, and as the difference that they make."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import yaml

from remit import safeyaml
from remit.policy.suggestion import LeftOut, Path, SuggestedPolicy, Suggestion
from remit.telemetry.logs import escape

_MOST_COMMENT: Final = 440
"""Limit of a comment in one line, in characters."""
_ONE_LINE: Final = 1 << 30
"""A width. Rules are on one line each, so that a difference shows whole rules."""


def as_json(suggestion: Suggestion) -> str:
    """One object, or a List. JSON has no comments."""
    objects = [policy.object for policy in suggestion.policies]
    document = objects[0] if len(objects) == 1 else {"apiVersion": "v1", "kind": "List", "items": objects}
    return json.dumps(document, indent=2)


def as_yaml(suggestion: Suggestion) -> str:
    """Documents for `kubectl apply -f -`."""
    header = [f"# {line}" for line in _left_out(suggestion.left_out)]
    return "\n---\n".join("\n".join([*header, *_document(policy)]) for policy in suggestion.policies)


def difference(suggestion: Suggestion, today: Mapping[str, Mapping[str, Any]]) -> str:
    """The difference from the policies of today, by name: empty, or a unified diff without a final newline."""
    found: list[str] = []
    for policy in suggestion.policies:
        before = today.get(policy.name)
        old = (
            [] if before is None else list(_document(SuggestedPolicy(policy.name, policy.namespace, dict(before), ())))
        )
        name = f"{policy.namespace}/{policy.name}"
        known = "/dev/null" if before is None else f"{name} today"
        found += difflib.unified_diff(old, list(_document(policy)), known, f"{name} suggested", lineterm="")
    return "\n".join(found)


def told(left_out: Sequence[LeftOut]) -> list[str]:
    """Each reason once, with the runs that it is about."""
    reasons: dict[str, dict[str, None]] = {}
    for each in left_out:
        reasons.setdefault(each.why, {})[each.run.name] = None
    return [escape(f"{', '.join(names)}: {' '.join(why.split())}") for why, names in sorted(reasons.items())]


def cautions(suggestion: Suggestion) -> list[str]:
    """The comments about rules that allow more than was seen, for those who do not get to read them."""
    return [
        escape(f"{policy.name}: commands.allow[{path[-1]}]: {line}")
        for policy in suggestion.policies
        for path, lines in policy.comments.items()
        if path[:2] == ("commands", "allow")
        for line in lines[1:]  # the first line names the task
    ]


def _left_out(left_out: Sequence[LeftOut]) -> list[str]:
    lines = told(left_out)
    return ["Not allowed by this:", *(f"- {line}" for line in lines)] if lines else []


def _document(policy: SuggestedPolicy) -> Iterator[str]:
    yield f"apiVersion: {policy.object['apiVersion']}"
    yield f"kind: {policy.object['kind']}"
    yield f"metadata: {_flow(policy.object['metadata'])}"
    yield "spec:"
    for name, value in policy.spec.items():
        yield from _block(name, value, (name,), policy.comments, "  ")


def _block(name: str, value: Any, path: Path, comments: Mapping[Path, Sequence[str]], indent: str) -> Iterator[str]:
    yield from _comment(comments.get(path, ()), indent)
    if isinstance(value, Mapping) and value and any(isinstance(each, list | Mapping) for each in value.values()):
        yield f"{indent}{name}:"
        for key, each in value.items():
            yield from _block(key, each, (*path, key), comments, indent + "  ")
    elif isinstance(value, list) and any(isinstance(each, Mapping) for each in value):
        yield f"{indent}{name}:"
        for number, each in enumerate(value):
            yield from _comment(comments.get((*path, number), ()), indent)
            yield f"{indent}- {_flow(each)}"
    else:
        yield f"{indent}{name}: {_flow(value)}"


def _comment(lines: Sequence[str], indent: str) -> Iterator[str]:
    for line in lines:
        text = escape(line)
        yield f"{indent}# {text if len(text) <= _MOST_COMMENT else text[:_MOST_COMMENT] + '…'}"


def _flow(value: Any) -> str:
    """The value on one line, without control characters."""
    if isinstance(value, str) and escape(value) != value:
        return json.dumps(value)
    if isinstance(value, str | int | bool | float) or value is None:
        return _scalar(value)
    ascii_only = escape(json.dumps(value, ensure_ascii=False)) != json.dumps(value, ensure_ascii=False)
    dumped: str = yaml.dump(
        value,
        Dumper=safeyaml.Dumper,
        default_flow_style=True,
        sort_keys=False,
        width=_ONE_LINE,
        allow_unicode=not ascii_only,
    )
    return dumped.rstrip("\n")


def _scalar(value: Any) -> str:
    return _flow([value])[1:-1]
