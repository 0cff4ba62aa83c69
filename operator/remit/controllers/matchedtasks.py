"""How many tasks each policy selects, kept up to date by the changes of both instead of by counting again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from remit.kube.client import Object
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.policy.compile import CompiledPolicy


@dataclass
class MatchedTasks:
    """`on_changed` is called with the uid of a policy whose count has changed since it was asked for first."""

    tasks: Reflector
    ceiling_namespace: str
    """Its policies select tasks of all namespaces; others those of their own."""
    on_changed: Callable[[str], None]
    _policies: dict[str, dict[str, CompiledPolicy]] = field(default_factory=dict)
    """Policies by namespace and uid."""
    _counts: dict[str, int] = field(default_factory=dict)
    """Counts of matched tasks by the uid of the policy, for policies that were asked for."""

    def __post_init__(self) -> None:
        self.tasks.add_handler(
            ResourceEventHandler(
                on_add=lambda task: self._changed(None, task),
                on_update=self._changed,
                on_delete=lambda task: self._changed(task, None),
            )
        )

    def count(self, policy: CompiledPolicy) -> int:
        """How many tasks `policy` selects, which was put. The first time, goes through the tasks of its namespace, or
        all for a ceiling."""
        if policy.uid not in self._counts:
            namespace = None if policy.namespace == self.ceiling_namespace else policy.namespace
            tasks = self.tasks.objects.list(namespace)
            self._counts[policy.uid] = sum(_selects(policy, task) for task in tasks)
        return self._counts[policy.uid]

    def put(self, policy: CompiledPolicy) -> None:
        """A policy was created or changed. Counts nothing yet, because decisions wait for this."""
        self._policies.setdefault(policy.namespace, {})[policy.uid] = policy
        self._counts.pop(policy.uid, None)

    def remove(self, policy: CompiledPolicy) -> None:
        """A policy was deleted."""
        policies = self._policies.get(policy.namespace, {})
        policies.pop(policy.uid, None)
        if not policies:
            self._policies.pop(policy.namespace, None)
        self._counts.pop(policy.uid, None)

    def _changed(self, before: Object | None, after: Object | None) -> None:
        task = after or before
        if task is None or (before is not None and after is not None and _labels(before) == _labels(after)):
            return
        for namespace in {task["metadata"]["namespace"], self.ceiling_namespace}:
            for uid, policy in self._policies.get(namespace, {}).items():
                if uid not in self._counts:
                    continue
                gained = after is not None and _selects(policy, after)
                lost = before is not None and _selects(policy, before)
                if gained != lost:
                    self._counts[uid] += gained - lost
                    self.on_changed(uid)


def _selects(policy: CompiledPolicy, task: Object) -> bool:
    return policy.selects(task["metadata"]["namespace"], _labels(task))


def _labels(task: Object) -> dict[str, str]:
    return task["metadata"].get("labels") or {}
