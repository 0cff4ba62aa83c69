"""Runs attempts: each is an asyncio task, its output is kept, and its result is stored before it is reported.

The runner knows nothing of API servers. Its caller records an attempt, starts it here, and is called back when its
result can be collected: from memory or, after a restart, from the run store.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog

from remit.api.executiontaskstatus import AttemptStatus, OutputStatus
from remit.api.operations import FileOperation, Subject
from remit.backends.base import AdoptingBackend, AttemptRequest, Backend, Handle, KeptFiles
from remit.backends.exceeded import Exceeded
from remit.backends.filetree import Collector
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import BackendError, InvalidInput, OutcomeUnknown, RemitError, SandboxUnavailable
from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
from remit.execution.folders import Folders
from remit.execution.operations import attend, execute
from remit.execution.output import Listener, OutputWriter, recovered
from remit.execution.store import Run, RunStore
from remit.execution.workspacewatch import WorkspaceWatch
from remit.operations.base import AdoptingExecutor, Effect, OperationExecutor, OperationRequest, not_retried
from remit.operations.file.report import ReportedOutput
from remit.sandbox import fence
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)
_CLEAR_SECONDS = 5.0
_LET_GO_SECONDS = 20.0
_DEATH_SECONDS = 60.0
"""How long an attempt may take to die after its grace period, in seconds. On a hanging disk it may not die at all."""
_MAY_HAVE_RUN = "it may have run"
_LOST = "the operator was stopped while this attempt was running; nothing of it is alive"
_RAW_NOT_SHOWN = (
    "status shows nothing of its output, which is kept raw: the secrets that it was given may have changed since, so"
    " they cannot be redacted"
)


@dataclass(frozen=True, slots=True)
class Attempt:
    """All that it takes to run an attempt once. `secrets` are the values that must not be seen anywhere."""

    key: str
    namespace: str
    uid: str
    backend: str
    request: AttemptRequest | OperationRequest
    max_output_bytes: int
    tail_bytes: int
    raw_output: bool = False
    """Whether the kept files have the output as written, secrets included."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of the Secrets that they come from, see `Resolved.secret_versions`."""
    operation: str = "command"
    task: str = ""
    """The task's name, under which its artifacts are found."""
    file: FileOperation | None = None
    """The file operation that a backend runs."""
    artifacts: tuple[WantedArtifact, ...] = ()
    results: tuple[WantedResult, ...] = ()
    listener: Listener | None = None
    """Told of its output as it comes."""
    job_uid: str = ""
    """The uid of the attempt's Job, if it is in status."""
    effect: Effect = field(default_factory=Effect)
    """Whether it may have run. An operation of Remit's own knows more: see `Attempt.in_doubt`."""

    @property
    def in_doubt(self) -> str:
        """Describe for the user what may have taken place; empty while a failure may be retried."""
        return self.request.effect.in_doubt if isinstance(self.request, OperationRequest) else self.effect.in_doubt


@dataclass(slots=True)
class _Going:
    task: asyncio.Task[None]
    cancel: asyncio.Event
    backend: str
    lasting: bool = False
    """Whether it outlives this process, for the next one to adopt."""
    grace_seconds: float = 0.0
    asked: ExitReason = ExitReason.CANCELLED
    abandoned: bool = False
    job_uid: str = ""


@dataclass
class Runner:
    """Attempts in flight, by task uid. `on_ended` is called with the task's key, on the event loop; `on_made` likewise,
    as soon as `job_uid` tells which Job an attempt is.

    Must live in a thread that lives as long as the process: the kernel ends a sandbox when the thread that started
    it goes.
    """

    backends: Mapping[str, Backend]
    store: RunStore
    redactor: Redactor
    on_ended: Callable[[str], None]
    executors: Mapping[str, OperationExecutor] = field(default_factory=dict)
    """Executors of the operations that Remit performs itself, by name."""
    folders: Folders | None = None
    """The folders of workspaces and artifacts."""
    on_made: Callable[[str], None] = lambda key: None
    _going: dict[str, _Going] = field(default_factory=dict)
    _results: dict[str, Outcome] = field(default_factory=dict)
    _clearing: set[asyncio.Task[None]] = field(default_factory=set)
    _ended_elsewhere: dict[str, tuple[AdoptingBackend, AttemptRequest]] = field(default_factory=dict)
    """Attempts by id whose backend keeps them until their end is in status."""

    def __len__(self) -> int:
        return len(self._going)

    def count(self, backend: str) -> int:
        """How many attempts run on `backend`."""
        return sum(going.backend == backend for going in self._going.values())

    def running(self, uid: str) -> bool:
        return uid in self._going

    def job_uid(self, uid: str) -> str:
        """The uid of the Job of the task's running attempt; empty if there is none or it is not known yet."""
        going = self._going.get(uid)
        return going.job_uid if going is not None else ""

    def start(self, attempt: Attempt, *, adopt: bool = False) -> None:
        """Start an attempt that status already tells of; or take up one that an earlier process started."""
        cancel = asyncio.Event()
        task = asyncio.create_task(self._run(attempt, cancel, adopt), name=f"attempt {attempt.request.id}")
        request = attempt.request
        self._going[attempt.uid] = _Going(
            task,
            cancel,
            attempt.backend,
            lasting=self._lasting(attempt),
            grace_seconds=request.grace_seconds if isinstance(request, AttemptRequest) else 0.0,
        )

    def has_ended(self, namespace: str, uid: str, attempt: AttemptStatus) -> bool:
        """Whether it is known how an attempt ended."""
        if attempt.id in self._results:
            return True
        run = self.store.find(namespace, uid, attempt.id)
        return run is not None and run.outcome is not None

    def adoptable(
        self,
        namespace: str,
        uid: str,
        attempt: AttemptStatus,
        operation: str = "command",
        subject: Subject | None = None,
    ) -> bool:
        """Whether an open attempt that is not running here may be running all the same."""
        adopting = isinstance(self.backends.get(attempt.backend), AdoptingBackend)
        executor = self.executors.get(operation)
        is_job = operation == "file" and attempt.backend in self.backends
        if subject is not None and executor is not None and not is_job:
            adopting = isinstance(executor, AdoptingExecutor) and executor.outlives(subject)
        return adopting and not self.has_ended(namespace, uid, attempt)

    def has_secrets_of(self, namespace: str, uid: str, attempt: AttemptStatus, versions: Mapping[str, str]) -> bool:
        """Whether an attempt that an earlier process started was given these versions of its Secrets, and no others."""
        run = self.store.find(namespace, uid, attempt.id)
        recorded = run.secret_versions if run is not None else None
        backend = self.backends.get(attempt.backend)
        if recorded is None and isinstance(backend, AdoptingBackend) and backend.keeps_secret_versions:
            return True  # the backend checks the versions when the attempt is adopted
        return (recorded or {}) == versions

    def _lasting(self, attempt: Attempt) -> bool:
        if isinstance(attempt.request, OperationRequest):
            executor = self.executors.get(attempt.operation)
            return isinstance(executor, AdoptingExecutor) and executor.outlives(attempt.request.subject)
        return isinstance(self.backends.get(attempt.backend), AdoptingBackend)

    def stop(self, uid: str, reason: ExitReason = ExitReason.CANCELLED) -> None:
        """Ask a run to end: SIGTERM, and after its grace period the end of everything it started."""
        going = self._going.get(uid)
        if going is not None and not going.cancel.is_set():
            going.asked = reason
            going.cancel.set()

    def abandon(self, namespace: str, uid: str) -> None:
        """The task is no more: end its run, and keep nothing of it."""
        going = self._going.get(uid)
        if going is None:
            self._in_background(self.clear(namespace, uid))
        else:
            going.abandoned = True
            self.stop(uid)

    async def clear(self, namespace: str, uid: str) -> None:
        """Keep nothing of a task of which nothing runs here. What an earlier process left of it is ended first, in the
        background, and forgotten then, so that the next process knows of it if this one does not come to that."""
        if lost := await self._lost(namespace, uid):
            self._in_background(self._cleared(namespace, uid, lost))
        else:
            await asyncio.to_thread(self.forget_task, namespace, uid)

    async def end_lost(self, namespace: str, uid: str) -> None:
        """End, in the background, what an earlier process left of a task that is gone."""
        if lost := await self._lost(namespace, uid):
            self._in_background(self._ended(lost))

    async def _lost(self, namespace: str, uid: str) -> list[Handle]:
        """Returns the recorded handles of runs whose end was not observed."""
        runs = await asyncio.to_thread(self.store.runs, namespace, uid)
        for run in runs:
            self.forget(run.path.name)
        return [handle for run in runs if run.outcome is None and (handle := _handle_of(run)) is not None]

    async def _cleared(self, namespace: str, uid: str, lost: Sequence[Handle]) -> None:
        await self._ended(lost)
        await asyncio.to_thread(self.forget_task, namespace, uid)

    def forget_task(self, namespace: str, uid: str) -> None:
        """Keep nothing of a task that is gone, but the artifacts that are to be kept longer. Blocks."""
        if self.folders is not None:
            self.folders.artifacts.release(namespace, uid)
        self.store.forget(namespace, uid)

    async def _ended(self, lost: Sequence[Handle]) -> None:
        for handle in lost:
            if handle.operation:
                await _recovered(self._executor_of(handle), handle)
                continue
            for backend in self.backends.values():
                if isinstance(backend, AdoptingBackend) == bool(handle.container):
                    await _recovered(backend, handle)

    def _executor_of(self, handle: Handle) -> AdoptingExecutor | None:
        executor = self.executors.get(handle.operation)
        return executor if isinstance(executor, AdoptingExecutor) else None

    def _in_background(self, clearing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(clearing)
        self._clearing.add(task)
        task.add_done_callback(self._clearing.discard)

    async def collect(
        self, namespace: str, uid: str, attempt: AttemptStatus, tail_bytes: int, cause: str = ""
    ) -> Outcome:
        """How an attempt that is not running here ended. `Interrupted` when nobody saw it end; `cause`: why it is not
        taken up."""
        outcome = self._results.get(attempt.id)
        if outcome is not None:
            return outcome
        run = self.store.find(namespace, uid, attempt.id)
        if run is not None and (outcome := run.outcome) is not None:
            await self._put_in_place(uid, attempt.id, outcome)
            return outcome
        where: Backend | AdoptingExecutor | None = self.backends.get(attempt.backend)
        handle = _handle_of(run) if run is not None else None
        if handle is None and isinstance(where, AdoptingBackend):  # the record may be lost while the attempt still runs
            handle = dataclasses.replace(where.handle_of(namespace, attempt.id), uid=attempt.job_uid)
        if handle is not None and handle.operation:
            where = self._executor_of(handle)
        if handle is not None and where is not None:
            await where.recover(handle)
        lost = Outcome(ExitReason.INTERRUPTED, f"{_LOST}; {cause}" if cause else _LOST)
        await self._put_in_place(uid, attempt.id, lost)
        return _with_recovered(lost, recovered(run.path, tail_bytes)) if run is not None else lost

    def forget(self, attempt_id: str) -> None:
        """The result has been written to status, or the task is gone; the run store has the rest."""
        self._results.pop(attempt_id, None)
        if (ended := self._ended_elsewhere.pop(attempt_id, None)) is not None:
            backend, request = ended
            self._in_background(backend.forget(request))

    async def shutdown(self) -> None:
        """End every run as `Interrupted` and wait until nothing of them is alive; let go of those that outlive us, also
        of what is to be cancelled and is slow to end: the next process takes it up, and ends it. So it does with what
        does not die here."""
        for uid, going in list(self._going.items()):
            if going.lasting and not going.cancel.is_set():
                going.task.cancel()
            else:
                self.stop(uid, ExitReason.INTERRUPTED)
        ending = list(self._going.values())
        if ending:
            await asyncio.wait([going.task for going in ending], timeout=_LET_GO_SECONDS)
        for going in ending:
            if going.lasting:
                going.task.cancel()
        for clearing in self._clearing:
            clearing.cancel()
        left = {*(going.task for going in ending), *self._clearing}
        if left:
            grace = max((going.grace_seconds for going in ending), default=0.0)
            _, left = await asyncio.wait(left, timeout=grace + _DEATH_SECONDS)
        for task in left:
            log.error("it did not end, and is left to the next start", work=task.get_name())
            task.cancel()

    async def close(self) -> None:
        """Close the executors. Call it after `shutdown`."""
        for executor in self.executors.values():
            await executor.close()

    async def _run(self, attempt: Attempt, cancel: asyncio.Event, adopt: bool) -> None:
        try:
            outcome = await self._attempted(attempt, cancel, adopt)
        except asyncio.CancelledError:
            del self._going[attempt.uid]
            raise
        await self._let_go(attempt, outcome)
        going = self._going.pop(attempt.uid)
        if going.abandoned:
            self.forget(attempt.request.id)
            await asyncio.to_thread(self.forget_task, attempt.namespace, attempt.uid)
        else:
            self._results[attempt.request.id] = outcome
        self.on_ended(attempt.key)

    async def _attempted(self, attempt: Attempt, cancel: asyncio.Event, adopt: bool) -> Outcome:
        """How it ended, whatever breaks. Raises CancelledError when it is let go of."""
        try:
            with self.redactor.holding(attempt.secrets, attempt.namespace) as redactor:
                return await self._kept(attempt, cancel, adopt, redactor)
        except (Exception, asyncio.CancelledError) as error:
            # A library may cancel what it awaits itself. Then this task was not cancelled and must report the end of
            # the attempt.
            if isinstance(error, asyncio.CancelledError) and (fence.expired or _is_being_cancelled()):
                raise
            log.exception("an attempt broke down", attempt=attempt.request.id)
        if isinstance(attempt.request, AttemptRequest) and self._lasting(attempt):
            await self._end_outliving(attempt)
        return _broken_down(attempt.in_doubt)

    async def _end_outliving(self, attempt: Attempt) -> None:
        """End what an attempt that broke down may have left, and what would outlive this process. Nobody looks for it
        once its end is told."""
        try:
            run = self.store.find(attempt.namespace, attempt.uid, attempt.request.id)
            if run is not None and (handle := _handle_of(run)) is not None:
                await self._ended([handle])
        except Exception:
            log.exception("what an attempt left could not be ended", attempt=attempt.request.id)

    async def _kept(self, attempt: Attempt, cancel: asyncio.Event, adopt: bool, redactor: Redactor) -> Outcome:
        """Run it, keep what it says, and store how it ended. `redactor` knows this attempt's secrets, and only these:
        those of others must not change what is told of it."""
        try:
            run = self.store.open(attempt.namespace, attempt.uid, attempt.request.id)
        except OSError as error:
            return Outcome(ExitReason.BACKEND_ERROR, f"the run store cannot be written: {error.strerror}")
        writer = OutputWriter(
            run.path,
            max_bytes=attempt.max_output_bytes,
            tail_bytes=attempt.tail_bytes,
            redactor=redactor,
            listener=attempt.listener,
            raw=attempt.raw_output,
        )
        try:
            outcome = await self._result(attempt, run, writer, cancel, adopt)
        except BaseException:
            writer.close()
            raise
        # The attempt was killed because of that, or the next operator adopts it; this operator must not report its
        # outcome.
        if fence.expired:
            writer.close()
            raise asyncio.CancelledError
        if outcome.reason == ExitReason.CANCELLED and self._going[attempt.uid].asked is ExitReason.INTERRUPTED:
            outcome = _interrupted(outcome, attempt.request)
        output = writer.close()
        # Only the output that the earlier process kept is available.
        if adopt and outcome.reason == ExitReason.INTERRUPTED:
            output = recovered(run.path, attempt.tail_bytes)
            outcome = _with_recovered(outcome, output)
        met = (*outcome.exceeded, Exceeded.OUTPUT) if output.truncated else outcome.exceeded
        outcome = dataclasses.replace(
            redacted(outcome, redactor), output=output, output_digest=writer.digest, exceeded=met
        )
        try:
            await asyncio.to_thread(run.ended, outcome)
        except OSError:
            # This process remembers the outcome, which is long enough to write it to status.
            log.exception("how an attempt ended could not be stored", attempt=attempt.request.id)
        return outcome

    async def _result(
        self, attempt: Attempt, run: Run, writer: OutputWriter, cancel: asyncio.Event, adopt: bool
    ) -> Outcome:
        """Run it. What keeps it from running is an outcome too."""
        try:
            fence.check()
            if isinstance(attempt.request, OperationRequest):
                return await self._performed(attempt, attempt.request, run, writer, cancel, adopt)
            return await self._confined(attempt, attempt.request, run, writer, cancel, adopt)
        except SandboxUnavailable as error:
            return Outcome(ExitReason.SANDBOX_UNAVAILABLE, str(error))
        except InvalidInput as error:
            return Outcome(ExitReason.START_FAILED, str(error))
        except OutcomeUnknown as error:
            return not_retried(Outcome(ExitReason.BACKEND_ERROR, str(error)), _MAY_HAVE_RUN)
        except RemitError as error:
            return Outcome(ExitReason.BACKEND_ERROR, str(error))

    async def _performed(
        self,
        attempt: Attempt,
        operation: OperationRequest,
        run: Run,
        writer: OutputWriter,
        cancel: asyncio.Event,
        adopt: bool,
    ) -> Outcome:
        executor = self.executors[attempt.operation]
        if not isinstance(executor, AdoptingExecutor) or not executor.outlives(operation.subject):
            return await execute(executor, operation, writer, cancel)
        started, known = self._recorder(attempt, run, adopt), _handle_of(run) if adopt else None
        outcome = await attend(executor, operation, writer, cancel, on_started=started, adopt=adopt, recorded=known)
        return outcome or Outcome(ExitReason.INTERRUPTED, _LOST)

    def _recorder(self, attempt: Attempt, run: Run, adopt: bool) -> Callable[[Handle], None]:
        """Give the function that records where an attempt runs, before it can run: from then on it may have run."""

        def started(handle: Handle) -> None:
            if adopt:
                run.resumed(dataclasses.asdict(handle))
            else:
                if attempt.secret_versions and self._lasting(attempt):
                    run.keep_secret_versions(attempt.secret_versions)
                run.started(dataclasses.asdict(handle))
            attempt.effect.begin(_MAY_HAVE_RUN)
            if handle.uid:
                self._going[attempt.uid].job_uid = handle.uid
                if handle.uid != attempt.job_uid:
                    self.on_made(attempt.key)

        return started

    async def _confined(
        self,
        attempt: Attempt,
        request: AttemptRequest,
        run: Run,
        writer: OutputWriter,
        cancel: asyncio.Event,
        adopt: bool,
    ) -> Outcome:
        backend = self.backends[attempt.backend]
        if attempt.artifacts or attempt.results:
            texts = tuple(result.path for result in attempt.results)
            kept = tuple(KeptFiles(each.pattern, each.most_bytes, each.always) for each in attempt.artifacts)
            request = dataclasses.replace(request, collector=self._collector(attempt), texts=texts, kept=kept)
        report = ReportedOutput(attempt.file, writer) if attempt.file else None
        sink = report or writer
        written = self.folders.workspaces_written(attempt.uid) if self.folders else ()
        try:
            async with WorkspaceWatch(written, cancel) as watch:
                if adopt and isinstance(backend, AdoptingBackend):
                    found, known = self._recorder(attempt, run, adopt=True), _handle_of(run)
                    if known is None and attempt.job_uid:  # the record is lost, but status has the Job's uid
                        handle = backend.handle_of(attempt.namespace, request.id)
                        known = dataclasses.replace(handle, uid=attempt.job_uid, begun=0.0)
                    if known is not None:
                        attempt.effect.begin(_MAY_HAVE_RUN)
                    adopted = await backend.adopt(request, sink, cancel=cancel, on_found=found, recorded=known)
                    if adopted is None:
                        self._ended_elsewhere[request.id] = backend, request
                        return Outcome(ExitReason.INTERRUPTED, _LOST)
                    outcome = adopted
                else:
                    started = self._recorder(attempt, run, adopt=False)
                    outcome = await backend.run(request, sink, cancel=cancel, on_started=started)
        except BackendError as error:
            if report and report.changes and attempt.effect.in_doubt:
                raise OutcomeUnknown(str(error)) from error
            raise
        if isinstance(backend, AdoptingBackend):
            self._ended_elsewhere[request.id] = backend, request
        if report:
            return report.conclude(outcome)
        outcome = watch.conclude(outcome)
        return _with_refusals(outcome)

    def forget_folders(self, uid: str) -> None:
        """Release the folders that were laid out for a task, unless it runs."""
        if self.folders is not None and uid not in self._going:
            self.folders.forget(uid)

    async def _let_go(self, attempt: Attempt, outcome: Outcome) -> None:
        """Nothing of the attempt is alive: others may have its folders, and find what it left."""
        if self.folders is None:
            return
        try:
            if attempt.artifacts:
                await self._put_in_place(attempt.uid, attempt.request.id, outcome)
            if self.folders.has(attempt.uid):
                await asyncio.to_thread(self.folders.let_go, attempt.uid)
        except OSError:
            log.exception("what an attempt left could not be put in its place", attempt=attempt.request.id)

    async def _put_in_place(self, uid: str, attempt_id: str, outcome: Outcome) -> None:
        """Put what the attempt left where it is found, if its end says that it left anything. Raises OSError."""
        if self.folders is not None:
            artifacts = self.folders.artifacts
            if outcome.artifacts:
                await asyncio.to_thread(artifacts.commit, uid, attempt_id)
            else:
                await asyncio.to_thread(artifacts.discard, attempt_id)

    def _collector(self, attempt: Attempt) -> Collector:
        if self.folders is None:
            raise InvalidInput("this operator keeps no artifacts; leave them out", field="spec.artifacts")
        store = self.folders.artifacts
        save = functools.partial(store.stage, attempt.namespace, attempt.task, attempt.request.id)
        return collector(store, save, attempt.artifacts, attempt.results)


def redacted(outcome: Outcome, redactor: Redactor) -> Outcome:
    """Only where words of others stand: a program may have put a secret into a host's name. `reason` and its kin are
    what is decided by."""
    network = outcome.network
    if network is not None:
        network = dataclasses.replace(
            network,
            last_denied=redactor.redact_cut(network.last_denied),
            destinations=tuple(
                dataclasses.replace(one, destination=redactor.redact(one.destination)) for one in network.destinations
            ),
        )
    results = {name: redactor.redact(value) for name, value in outcome.results.items()}
    return dataclasses.replace(outcome, message=redactor.redact_cut(outcome.message), network=network, results=results)


def _with_recovered(outcome: Outcome, output: OutputStatus) -> Outcome:
    """Add the output that an operator that was lost had kept."""
    message = f"{outcome.message}; {_RAW_NOT_SHOWN}" if output.raw else outcome.message
    return dataclasses.replace(outcome, output=output, message=message)


def _with_refusals(outcome: Outcome) -> Outcome:
    """A program that fails after it was refused a connection has most likely failed of that."""
    use = outcome.network
    if use is None or not use.denied or outcome.reason == ExitReason.COMPLETED:
        return outcome
    count = f"the last of {use.denied} refused connections" if use.denied > 1 else "a refused connection"
    return dataclasses.replace(outcome, message=f"{outcome.message}; {count}: {use.last_denied}")


def _interrupted(outcome: Outcome, request: AttemptRequest | OperationRequest) -> Outcome:
    """The outcome of an attempt that a shutdown cancelled. Whether it is retried, the task's `onInterruption` says, as
    for one that was lost with the operator."""
    message = "the operator was shut down while this attempt was running; nothing of it is alive"
    if isinstance(request, OperationRequest) and request.effect.in_doubt:
        message = f"{message}; {request.effect.in_doubt}"
    return dataclasses.replace(outcome, reason=ExitReason.INTERRUPTED, message=message, retryable=True)


def _broken_down(in_doubt: str) -> Outcome:
    """After a mistake of our own, of which nobody knows more than where it happened."""
    outcome = Outcome(ExitReason.INTERNAL_ERROR, "the operator failed to run it; its log says why")
    return not_retried(outcome, in_doubt) if in_doubt else outcome


_HANDLE_FIELDS = frozenset(field.name for field in dataclasses.fields(Handle))


def _handle_of(run: Run) -> Handle | None:
    """The recorded handle of the attempt's processes, as far as this version knows it."""
    process = run.process
    if process is None:
        return None
    known = {key: value for key, value in process.items() if key in _HANDLE_FIELDS}
    return Handle(**known | {"cgroups": tuple(process.get("cgroups", ()))})


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _recovered(where: Backend | AdoptingExecutor | None, handle: Handle) -> None:
    """Nothing is left, as soon as its place can be reached. None: this operator has no such place."""
    while where is not None:
        try:
            await where.recover(handle)
        except RemitError as error:
            if error.retryable:
                await asyncio.sleep(_CLEAR_SECONDS)
                continue
        return
