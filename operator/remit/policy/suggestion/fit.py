"""Finds what a policy has to allow for one run, and no more."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Final

from remit.api.operations import ContainerOperation, ProcessOperation
from remit.errors import InvalidInput
from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.egress import objection
from remit.policy.evaluate import evaluate
from remit.policy.hosts import Destination
from remit.policy.interpreters import runs_text
from remit.policy.needs import Part, exactly, merged
from remit.policy.request import PolicyRequest
from remit.policy.suggestion.current import WHERE, CurrentPolicies
from remit.policy.suggestion.model import Need, Run
from remit.policy.verdict import HELPED_BY_A_RULE, Allowance, Denial, Reason

_MOST_STEPS: Final = 256
"""More than an operation can lack: each step adds to the policy."""
_REMEDY: Final = "take the value from a variable or a private file"


def alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Runs grouped by equal requests, in an order that does not depend on the order of `runs`."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        labels = dict(sorted(run.request.labels.items()))
        environment, files = sorted(run.request.environment), sorted(run.request.private_files)
        request = replace(run.request, labels=labels, environment=frozenset(), private_files=frozenset())
        found[repr((request, environment, files, run.stdin, run.hidden))].append(run)
    return [sorted(found[key], key=lambda run: run.name) for key in sorted(found)]


def need_of(alike: Sequence[Run], destinations: frozenset[Destination], current: CurrentPolicies) -> Need | str:
    """The need of the runs, or why that cannot be told."""
    run = alike[0]
    if current.base is not None and not current.base.ready:
        return f"policy {current.base.key} is not ready, so nothing is added to it: {current.base.problems[0]}"
    shown = _shown(run)
    hides = run.hidden or (shown.command, shown.subject) != (run.request.command, run.request.subject)
    argv = argv_of(shown)
    masks = hides and any(run.masked in argument for argument in argv)
    if masks and (run.masked in argv[0] or runs_text(argv, stdin=run.stdin)):
        return f"a part of its command is a secret, so that no rule can say what ran; {_REMEDY}"
    fitted = _fitted(shown, destinations, current)
    if isinstance(fitted, Denial):
        return f"{fitted.reason}: {fitted.message}"
    part = _with_masks(fitted, argv, run) if masks else fitted
    if part is None:
        return f"its command is too long for a rule that leaves a secret out; {_REMEDY}"
    told = json.dumps({**part, "commands": {}}, ensure_ascii=False)
    if run.mask(told) != told or (run.masked in told and not masks):
        return f"its rule would have to name a secret; {_REMEDY}"
    return Need(run.request, shown, {**WHERE, **part}, tuple(alike), destinations, masks)


def _shown(run: Run) -> PolicyRequest:
    """The request without what must not be told in its arguments."""
    request, command, subject = run.request, run.request.command, run.request.subject
    if command is not None:
        request = replace(request, command=replace(command, argv=tuple(map(run.mask, command.argv))))
    if isinstance(subject, ContainerOperation | ProcessOperation) and subject.argv:
        masked = subject.model_copy(update={"argv": [run.mask(argument) for argument in subject.argv]})
        request = replace(request, subject=masked)
    return request


def argv_of(request: PolicyRequest) -> tuple[str, ...]:
    """The arguments that a rule for commands is about."""
    if isinstance(request.subject, ContainerOperation):
        return tuple(request.subject.argv or ())
    return request.command.argv if request.command and request.operation in {"command", "process"} else ()


def _fitted(request: PolicyRequest, destinations: Collection[Destination], current: CurrentPolicies) -> Part | Denial:
    """The least that the policy has to say; of one that is current, with all that it says."""
    spec = current.base_spec
    for _ in range(_MOST_STEPS):
        try:
            policy = current.compiled(spec)
            outcome = evaluate(policy, request)
        except InvalidInput as error:
            return Denial(Reason.NOT_ALLOWED, f"no rule can say exactly that: {error}")
        denial = _unreachable(policy, destinations) if isinstance(outcome, Allowance) else outcome
        if denial is None:
            return spec
        if denial.reason not in HELPED_BY_A_RULE:
            return denial
        if denial.needs is None or (grown := merged(spec, denial.needs)) == spec:
            return replace(denial, message=f"no rule can say exactly that; {denial.message}")
        spec = grown
    return Denial(Reason.NOT_ALLOWED, "it needs more than can be listed")


def _unreachable(policy: CompiledPolicy, destinations: Collection[Destination]) -> Denial | None:
    """The denial of the first destination that the policy refuses."""
    for destination in sorted(destinations, key=str):
        if why := objection(destination, [policy.egress]):
            return Denial(Reason.NOT_ALLOWED, why, policy.key, "egress.allow", needs.egress(destination))
    return None


def _with_masks(part: Part, argv: Sequence[str], run: Run) -> Part | None:
    """Any text in the place of what is not told. None where the rule would not be about one argument then."""
    hidden = exactly(run.masked)
    rules = part["commands"]["allow"]
    wanted = [exactly(argument) for argument in argv[1:]]
    known = [not run.hidden and before == after for before, after in zip(argv_of(run.request), argv, strict=True)][1:]
    masked = [each if as_is else each.replace(hidden, ".+") for each, as_is in zip(wanted, known, strict=True)]
    changed: list[Part] = []
    for rule in rules:
        if rule.get("executable") == argv[0] and rule.get("args") == wanted:
            changed.append({**rule, "args": masked})
        elif "pattern" in rule and hidden in rule["pattern"]:
            return None
        else:
            changed.append(rule)
    return {**part, "commands": {**part["commands"], "allow": changed}}
