"""The policies of today, which a suggestion is put beside."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from remit.api.commandpolicy import CommandPolicy, CommandPolicySpec
from remit.errors import InvalidInput
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.hosts import Destination
from remit.policy.needs import Part
from remit.policy.request import PolicyRequest
from remit.policy.suggestion.model import DEFAULT_NAME, LeftOut, Need, SuggestedPolicy

WHERE: Final[Part] = {"backends": ["process"], "networks": ["none"]}
"""What a policy says by default."""


@dataclass(frozen=True)
class CurrentPolicies:
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
        """The spec of the policy, with its defaults; empty if a new one is made."""
        return {} if self.base is None else {**WHERE, **written(self.base)}

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

    def refusing(self, request: PolicyRequest, destinations: Collection[Destination]) -> str | None:
        """The policy that allows the request, today or once it is enforced, and refuses one of the destinations: no
        other one is asked about these then."""
        for strict in (False, True):
            decision = self.decided(request, [], strict=strict)
            if decision.allowed and decision.objection(destinations):
                return decision.policy
        return None

    def forbids(self, need: Need) -> str | None:
        """Why no policy that is added helps: a `deny` rule or a ceiling stands in the way, enforced or audited."""
        decision = self.decided(need.shown, [self.compiled(need.part)])
        return decision.objection(need.destinations) if decision.allowed else words(decision)

    def decided(self, request: PolicyRequest, added: Sequence[CompiledPolicy], *, strict: bool = True) -> Decision:
        names = {policy.name for policy in added}
        kept = [policy for policy in self.policies if policy.namespace != self.namespace or policy.name not in names]
        everything = [*kept, *added]
        if not strict:
            return decide(request, everything, self.ceilings)
        return decide(request, list(map(_enforced, everything)), list(map(_enforced, self.ceilings)))

    def verified(
        self, suggested: Sequence[SuggestedPolicy], needs: Sequence[Need]
    ) -> tuple[Sequence[SuggestedPolicy], list[LeftOut]]:
        """All of `suggested` if every run is allowed with them, today and once Audit policies are enforced; else none,
        and which runs are denied."""
        try:
            added = [self.compiled(each.spec, each.name) for each in suggested]
        except InvalidInput as error:
            why = f"what it needs is more than a policy may say: {error}; generalize, or choose fewer runs"
            return (), [LeftOut(run, why) for need in needs for run in need.runs]
        broken = [
            LeftOut(run, why or words(decision))
            for need in needs
            for request in (need.request, need.shown)
            for strict in (True, False)
            for decision in [self.decided(request, added, strict=strict)]
            for why in [decision.objection(need.destinations) if decision.allowed else ""]
            if why or not decision.allowed
            for run in need.runs
        ]
        return ((), list({each.run.name: each for each in broken}.values())) if broken else (suggested, [])


def _enforced(policy: CompiledPolicy) -> CompiledPolicy:
    return (
        policy if policy.enforced else replace(policy, spec=policy.spec.model_copy(update={"enforcement": "Enforce"}))
    )


def written(policy: CompiledPolicy) -> Part:
    """A policy's spec as a suggestion would write it: without defaults."""
    spec = policy.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return ordered(without_defaults(spec))


def without_defaults(spec: Part) -> Part:
    return {name: value for name, value in spec.items() if value != WHERE.get(name)}


def ordered(spec: Part) -> Part:
    """The spec in the order of the API's fields."""
    order = [info.alias or name for name, info in CommandPolicySpec.model_fields.items()]
    return {name: spec[name] for name in order if name in spec}


def words(decision: Decision) -> str:
    return f"{decision.reason}: {decision.message}"
