"""CommandPolicies: compiled once for each generation, judged with, and told in status how they fare."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog
from pydantic import ValidationError

from remit.api.base import Condition
from remit.api.commandpolicy import CommandPolicy, CommandPolicyStatus, DenialStatus
from remit.api.executiontask import BackendName
from remit.api.executiontaskstatus import PolicyStatus
from remit.controllers.matchedtasks import MatchedTasks
from remit.errors import ApiError, InvalidInput
from remit.execution.admission import PolicySet
from remit.kube.client import Kube, Object
from remit.kube.events import Recorder
from remit.kube.indexer import key_of
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.kube.status import Outdated, StatusWriter
from remit.kube.workqueue import WorkQueue
from remit.policy.compile import CompiledPolicy, PolicyProblem, compile_policy
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

STATUS_DELAY = 5.0
"""Seconds until a change of the counts is written to status, together with those that have come since."""
_LAST_WRITES_SECONDS = 5
_WARNINGS = {
    "spec.selector": "CeilingWithSelector",
    "spec.namespaceSelector": "NoCeiling",
    "spec.backends": "BackendsNotOffered",
}
"""The reason of the Event by field."""
_NOT_OFFERED = (
    "this operator runs commands and scripts on {}, and none of that is listed, so all of them are denied; add {}, or "
    "leave backends out for the installation's default"
)


@dataclass
class _Counted:
    allowed: int = 0
    denied: int = 0
    last: DenialStatus | None = None


@dataclass
class Policies:
    """The policies of all namespaces, and what they said. Reconciles their status."""

    kube: Kube
    reflector: Reflector
    tasks: Reflector
    queue: WorkQueue
    """Keys of policies whose status may have to be written."""
    metrics: Metrics
    events: Recorder
    operator_namespace: str
    namespaces: tuple[str, ...] = ()
    backends: tuple[BackendName, ...] = ()
    """What this operator offers; empty: not known."""
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    _compiled: dict[str, CompiledPolicy] = field(default_factory=dict)
    """Compiled policies by uid."""
    _sources: dict[str, tuple[object, object]] = field(default_factory=dict)
    """What they were compiled from."""
    _current: PolicySet | None = None
    _counted: dict[str, _Counted] = field(default_factory=dict)
    """What is not in status yet, by the uids of policies that exist."""
    _matched: MatchedTasks = field(init=False)
    _writer: StatusWriter = field(init=False)

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.reflector, self.metrics, "CommandPolicy")
        self._matched = MatchedTasks(self.tasks, self.operator_namespace, self._look_at_status)
        self.reflector.add_handler(ResourceEventHandler(self._put, self._update, self._delete))

    def current(self) -> PolicySet:
        """The policies as the watch knows them."""
        if self._current is None:
            self._current = self._set_of(self.reflector.objects.list())
        return self._current

    async def fresh(self) -> PolicySet:
        """The policies as the server has them at this moment."""
        await self.reflector.list(self.kube)
        return self.current()

    def count(self, namespace: str, task: str, decided: PolicyStatus, why: str = "") -> None:
        """A decision about a task, for the status of the policy that made it."""
        policy = self.reflector.objects.get(decided.name if "/" in decided.name else f"{namespace}/{decided.name}")
        if policy is None:
            return
        counted = self._counted.setdefault(policy["metadata"]["uid"], _Counted())
        self._look_at_status(policy["metadata"]["uid"])
        if decided.decision == "Allowed":
            counted.allowed += 1
        else:
            counted.denied += 1
            counted.last = DenialStatus(task=task, reason=why[:1024], time=self.now())

    async def reconcile(self, key: str) -> float | None:
        """Write the status of the policy `key` if there is something new to say. Raises `ApiError`."""
        obj = self.reflector.objects.get(key)
        try:
            if obj is not None:
                await self._write(obj)
        except Outdated:
            return 0.0
        return None

    async def write_counts(self) -> None:
        """Write what the status of policies does not say yet, once, before the operator ends."""
        with contextlib.suppress(TimeoutError):  # the API server may not answer
            async with asyncio.timeout(_LAST_WRITES_SECONDS):
                for uid in list(self._counted):
                    obj = self.reflector.objects.get_by_uid(uid)
                    try:
                        if obj is not None:
                            await self._write(obj)
                    except (Outdated, ApiError) as error:
                        log.warning("the counts of a policy could not be written", uid=uid, error=str(error))

    def _put(self, obj: Object) -> None:
        """A policy was created, or what it says has changed."""
        self._current = None

    def _update(self, before: Object, after: Object) -> None:
        if _source(before) != _source(after):
            self._put(after)
        if self._writer.by_others(before, after):
            self._look_at_status(after["metadata"]["uid"])

    def _delete(self, obj: Object) -> None:
        self._current = None
        self._counted.pop(obj["metadata"]["uid"], None)

    def _look_at_status(self, uid: str) -> None:
        """Schedule a look at the policy's status. Further calls before that have no effect: changes are batched."""
        if (obj := self.reflector.objects.get_by_uid(uid)) is not None:
            self.queue.add_after(key_of(obj), STATUS_DELAY)

    def _set_of(self, objects: Iterable[Object]) -> PolicySet:
        by_namespace: dict[str, list[CompiledPolicy]] = defaultdict(list)
        alive, sources = {}, {}
        for obj in objects:
            uid, source = obj["metadata"]["uid"], _source(obj)
            known = self._compiled.get(uid)
            compiled = known if known is not None and self._sources[uid] == source else compile_object(obj)
            alive[uid], sources[uid] = compiled, source
            by_namespace[compiled.namespace].append(compiled)
        before, self._compiled, self._sources = self._compiled, alive, sources
        for uid, policy in before.items():
            if alive.get(uid) is not policy:
                self._matched.remove(policy)
        for uid, policy in alive.items():
            if before.get(uid) is not policy:
                self._matched.put(policy)
        return PolicySet(by_namespace, self.operator_namespace)

    async def _write(self, obj: Object) -> None:
        metadata = obj["metadata"]
        self.current()
        compiled = self._compiled[metadata["uid"]]
        before = _status_of(obj)
        counted = self._counted.pop(metadata["uid"], _Counted())
        matched = self._matched.count(compiled)
        conditions = self._conditions(compiled, matched, before.conditions)
        ready = conditions[0]
        status = CommandPolicyStatus(
            observed_generation=metadata["generation"],
            conditions=conditions,
            matched_tasks=matched,
            allowed=before.allowed + counted.allowed,
            denied=before.denied + counted.denied,
            last_denied=counted.last or before.last_denied,
        )
        try:
            await self._writer.write(obj, status)
        except BaseException:
            if metadata["uid"] in self.reflector.objects:
                again = self._counted.setdefault(metadata["uid"], _Counted())
                again.allowed += counted.allowed
                again.denied += counted.denied
                again.last = again.last or counted.last
            raise
        said = before.ready.message if before.ready else None
        edited = before.observed_generation != status.observed_generation
        if not compiled.ready and (
            edited or said != ready.message
        ):  # another version may compile the same spec differently
            self.events.record(obj, "Warning", ready.reason, ready.message)
        for warning in self._warnings(compiled):
            # Another version, or another set of flags, may have further warnings.
            if edited or str(warning) not in (said or ""):
                self.events.record(obj, "Warning", _WARNINGS[warning.field], str(warning))

    def _warnings(self, policy: CompiledPolicy) -> tuple[PolicyProblem, ...]:
        listed = policy.spec.backends
        absent: tuple[PolicyProblem, ...] = ()
        if self.backends and listed is not None and not set(listed) & set(self.backends):
            absent = (PolicyProblem("spec.backends", _NOT_OFFERED.format(", ".join(self.backends), self.backends[0])),)
        if self.namespaces == (self.operator_namespace,):
            return absent  # with only this namespace, no policy is a ceiling for another one
        return (*policy.warnings(self.operator_namespace), *absent)

    def _conditions(self, policy: CompiledPolicy, matched: int, before: list[Condition]) -> list[Condition]:
        """Ready comes first. kstatus takes a policy that is not ready for one in progress, unless it is stalled."""
        status, reason, message = "True", "Compiled", f"in force: {policy.spec.enforcement}"
        message = "; ".join([message, *map(str, self._warnings(policy))])
        if not matched:
            message += "; its selector selects no task at present"
        if not policy.ready:
            problems = "; ".join(str(problem) for problem in policy.problems[:5])
            status, reason, message = "False", "Invalid", f"allows nothing until this is mended: {problems}"
        now = self.now().replace(microsecond=0)
        since = {(each.type, str(each.status)): each.last_transition_time for each in before}
        truths = {"Ready": status, "Reconciling": "False", "Stalled": "False" if policy.ready else "True"}
        return [
            Condition.model_validate(
                {
                    "type": type_,
                    "status": truth,
                    "reason": reason,
                    "message": message,
                    "lastTransitionTime": since.get((type_, truth)) or now,
                    "observedGeneration": policy.generation,
                }
            )
            for type_, truth in truths.items()
        ]


def _source(obj: Object) -> tuple[object, object]:
    """The source that a policy is compiled from. The generation alone does not tell: where the API server was restored
    from a backup, it comes again with another spec."""
    return obj["metadata"].get("generation"), obj.get("spec")


def _status_of(obj: Object) -> CommandPolicyStatus:
    """The status so far; empty if it cannot be read, such as one that another version wrote."""
    try:
        return CommandPolicyStatus.model_validate(obj.get("status") or {})
    except ValidationError:
        return CommandPolicyStatus()


def compile_object(obj: Object) -> CompiledPolicy:
    """Compiles a policy without raising: a policy that cannot be parsed is one that is not ready."""
    try:
        return compile_policy(CommandPolicy.parse(obj))
    except InvalidInput as error:
        blank = compile_policy(CommandPolicy.parse({**obj, "spec": {}, "status": {}}))
        return dataclasses.replace(blank, problems=(PolicyProblem(error.field or "spec", str(error)),))
