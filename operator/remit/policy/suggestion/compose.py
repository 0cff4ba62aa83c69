"""A policy from what its runs need: rules that are joined, limits, and what to say beside each."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pydantic.alias_generators import to_camel

from remit.api.quantity import parse_bytes
from remit.policy.commandrules import ExactRule, joined
from remit.policy.interpreters import runs_text
from remit.policy.limits import DEFAULT_TIMEOUT_SECONDS, NAMES, as_amount
from remit.policy.needs import Part, merged
from remit.policy.request import PolicyRequest
from remit.policy.suggestion.current import WHERE, CurrentPolicies, ordered, without_defaults
from remit.policy.suggestion.fit import argv_of
from remit.policy.suggestion.model import Need, Options, Path, Run, SuggestedPolicy

_NOT_ASKED_FOR: Final = frozenset({"timeout_seconds", "retries", "output_bytes", "termination_grace_period_seconds"})
"""Limits that every task has, whether or not it says so."""
_TOLD_BY_RULE: Final = frozenset({"commands", "egress", "files", "http"})
_NO_PUBLIC_ADDRESS: Final = "where a host leads to an address that is not public, list that in addresses by hand"
_LISTS: Final[Mapping[str, tuple[str, ...]]] = {
    "files": ("operations", "paths"),
    "http": ("methods", "paths", "ports", "hosts"),
    "egress": ("ports", "hosts"),
}
"""Fields of rules that are lists: two rules that differ in one such list alone become one rule."""
_SHOWN_RUNS: Final = 5


def policy_of(name: str, group: Sequence[Need], current: CurrentPolicies, options: Options) -> SuggestedPolicy:
    base = current.base_spec
    spec = base or _new(group, current, options)
    comments: dict[Path, tuple[str, ...]] = {}
    for need in group:
        spec = merged(spec, {**need.part, "commands": {}} if "commands" in need.part else need.part)
    before = base.get("commands", {}).get("allow", [])
    rules, said = _command_rules(group, before, options)
    if rules or "commands" in spec:
        spec["commands"] = {**base.get("commands", {}), "allow": [*before, *rules]}
        comments |= {("commands", "allow", len(before) + at): lines for at, lines in enumerate(said)}
    for kind, lists in _LISTS.items():
        if kind in spec:
            kept = len(base.get(kind, {}).get("allow", []))
            every = spec[kind]["allow"]
            spec[kind]["allow"] = [*every[:kept], *_joined_rules(every[kept:], lists)]
            for at, rule in enumerate(spec[kind]["allow"][kept:], start=kept):
                about = [need for need in group if _speaks_of(rule, need.part.get(kind, {}).get("allow", []), lists)]
                comments[kind, "allow", at] = (_who([run for need in about for run in need.runs]),)
    spec = without_defaults(spec)
    comments |= _comments(spec, group, base)
    runs = tuple(run for need in group for run in need.runs)
    return SuggestedPolicy(name, current.namespace, ordered(spec), runs, comments)


def _new(group: Sequence[Need], current: CurrentPolicies, options: Options) -> Part:
    """The parts of a new policy besides its rules: whom it selects, how much it gives, and the walls that policies of
    today want around the same tasks."""
    spec: Part = {"selector": {"matchLabels": dict(sorted(options.labels.items()))}} if options.labels else {}
    requests = [need.request for need in group]
    if limits := _limits(requests):
        spec["limits"] = limits
    layers = {
        layer
        for policy in current.policies
        if policy.enforced and any(policy.selects(each.namespace, each.labels) for each in requests)
        for layer in policy.spec.sandbox.require
    }
    return {**spec, "sandbox": {"require": sorted(layers)}} if layers else spec


def _limits(requests: Sequence[PolicyRequest]) -> Part:
    """The most that was asked for of what every run asks for: a maximum is also what a task gets that asks for none."""
    found: Part = {}
    for name in NAMES:
        asked = [_most_disk(each) if name == "disk" else getattr(each.limits, name) for each in requests]
        if name == "timeout_seconds":
            asked = [DEFAULT_TIMEOUT_SECONDS if each is None else each for each in asked]
        elif name == "retries":
            asked = [each or 0 for each in asked]
        elif name in _NOT_ASKED_FOR:
            continue
        known = [each for each in asked if each is not None]
        if len(known) == len(asked) and (most := max(known)):
            found[to_camel(name)] = {"max": as_amount(name, most)}
    return found


def _most_disk(request: PolicyRequest) -> int | None:
    """The largest disk that it asks for, for itself or for an emptyDir; None if it asks for none for itself."""
    folders = [volume.empty_dir.size_limit for volume in request.volumes if volume.empty_dir]
    own = request.limits.disk
    return None if own is None else max(own, *(parse_bytes(size) for size in folders if size is not None), 0)


def _command_rules(
    group: Sequence[Need], before: Sequence[Part], options: Options
) -> tuple[list[Part], list[tuple[str, ...]]]:
    """The rules for commands, and what to say of each."""
    exact: dict[str, ExactRule] = {}
    for number, need in enumerate(group):
        argv = argv_of(need.shown)
        for rule in need.part.get("commands", {}).get("allow", []):
            if rule in before:
                continue
            key = json.dumps(rule, sort_keys=True)
            runs = exact[key].runs if key in exact else frozenset()
            fixed = need.hides or bool(argv and runs_text(argv))
            exact[key] = ExactRule(rule, argv, runs | {number}, fixed)
    rules, said = [], []
    for fitted in joined(list(exact.values()), generalize=options.generalize, most_values=options.most_values):
        about = [group[number] for number in sorted(fitted.runs)]
        lines = [_who([run for need in about for run in need.runs])]
        lines += [f"generalized: {note}" for note in fitted.notes]
        lines += dict.fromkeys(f"warning: {why}" for need in about if (why := _text_run_by(need)))
        if any(need.hides for need in about):
            lines.append("an argument holds a secret, which is not written here: .+ allows any text in its place")
        rules.append(dict(fitted.rule))
        said.append(tuple(lines))
    return rules, said


def _text_run_by(need: Need) -> str | None:
    argv = argv_of(need.shown)
    return runs_text(argv, stdin=any(run.stdin for run in need.runs)) if argv else None


def _joined_rules(rules: Sequence[Part], lists: Sequence[str]) -> list[Part]:
    """Rules that differ in one list as one rule with the entries of both: it allows the same."""
    found = [dict(rule) for rule in rules]
    while True:
        before = len(found)
        for name in lists:
            alike: dict[str, Part] = {}
            for rule in found:
                key = json.dumps({**rule, name: None}, sort_keys=True)
                seen = alike.setdefault(key, {**rule, name: []})
                seen[name] = sorted({*seen[name], *rule[name]})
            found = list(alike.values())
        if len(found) == before:
            return sorted(found, key=lambda rule: json.dumps(rule, sort_keys=True))


def _speaks_of(rule: Part, parts: Sequence[Part], lists: Sequence[str]) -> bool:
    return any(all(set(part.get(name, [])) <= set(rule.get(name, [])) for name in lists) for part in parts)


def _comments(spec: Part, group: Sequence[Need], base: Part) -> dict[Path, tuple[str, ...]]:
    """The comments on all the rest: who needs it."""
    found: dict[Path, tuple[str, ...]] = {}
    before = {**WHERE, **base}
    for section in spec:
        about = [run for need in group if need.part.get(section) != before.get(section) for run in need.runs]
        if about and section not in _TOLD_BY_RULE:
            found[(section,)] = (_who(about),)
    if "limits" in spec and spec["limits"] != base.get("limits"):
        found[("limits",)] = ("the most that was asked for",)
    if spec.get("egress") != base.get("egress"):
        found[("egress",)] = (_NO_PUBLIC_ADDRESS,)
    if "sandbox" in spec and spec["sandbox"] != base.get("sandbox"):
        found[("sandbox",)] = ("as today's policies for the same tasks require",)
    if "restricted" in spec.get("networks", []) and not spec.get("egress", {}).get("allow"):
        more = "no task says where it connects to: list that in egress.allow, or it reaches nothing"
        found[("networks",)] = (*found.get(("networks",), ()), more)
    if "host" in spec.get("networks", []) and "networks" not in base:
        more = "host is all of the operator's network"
        found[("networks",)] = (*found.get(("networks",), ()), more)
    return found


def _who(runs: Collection[Run]) -> str:
    """`3 runs: schedule nightly (2), task hello`."""
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.name] += 1
    named = [name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items())]
    more = f" and {len(named) - _SHOWN_RUNS} more" if len(named) > _SHOWN_RUNS else ""
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(named[:_SHOWN_RUNS])}{more}"
