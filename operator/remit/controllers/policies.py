"""CommandPolicies: compiled once for each generation, judged with, and told in status how they fare."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from remit.api import CommandPolicy, CommandPolicyStatus, Condition
from remit.api.commandpolicy import DenialStatus
from remit.api.executiontaskstatus import PolicyStatus
from remit.errors import ApiError, InvalidInput
from remit.execution.admission import PolicySet
from remit.kube.cache import Cache
from remit.kube.client import POLICIES, TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.status import Outdated, StatusWriter
from remit.policy import CompiledPolicy, Problem, compile_policy
from remit.telemetry import Metrics

log = structlog.get_logger(__name__)

STATUS_EVERY = 5.0
"""Seconds between looks at what status says. Decisions are counted in memory and written together."""


@dataclass
class _Counted:
    allowed: int = 0
    denied: int = 0
    last: DenialStatus | None = None


@dataclass
class Policies:
    """The policies of all namespaces, and what they said."""

    kube: Kube
    cache: Cache
    metrics: Metrics
    events: Recorder
    operator_namespace: str
    namespaces: tuple[str, ...] = ()
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    _compiled: dict[tuple[str, int], CompiledPolicy] = field(default_factory=dict)
    _current: PolicySet | None = None
    _counted: dict[str, _Counted] = field(default_factory=lambda: defaultdict(_Counted))
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _writer: StatusWriter = field(init=False)

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.cache, self.metrics, POLICIES, "CommandPolicy")

    def changed(self) -> None:
        """A policy came, changed or went."""
        self._current = None
        self._changed.set()

    def current(self) -> PolicySet:
        """As the watch knows them."""
        if self._current is None:
            self._current = self._set_of(self.cache.all(POLICIES.plural))
        return self._current

    async def fresh(self) -> PolicySet:
        """As the server knows them at this moment."""
        known = self.cache.keys(POLICIES.plural)
        if self.cache.replace(POLICIES.plural, await self.list_all(), known):
            self.changed()
        return self.current()

    async def list_all(self) -> list[Object]:
        """All that this operator goes by: those of the namespaces it serves, and the ceilings."""
        if not self.namespaces:
            return await self.kube.list(POLICIES)
        namespaces = sorted({*self.namespaces, self.operator_namespace})
        return [obj for namespace in namespaces for obj in await self.kube.list(POLICIES, namespace)]

    def count(self, namespace: str, task: str, decided: PolicyStatus, why: str = "") -> None:
        """A decision about a task, for the status of the policy that made it."""
        if not decided.name:
            return
        counted = self._counted[decided.name if "/" in decided.name else f"{namespace}/{decided.name}"]
        if decided.decision == "Allowed":
            counted.allowed += 1
        else:
            counted.denied += 1
            counted.last = DenialStatus(task=task, reason=why[:1024], time=self.now())

    async def keep_status(self) -> None:
        """Write status when a policy changes, and every few seconds when counts do. For ever."""
        while True:
            await self.write_status()
            self._changed.clear()
            try:
                async with asyncio.timeout(STATUS_EVERY):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def write_status(self) -> None:
        for obj in list(self.cache.all(POLICIES.plural)):
            try:
                await self._write(obj)
            except Outdated:
                self._changed.set()
            except ApiError as error:
                log.warning("a policy's status could not be written", policy=obj["metadata"]["name"], error=str(error))

    def _set_of(self, objects: Iterable[Object]) -> PolicySet:
        by_namespace: dict[str, list[CompiledPolicy]] = defaultdict(list)
        alive = {}
        for obj in objects:
            metadata = obj["metadata"]
            identity = metadata["uid"], metadata["generation"]
            compiled = self._compiled.get(identity) or _compile(obj)
            alive[identity] = compiled
            by_namespace[metadata["namespace"]].append(compiled)
        self._compiled = alive
        return PolicySet(by_namespace, self.operator_namespace)

    async def _write(self, obj: Object) -> None:
        metadata = obj["metadata"]
        key = f"{metadata['namespace']}/{metadata['name']}"
        self.current()
        compiled = self._compiled.get((metadata["uid"], metadata["generation"]))
        if compiled is None:
            return
        before = _status_of(obj)
        counted = self._counted.pop(key, _Counted())
        matched = self._matched(compiled)
        ready = self._ready(compiled, matched, before.conditions)
        status = CommandPolicyStatus(
            observed_generation=metadata["generation"],
            conditions=[ready],
            matched_tasks=matched,
            allowed=before.allowed + counted.allowed,
            denied=before.denied + counted.denied,
            last_denied=counted.last or before.last_denied,
        )
        try:
            await self._writer.write(obj, status)
        except BaseException:
            again = self._counted[key]
            again.allowed += counted.allowed
            again.denied += counted.denied
            again.last = again.last or counted.last
            raise
        if before.observed_generation == status.observed_generation:
            return
        if not compiled.ready:
            self.events.record(obj, "Warning", ready.reason, ready.message)
        for warning in self._warnings(compiled):
            self.events.record(obj, "Warning", "CeilingWithSelector", str(warning))

    def _warnings(self, policy: CompiledPolicy) -> tuple[Problem, ...]:
        """None where the operator serves its own namespace alone: there a policy is no ceiling of another one."""
        if self.namespaces == (self.operator_namespace,):
            return ()
        return policy.warnings(self.operator_namespace)

    def _matched(self, policy: CompiledPolicy) -> int:
        namespace = None if policy.namespace == self.operator_namespace else policy.namespace
        tasks = self.cache.all(TASKS.plural, namespace)
        return sum(policy.selects(task["metadata"].get("labels") or {}) for task in tasks)

    def _ready(self, policy: CompiledPolicy, matched: int, before: list[Condition]) -> Condition:
        status, reason, message = "True", "Compiled", f"in force: {policy.spec.enforcement}"
        message = "; ".join([message, *map(str, self._warnings(policy))])
        if not matched:
            message += "; its selector selects no task at present"
        if not policy.ready:
            problems = "; ".join(str(problem) for problem in policy.problems[:5])
            status, reason, message = "False", "Invalid", f"allows nothing until this is mended: {problems}"
        last = next((condition for condition in before if condition.type == "Ready"), None)
        since = last.last_transition_time if last is not None and last.status == status else None
        return Condition.model_validate(
            {
                "type": "Ready",
                "status": status,
                "reason": reason,
                "message": message,
                "lastTransitionTime": since or self.now().replace(microsecond=0),
                "observedGeneration": policy.generation,
            }
        )


def _status_of(obj: Object) -> CommandPolicyStatus:
    """What status says so far; nothing where it cannot be read, as one that another version wrote."""
    try:
        return CommandPolicyStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        return CommandPolicyStatus()


def _compile(obj: Object) -> CompiledPolicy:
    """Never fails: a policy that cannot be read at all is one that is not ready."""
    try:
        return compile_policy(CommandPolicy.parse(obj))
    except InvalidInput as error:
        blank = compile_policy(CommandPolicy.parse({**obj, "spec": {}, "status": {}}))
        return dataclasses.replace(blank, problems=(Problem(error.field or "spec", str(error)),))
