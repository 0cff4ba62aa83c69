"""Answers, while an operation runs, what its decision covers, when more shows than was written down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from remit.api.operations import Subject
from remit.policy.compile import CompiledPolicy
from remit.policy.deciding import Decision, decide
from remit.policy.request import PolicyRequest


@dataclass(frozen=True)
class Grant:
    """Asks the policies that allowed `request`, as they were then, about the same request with another subject.

    A redirect leads to another address, a path ends somewhere else than it seems to: what was allowed is the first
    one only.
    """

    request: PolicyRequest
    policies: Sequence[CompiledPolicy]
    ceilings: Sequence[CompiledPolicy]

    def binding(self) -> Sequence[CompiledPolicy]:
        """The policies that have a say in it."""
        return [
            policy
            for policy in (*self.policies, *self.ceilings)
            if policy.ready and policy.enforced and policy.selects(self.request.namespace, self.request.labels)
        ]

    def ask(self, subject: Subject, *, foreign: bool = False) -> Decision:
        """`foreign`: see `PolicyRequest.foreign`."""
        return decide(replace(self.request, subject=subject, foreign=foreign), self.policies, self.ceilings)
