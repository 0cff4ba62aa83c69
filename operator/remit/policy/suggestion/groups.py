"""Groups runs that share a policy, which allows each of its commands with all its variables, networks and images."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from remit.policy.compile import CompiledPolicy
from remit.policy.egress import objection
from remit.policy.evaluate import evaluate
from remit.policy.needs import Part, merged
from remit.policy.suggestion.current import CurrentPolicies
from remit.policy.suggestion.model import Need
from remit.policy.verdict import Allowance

_OWN_RULES: Final = frozenset({"commands", "files", "http", "scripts", "databases"})
"""Sections of a policy that are about one kind of operation each, and say nothing of another."""
_AT_ONCE: Final = 32
_PRODUCTS: Final = (("scripts",), ("databases", "postgres"), ("databases", "redis"))
"""Rules that allow every combination of what is in their lists."""


def groups_of(needs: Sequence[Need], current: CurrentPolicies) -> list[list[Need]]:
    """Group the runs that need the same around their operations, and whose rules together allow no more than each of
    them; those that need least come first."""
    found: dict[str, list[list[Need]]] = defaultdict(list)
    for need in needs:
        around = {name: value for name, value in need.part.items() if name not in _OWN_RULES}
        alike = found[json.dumps(around, sort_keys=True)]
        if group := next((each for each in alike if _joins_exactly(_products(each), need.part)), None):
            group.append(need)
        else:
            alike.append([need])
    groups = [group for key in sorted(found, key=lambda key: (len(key), key)) for group in found[key]]
    for at, group in enumerate(groups):  # a need that another group's rule covers gets no rule of its own
        larger = [(other, current.compiled(each)) for other in groups[at + 1 :] for each in _specs(other)]
        for need in list(group):
            if other := next((other for other, policy in larger if _allows(policy, need)), None):
                group.remove(need)
                other.append(need)
    return groups


def _allows(policy: CompiledPolicy, need: Need) -> bool:
    reached = not any(objection(destination, [policy.egress]) for destination in need.destinations)
    return reached and isinstance(evaluate(policy, need.shown), Allowance)


def _specs(group: Sequence[Need]) -> Iterator[Part]:
    """The specs that allow a group, none of which is larger than a policy may be."""
    for start in range(0, len(group), _AT_ONCE):
        yield union(need.part for need in group[start : start + _AT_ONCE])


def _products(group: Sequence[Need]) -> Part:
    return union({name: need.part[name] for name in ("scripts", "databases") if name in need.part} for need in group)


def union(parts: Iterable[Part]) -> Part:
    spec: Part = {}
    for part in parts:
        spec = merged(spec, part)
    return spec


def _joins_exactly(one: Part, other: Part) -> bool:
    """Whether a policy that says both allows no combination that neither allows."""
    for path in _PRODUCTS:
        mine, theirs = one, other
        for name in path:
            mine, theirs = mine.get(name) or {}, theirs.get(name) or {}
        differing = [name for name in {*mine, *theirs} if set(mine.get(name, ())) != set(theirs.get(name, ()))]
        if mine and theirs and len(differing) > 1:
            return False
    return True
