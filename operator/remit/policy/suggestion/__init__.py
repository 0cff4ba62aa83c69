"""The policies that would allow what was seen, and nothing that was not. Pure.

What a run needs, the evaluator itself says: an empty policy is asked about it, and given what its denial says that it
lacks, until it allows the run. Runs that need the same around them share a policy, as a policy allows each of its
commands with all of its variables, networks and images. What comes out is put to the evaluator once more, together with
the policies that are there: a policy that does not hold is never given.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from remit.policy.compile import CompiledPolicy
from remit.policy.deciding import Decision, decide
from remit.policy.suggestion.compose import policy_of
from remit.policy.suggestion.current import CurrentPolicies, words, written
from remit.policy.suggestion.fit import alike, need_of
from remit.policy.suggestion.groups import groups_of
from remit.policy.suggestion.model import LeftOut, Need, Options, Path, Run, SuggestedPolicy, Suggestion
from remit.policy.verdict import Reason

__all__ = ["LeftOut", "Options", "Path", "Run", "SuggestedPolicy", "Suggestion", "suggest", "written"]

_NEVER: Final = frozenset({Reason.INVALID_COMMAND, Reason.INVALID_REQUEST, Reason.WORKING_DIR_NOT_ALLOWED})
"""Denied before any policy is asked."""
_ONLY_AUDITED: Final = "; it runs today because policies only audit, and not once an enforced one is there"
_DEFAULTS: Final = Options()


def suggest(
    runs: Sequence[Run],
    namespace: str,
    policies: Sequence[CompiledPolicy],
    ceilings: Sequence[CompiledPolicy] = (),
    options: Options = _DEFAULTS,
) -> Suggestion:
    """Policies for those of `runs`, all of `namespace`, that no enforced one of `policies` allows.

    Policies in Audit count as if they were enforced where they forbid, so that what is suggested still holds once they
    are; where they allow, they do not count, as an enforced policy takes their place. Where a run connects to is said
    by the policy that allows it: what it was refused is added to that one.
    """
    current = CurrentPolicies(namespace, policies, ceilings, options.name)
    left_out: list[LeftOut] = []
    allowed: list[tuple[Run, Decision]] = []
    needs: dict[str | None, list[Need]] = defaultdict(list)
    for same in alike(runs):
        first, destinations = same[0], frozenset().union(*(run.destinations for run in same))
        decision = decide(first.request, [each for each in policies if each.enforced], ceilings)
        if decision.allowed and not decision.objection(destinations):
            allowed += [(run, decision) for run in same]
            continue
        added_to = replace(current, name=current.refusing(first.request, destinations) or options.name)
        need = words(decision) if decision.reason in _NEVER else need_of(same, destinations, added_to)
        denial = added_to.forbids(need) if isinstance(need, Need) else need
        if isinstance(need, Need) and denial is None:
            needs[added_to.name].append(need)
        else:
            audited = decide(first.request, policies, ceilings).allowed and not decision.allowed
            why = f"{first.mask(str(denial))}{_ONLY_AUDITED if audited else ''}"
            left_out += [LeftOut(run, why) for run in same]
    suggested = [
        policy for name, lacking in needs.items() for policy in _policies(lacking, replace(current, name=name), options)
    ]
    held, broken = current.verified(suggested, [need for each in needs.values() for need in each])
    return Suggestion(tuple(held), tuple(left_out + broken), tuple(allowed))


def _policies(needs: Sequence[Need], current: CurrentPolicies, options: Options) -> list[SuggestedPolicy]:
    """Without one that says what it says today."""
    groups = [needs] if options.generalize or current.base is not None else groups_of(needs, current)
    names = current.free_names()
    suggested = [policy_of(next(names), group, current, options) for group in groups if group]
    unchanged = written(current.base) if current.base else None
    return [each for each in suggested if each.spec != unchanged]
