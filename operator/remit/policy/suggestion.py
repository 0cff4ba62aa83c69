"""The policies that would allow what was seen, and nothing that was not. Pure.

What a run needs, the evaluator itself says: an empty policy is asked about it, and given what its denial says that it
lacks, until it allows the run. Runs that need the same around them share a policy, as a policy allows each of its
commands with all of its variables, networks and images. What comes out is put to the evaluator once more, together with
the policies that are there: a policy that does not hold is never given.
"""

from __future__ import annotations

import itertools
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic.alias_generators import to_camel

from remit.api import CommandPolicy, CommandPolicySpec, parse_bytes
from remit.api.base import API_VERSION
from remit.api.operations import ContainerOperation, ProcessOperation
from remit.errors import InvalidInput
from remit.policy.commandrules import MOST_VALUES, ExactRule, joined
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.evaluate import evaluate
from remit.policy.interpreters import runs_text
from remit.policy.limits import DEFAULT_TIMEOUT_SECONDS, NAMES, as_amount
from remit.policy.needs import Part, exactly, merged
from remit.policy.request import Request
from remit.policy.verdict import HELPED_BY_A_RULE, Allowance, Denial, Reason

DEFAULT_NAME: Final = "suggested"
_MOST_STEPS: Final = 256
"""More than an operation can lack: each step adds to the policy."""
_NOT_ASKED_FOR: Final = frozenset({"timeout_seconds", "retries", "output_bytes", "termination_grace_period_seconds"})
"""Limits that every task has, whether or not it says so."""
_TOLD_BY_RULE: Final = frozenset({"commands", "files", "http"})
_OWN_RULES: Final = frozenset({"commands", "files", "http", "scripts", "databases"})
"""Sections of a policy that are about one kind of operation each, and say nothing of another."""
_AT_ONCE: Final = 32
_NEVER: Final = frozenset({Reason.INVALID_COMMAND, Reason.INVALID_REQUEST, Reason.WORKING_DIR_NOT_ALLOWED})
"""Denied before any policy is asked."""
_SHOWN_RUNS: Final = 5
_ONLY_AUDITED: Final = "; it runs today because policies only audit, and not once an enforced one is there"
_WHERE: Final[Part] = {"backends": ["process"], "networks": ["none"]}
"""What a policy says by default."""
_PRODUCTS: Final = (("scripts",), ("databases", "postgres"), ("databases", "redis"))
"""Rules that allow every combination of what is in their lists."""
_REMEDY: Final = "take the value from a variable or a private file"
Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Something that ran, or wanted to."""

    name: str
    """For people, such as `task hello` or `schedule nightly`; runs of one name are counted together."""
    request: Request
    """As it was judged."""
    stdin: bool = False
    """Whether its program was given an input."""
    mask: Callable[[str], str] = lambda text: text
    """Puts `masked` in the place of what must not be told, also where a text was cut off in the middle of it."""
    masked: str = "[redacted]"
    hidden: bool = False
    """Whether `request` has that in it already, as on the audit trail."""


@dataclass(frozen=True)
class SuggestedPolicy:
    """A policy in the words of YAML, and what to say beside it."""

    name: str
    namespace: str
    spec: Part
    runs: tuple[Run, ...]
    comments: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    """By where they stand in `spec`, such as `("commands", "allow", 0)`."""

    @property
    def object(self) -> dict[str, Any]:
        metadata = {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": API_VERSION, "kind": CommandPolicy.__name__, "metadata": metadata, "spec": self.spec}


@dataclass(frozen=True)
class LeftOut:
    """A run that no suggestion allows, and why."""

    run: Run
    why: str


@dataclass(frozen=True)
class Suggestion:
    policies: tuple[SuggestedPolicy, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    allowed: tuple[tuple[Run, Decision], ...] = ()
    """What policies that are enforced allow already."""


@dataclass(frozen=True, kw_only=True)
class Options:
    name: str | None = None
    """Of the policy; one of that name is added to. Else `suggested`, or what is free of `suggested-2` …"""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Of the tasks that the policy is to select; none: all."""
    generalize: bool = False
    """One policy with fewer rules, which allow more than was seen."""
    most_values: int = MOST_VALUES
    """Of one argument, that are listed one by one."""


@dataclass(frozen=True)
class _Need:
    """What one request lacks, and how often it was made."""

    request: Request
    shown: Request
    part: Part
    runs: tuple[Run, ...]
    hides: bool
    """Whether something in its arguments is not told."""


def suggest(
    runs: Sequence[Run],
    namespace: str,
    policies: Sequence[CompiledPolicy],
    ceilings: Sequence[CompiledPolicy] = (),
    options: Options = Options(),
) -> Suggestion:
    """Policies for those of `runs`, all of `namespace`, that no enforced one of `policies` allows.

    Policies in Audit count as if they were enforced where they forbid, so that what is suggested still holds once they
    are; where they allow, they do not count, as an enforced policy takes their place.
    """
    there = _There(namespace, policies, ceilings, options.name)
    left_out: list[LeftOut] = []
    allowed: list[tuple[Run, Decision]] = []
    needs: list[_Need] = []
    for alike in _alike(runs):
        first = alike[0]
        decision = decide(first.request, [each for each in policies if each.enforced], ceilings)
        if decision.allowed:
            allowed += [(run, decision) for run in alike]
            continue
        need = _words(decision) if decision.reason in _NEVER else _need(alike, there)
        denial = there.forbids(need) if isinstance(need, _Need) else need
        if isinstance(need, _Need) and denial is None:
            needs.append(need)
        else:
            audited = decide(first.request, policies, ceilings).allowed
            why = f"{first.mask(str(denial))}{_ONLY_AUDITED if audited else ''}"
            left_out += [LeftOut(run, why) for run in alike]
    groups = [needs] if options.generalize or there.base is not None else _groups(needs, there)
    names = there.free_names()
    suggested = [_policy(next(names), group, there, options) for group in groups if group]
    unchanged = written(there.base) if there.base else None
    held, broken = there.verified([each for each in suggested if each.spec != unchanged], needs)
    return Suggestion(tuple(held), tuple(left_out + broken), tuple(allowed))


@dataclass(frozen=True)
class _There:
    """The policies of today."""

    namespace: str
    policies: Sequence[CompiledPolicy]
    ceilings: Sequence[CompiledPolicy]
    name: str | None

    @property
    def base(self) -> CompiledPolicy | None:
        """The policy that is added to."""
        own = (policy for policy in self.policies if policy.namespace == self.namespace)
        return next((policy for policy in own if policy.name == self.name), None)

    @property
    def base_spec(self) -> Part:
        """What it says, with its defaults; nothing where a new one is made."""
        return {} if self.base is None else {**_WHERE, **written(self.base)}

    def compiled(self, spec: Part, name: str = "") -> CompiledPolicy:
        """Raises `InvalidInput`."""
        metadata = {"name": name or next(self.free_names()), "namespace": self.namespace}
        return compile_policy(CommandPolicy.parse({"metadata": metadata, "spec": spec}))

    def free_names(self) -> Iterator[str]:
        """The one that is asked for, and then those that no policy has: a policy is never replaced by accident."""
        taken = {policy.name for policy in self.policies if policy.namespace == self.namespace}
        if self.name is not None:
            yield self.name
            taken.add(self.name)
        stem = self.name or DEFAULT_NAME
        candidates = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
        yield from (name for name in candidates if name not in taken)

    def forbids(self, need: _Need) -> str | None:
        """Why no policy that is added helps: a `deny` rule or a ceiling stands in the way, enforced or audited."""
        decision = self.decided(need.shown, [self.compiled(need.part)])
        return None if decision.allowed else _words(decision)

    def decided(self, request: Request, added: Sequence[CompiledPolicy], *, strict: bool = True) -> Decision:
        names = {policy.name for policy in added}
        kept = [policy for policy in self.policies if policy.namespace != self.namespace or policy.name not in names]
        everything = [*kept, *added]
        if not strict:
            return decide(request, everything, self.ceilings)
        return decide(request, list(map(_enforced, everything)), list(map(_enforced, self.ceilings)))

    def verified(
        self, suggested: Sequence[SuggestedPolicy], needs: Sequence[_Need]
    ) -> tuple[Sequence[SuggestedPolicy], list[LeftOut]]:
        """All of `suggested` if every run is allowed with them, today and once Audit policies are enforced; else none,
        and which runs are denied."""
        try:
            added = [self.compiled(each.spec, each.name) for each in suggested]
        except InvalidInput as error:
            why = f"what it needs is more than a policy may say: {error}; generalize, or choose fewer runs"
            return (), [LeftOut(run, why) for need in needs for run in need.runs]
        broken = [
            LeftOut(run, _words(decision))
            for need in needs
            for request in (need.request, need.shown)
            for strict in (True, False)
            for decision in [self.decided(request, added, strict=strict)]
            if not decision.allowed
            for run in need.runs
        ]
        return ((), list({each.run.name: each for each in broken}.values())) if broken else (suggested, [])


def _enforced(policy: CompiledPolicy) -> CompiledPolicy:
    return (
        policy if policy.enforced else replace(policy, spec=policy.spec.model_copy(update={"enforcement": "Enforce"}))
    )


def _alike(runs: Sequence[Run]) -> list[list[Run]]:
    """Those with one request together, in an order that does not depend on that of `runs`."""
    found: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        labels = dict(sorted(run.request.labels.items()))
        environment, files = sorted(run.request.environment), sorted(run.request.private_files)
        request = replace(run.request, labels=labels, environment=frozenset(), private_files=frozenset())
        found[repr((request, environment, files, run.stdin, run.hidden))].append(run)
    return [sorted(found[key], key=lambda run: run.name) for key in sorted(found)]


def _need(alike: Sequence[Run], there: _There) -> _Need | str:
    """What the runs lack, or why that cannot be said."""
    run = alike[0]
    if there.base is not None and not there.base.ready:
        return f"policy {there.base.key} is not ready, so nothing is added to it: {there.base.problems[0]}"
    shown = _shown(run)
    hides = run.hidden or (shown.command, shown.subject) != (run.request.command, run.request.subject)
    argv = _argv(shown)
    masks = hides and any(run.masked in argument for argument in argv)
    if masks and (run.masked in argv[0] or runs_text(argv, stdin=run.stdin)):
        return f"a part of its command is a secret, so that no rule can say what ran; {_REMEDY}"
    fitted = _fitted(shown, there)
    if isinstance(fitted, Denial):
        return f"{fitted.reason}: {fitted.message}"
    part = _with_masks(fitted, argv, run) if masks else fitted
    if part is None:
        return f"its command is too long for a rule that leaves a secret out; {_REMEDY}"
    told = json.dumps({**part, "commands": {}}, ensure_ascii=False)
    if run.mask(told) != told or (run.masked in told and not masks):
        return f"its rule would have to name a secret; {_REMEDY}"
    return _Need(run.request, shown, {**_WHERE, **part}, tuple(alike), masks)


def _shown(run: Run) -> Request:
    """The request without what must not be told in its arguments."""
    request, command, subject = run.request, run.request.command, run.request.subject
    if command is not None:
        request = replace(request, command=replace(command, argv=tuple(map(run.mask, command.argv))))
    if isinstance(subject, ContainerOperation | ProcessOperation) and subject.argv:
        masked = subject.model_copy(update={"argv": [run.mask(argument) for argument in subject.argv]})
        request = replace(request, subject=masked)
    return request


def _argv(request: Request) -> tuple[str, ...]:
    """What a rule for commands is about."""
    if isinstance(request.subject, ContainerOperation):
        return tuple(request.subject.argv or ())
    return request.command.argv if request.command and request.operation in {"command", "process"} else ()


def _fitted(request: Request, there: _There) -> Part | Denial:
    """The least that the policy has to say; of one that is there, with all that it says."""
    spec = there.base_spec
    for _ in range(_MOST_STEPS):
        try:
            outcome = evaluate(there.compiled(spec), request)
        except InvalidInput as error:
            return Denial(Reason.NOT_ALLOWED, f"no rule can say exactly that: {error}")
        if isinstance(outcome, Allowance):
            return spec
        if outcome.reason not in HELPED_BY_A_RULE:
            return outcome
        if outcome.needs is None or (grown := merged(spec, outcome.needs)) == spec:
            return replace(outcome, message=f"no rule can say exactly that; {outcome.message}")
        spec = grown
    return Denial(Reason.NOT_ALLOWED, "it needs more than can be listed")


def _with_masks(part: Part, argv: Sequence[str], run: Run) -> Part | None:
    """Any text in the place of what is not told. None where the rule would not be about one argument then."""
    hidden = exactly(run.masked)
    rules = part["commands"]["allow"]
    wanted = [exactly(argument) for argument in argv[1:]]
    known = [not run.hidden and before == after for before, after in zip(_argv(run.request), argv, strict=True)][1:]
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


def _groups(needs: Sequence[_Need], there: _There) -> list[list[_Need]]:
    """Those that need the same around their operations, and whose rules together allow no more than each of them; those
    that need least come first."""
    found: dict[str, list[list[_Need]]] = defaultdict(list)
    for need in needs:
        around = {name: value for name, value in need.part.items() if name not in _OWN_RULES}
        alike = found[json.dumps(around, sort_keys=True)]
        if group := next((each for each in alike if _joins_exactly(_products(each), need.part)), None):
            group.append(need)
        else:
            alike.append([need])
    groups = [group for key in sorted(found, key=lambda key: (len(key), key)) for group in found[key]]
    for at, group in enumerate(groups):  # what another one allows anyway needs none of its own
        larger = [(other, there.compiled(each)) for other in groups[at + 1 :] for each in _specs(other)]
        for need in list(group):
            if other := next((o for o, policy in larger if isinstance(evaluate(policy, need.shown), Allowance)), None):
                group.remove(need)
                other.append(need)
    return groups


def _specs(group: Sequence[_Need]) -> Iterator[Part]:
    """What a group allows, in parts of which none is larger than a policy may be."""
    for start in range(0, len(group), _AT_ONCE):
        yield _union(need.part for need in group[start : start + _AT_ONCE])


def _products(group: Sequence[_Need]) -> Part:
    return _union({name: need.part[name] for name in ("scripts", "databases") if name in need.part} for need in group)


def _union(parts: Iterable[Part]) -> Part:
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


def _policy(name: str, group: Sequence[_Need], there: _There, options: Options) -> SuggestedPolicy:
    base = there.base_spec
    spec = base or _new(group, there, options)
    comments: dict[Path, tuple[str, ...]] = {}
    for need in group:
        spec = merged(spec, {**need.part, "commands": {}} if "commands" in need.part else need.part)
    before = base.get("commands", {}).get("allow", [])
    rules, said = _command_rules(group, before, options)
    if rules or "commands" in spec:
        spec["commands"] = {**base.get("commands", {}), "allow": [*before, *rules]}
        comments |= {("commands", "allow", len(before) + at): lines for at, lines in enumerate(said)}
    for kind, lists in (("files", ("operations", "paths")), ("http", ("methods", "paths", "ports", "hosts"))):
        if kind in spec:
            kept = len(base.get(kind, {}).get("allow", []))
            every = spec[kind]["allow"]
            spec[kind]["allow"] = [*every[:kept], *_joined_rules(every[kept:], lists)]
            for at, rule in enumerate(spec[kind]["allow"][kept:], start=kept):
                about = [need for need in group if _speaks_of(rule, need.part.get(kind, {}).get("allow", []), lists)]
                comments[kind, "allow", at] = (_who([run for need in about for run in need.runs]),)
    spec = _without_defaults(spec)
    comments |= _comments(spec, group, base)
    runs = tuple(run for need in group for run in need.runs)
    return SuggestedPolicy(name, there.namespace, _ordered(spec), runs, comments)


def _new(group: Sequence[_Need], there: _There, options: Options) -> Part:
    """What a new policy says besides rules: whom it selects, how much it gives, and the walls that policies of today
    want around the same tasks."""
    spec: Part = {"selector": {"matchLabels": dict(sorted(options.labels.items()))}} if options.labels else {}
    requests = [need.request for need in group]
    if limits := _limits(requests):
        spec["limits"] = limits
    layers = {
        layer
        for policy in there.policies
        if policy.enforced and any(policy.selects(each.namespace, each.labels) for each in requests)
        for layer in policy.spec.sandbox.require
    }
    return {**spec, "sandbox": {"require": sorted(layers)}} if layers else spec


def _limits(requests: Sequence[Request]) -> Part:
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


def _most_disk(request: Request) -> int | None:
    """For itself or for an empty folder; None where it asks for none for itself."""
    folders = [volume.empty_dir.size_limit for volume in request.volumes if volume.empty_dir]
    own = request.limits.disk
    return None if own is None else max(own, *(parse_bytes(size) for size in folders if size is not None), 0)


def _command_rules(
    group: Sequence[_Need], before: Sequence[Part], options: Options
) -> tuple[list[Part], list[tuple[str, ...]]]:
    """The rules for commands, and what to say of each."""
    exact: dict[str, ExactRule] = {}
    for number, need in enumerate(group):
        argv = _argv(need.shown)
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


def _text_run_by(need: _Need) -> str | None:
    argv = _argv(need.shown)
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


def _comments(spec: Part, group: Sequence[_Need], base: Part) -> dict[Path, tuple[str, ...]]:
    """What to say of all the rest: who needs it."""
    found: dict[Path, tuple[str, ...]] = {}
    before = {**_WHERE, **base}
    for section in spec:
        about = [run for need in group if need.part.get(section) != before.get(section) for run in need.runs]
        if about and section not in _TOLD_BY_RULE:
            found[(section,)] = (_who(about),)
    if "limits" in spec and spec["limits"] != base.get("limits"):
        found[("limits",)] = ("the most that was asked for",)
    if "sandbox" in spec and spec["sandbox"] != base.get("sandbox"):
        found[("sandbox",)] = ("as today's policies for the same tasks require",)
    if "restricted" in spec.get("networks", []) and not spec.get("egress", {}).get("allow"):
        more = "no task says where it connects to: list that in egress.allow, or it reaches nothing"
        found[("networks",)] = (*found.get(("networks",), ()), more)
    if "host" in spec.get("networks", []) and "networks" not in base:
        more = "host is all of the operator's network"
        found[("networks",)] = (*found.get(("networks",), ()), more)
    return found


def written(policy: CompiledPolicy) -> Part:
    """What a policy says, as a suggestion would write it: without what is so by default."""
    spec = policy.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return _ordered(_without_defaults(spec))


def _without_defaults(spec: Part) -> Part:
    return {name: value for name, value in spec.items() if value != _WHERE.get(name)}


def _ordered(spec: Part) -> Part:
    """In the order of the API's own fields."""
    order = [info.alias or name for name, info in CommandPolicySpec.model_fields.items()]
    return {name: spec[name] for name in order if name in spec}


def _who(runs: Collection[Run]) -> str:
    """`3 runs: schedule nightly (2), task hello`."""
    counts: dict[str, int] = defaultdict(int)
    for run in runs:
        counts[run.name] += 1
    named = [name if count == 1 else f"{name} ({count})" for name, count in sorted(counts.items())]
    more = f" and {len(named) - _SHOWN_RUNS} more" if len(named) > _SHOWN_RUNS else ""
    return f"{len(runs)} run{'' if len(runs) == 1 else 's'}: {', '.join(named[:_SHOWN_RUNS])}{more}"


def _words(decision: Decision) -> str:
    return f"{decision.reason}: {decision.message}"
