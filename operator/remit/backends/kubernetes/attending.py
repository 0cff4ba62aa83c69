"""Attends a Job from its creation to its end: what its pod says, what its log says, and what ends it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any, Final

import aiohttp
import structlog

from remit.backends.base import AttemptRequest, OutputSink
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.filetree import collected
from remit.backends.kubernetes.ensuring import read
from remit.backends.kubernetes.manifests import (
    COLLECTING_SECONDS,
    CONTAINER,
    belongs_to,
    is_of_attempt,
    job_name,
)
from remit.backends.kubernetes.pods import (
    Look,
    confined,
    is_being_deleted,
    look,
    never_started,
    outcome_of,
    refusal,
    trouble,
)
from remit.backends.kubernetes.records import Records
from remit.backends.kubernetes.spool import Spool
from remit.backends.kubernetes.texts import LogTree
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import ApiError, BackendError, RemitError
from remit.kube.client import JOBS, PODS, Kube, Object
from remit.kube.events import events_of
from remit.kube.informer import Subscription

log = structlog.get_logger(__name__)
_STDERR_KEPT = 8192
_SHORTEST, _LONGEST = 0.1, 2.0
_SILENCE_SECONDS: Final = 30.0
"""After which a log that says nothing is asked for anew: the connection may be dead, and a kubelet that rotates a log
may lose those who follow it."""
_ENDED_SILENCE_SECONDS: Final = 1.0
"""The same for the log of a container that has ended."""
_LAST_WORDS_SECONDS: Final = 30.0
"""How long the rest of the log may take after a container has ended."""
_COLLECTING_SILENCE_SECONDS: Final = 5.0
"""The same while files are told: the log may be rotated again soon."""
_START_SECONDS: Final = 5.0
"""After which the Events of a pod that has not started are read, and read again."""
_REFUSED_SECONDS: Final = 5.0
"""After which a server that refuses is asked again."""
_SENT_BY_KUBELETS: Final = frozenset({128 + signal.SIGTERM, 128 + signal.SIGKILL})
_NOT_FOUND: Final = 404
_BEFORE_IT_RUNS: Final = 400
"""What a log is answered with whose container was not started."""


class Attendance:
    """Attends the Job `uid`; empty: it is unknown whether there is one. `news` informs of the attempt's pods."""

    def __init__(
        self,
        kube: Kube,
        request: AttemptRequest,
        namespace: str,
        uid: str,
        sink: OutputSink,
        enforcement: ConfinementStatus,
        news: Subscription,
        *,
        spool: Spool,
        waits_for: str = "",
    ) -> None:
        self._kube, self._request, self._sink, self._enforcement, self._news = kube, request, sink, enforcement, news
        self._namespace, self._name, self._uid = namespace, job_name(request.id), uid
        self._pod: Object = {}
        self._seen = Look()
        self._gone = False
        """Whether the pod is not there any more."""
        self._job: Object | None = {}
        """The Job as it was last seen; None if it is gone."""
        self._waits_for = waits_for
        self._trouble = ""
        """What Events say of a pod that does not start. It tells more than the pod's own `ContainerCreating`."""
        self._refused: Outcome | None = None
        self._change = asyncio.Event()
        self._records = Records(spool=spool)
        self._first_stderr = b""
        self._by_itself = False
        """Whether the program had ended before anybody took its pod away."""

    async def until_over(self, cancel: asyncio.Event, seconds: float) -> Outcome:
        """End it after `seconds` or when it is to be cancelled, and say how it ended. Cancelled itself, it leaves the
        Job alone.

        Raises:
            BackendError: the output could not be stored, or nobody can tell how it fares.
        """
        asked, over = asyncio.ensure_future(cancel.wait()), asyncio.ensure_future(self._over())
        program = asyncio.ensure_future(self._program_over())
        following = asyncio.ensure_future(self._follow())
        looking = asyncio.ensure_future(self._look_after_start())
        parts = [asyncio.ensure_future(self._watch()), looking, following]
        stopped: ExitReason | None = None
        had_started = True
        try:
            await self._first((asked, over, program), parts, seconds)
            # All processes of the attempt have ended, so its timeout no longer applies.
            if program.done() and not over.done():
                await self._first((over,), parts, COLLECTING_SECONDS)
            elif not over.done():
                stopped = ExitReason.CANCELLED if asked.done() else ExitReason.TIMED_OUT
                # Read before the removal, because kubelets also report a container that never ran as terminated.
                had_started = self._seen.running or self._seen.terminated is not None
                await self.remove()
            elif self._refused is not None:
                await self.remove()
                return confined(self._refused, self._enforcement)
            await asyncio.wait({following}, timeout=_LAST_WORDS_SECONDS)
            self._check(parts)
            if stopped is None and not self._is_known_to_have_ended:
                await self.remove()
            outcome = self._outcome(stopped, had_started)
            if self._request.collector is None:
                return outcome
            texts = LogTree(self._request.texts, self._records.results, self._records.spool)
            return await collected(self._request.collector, texts, outcome)
        finally:
            for task in (asked, over, program, *parts):
                task.cancel()
            await asyncio.gather(asked, over, program, *parts, return_exceptions=True)

    async def _first(
        self, awaited: Sequence[asyncio.Future[Any]], parts: Sequence[asyncio.Future[None]], seconds: float
    ) -> None:
        """Wait until one of `awaited` is done, at most for the given time. Raises the exception with which one of
        `parts` ended."""
        ends = asyncio.get_running_loop().time() + seconds
        while not any(each.done() for each in awaited):
            remaining = max(0.0, ends - asyncio.get_running_loop().time())
            going = {*awaited, *(part for part in parts if not part.done())}
            done, _ = await asyncio.wait(going, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
            self._check(parts)
            if not done:
                return

    def _outcome(self, stopped: ExitReason | None, had_started: bool) -> Outcome:
        """`had_started`: whether its container had, when it was stopped."""
        if stopped is not None and not had_started and not self._records.last:
            return never_started(
                self._trouble or self._waits_for,
                self._request,
                self._enforcement,
                cancelled=stopped is ExitReason.CANCELLED,
            )
        if not self._pod and (outcome := _told_by(self._job)) is not None:
            return confined(outcome, self._enforcement)
        return outcome_of(
            self._pod,
            self._records,
            self._first_stderr,
            stopped,
            self._request,
            self._enforcement,
            by_itself=self._by_itself,
        )

    def _check(self, parts: Iterable[asyncio.Future[None]]) -> None:
        """Raises what one of the parts broke down with."""
        for part in parts:
            if part.done() and not part.cancelled() and (error := part.exception()) is not None:
                if isinstance(error, OSError):
                    raise BackendError(f"the output could not be stored: {error}") from error
                if isinstance(error, RemitError):
                    raise BackendError(f"nobody can tell how Job {self._name} fares: {error}") from error
                raise error

    async def _over(self) -> None:
        """Wait until the program has ended, or will not run. The launcher's last record is the last thing that it does,
        and with it ends everything in the container; the kubelet tells that up to seconds later. But only the kubelet
        tells whether a signal was sent because the pod is to go."""
        while not (self._refused is not None or self._has_ended or self._ended_by_itself):
            await self._change.wait()

    async def _program_over(self) -> None:
        """Wait until the launcher reports that the program has ended: from then on it reports what the program left."""
        while self._records.program_ended is None:
            await self._change.wait()
        ended = self._records.program_ended
        self._by_itself = ended.exit_code not in _SENT_BY_KUBELETS and not is_being_deleted(self._pod)

    @property
    def _ended_by_itself(self) -> bool:
        ended = self._records.ended
        if ended is None or not self._records.are_over:
            return False
        return ended.exit_code not in _SENT_BY_KUBELETS and not is_being_deleted(self._pod)

    @property
    def _is_known_to_have_ended(self) -> bool:
        """A pod that is not told of any more may only have lost its labels."""
        return self._seen.terminated is not None or self._seen.over or self._records.are_over

    @property
    def _has_ended(self) -> bool:
        return self._seen.terminated is not None or self._seen.over or self._gone

    def _tell(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def _watch(self) -> None:
        while True:
            change = await self._news.next()
            if change is None:  # `_look_after_missing_pod` checks whether the pod still exists
                continue
            if not belongs_to(change.object, self._uid):
                continue  # any user may give a pod the labels of the attempt
            if self._pod and change.object["metadata"]["uid"] != self._pod["metadata"]["uid"]:
                continue  # only the first pod counts, because the Job creates one pod
            self._take(change.object, gone=change.type == "DELETED")

    def _take(self, pod: Object, *, gone: bool) -> None:
        self._pod, self._gone = pod, gone
        self._seen = look(pod)
        self._waits_for = self._seen.waits or self._waits_for
        self._refused = self._refused or self._seen.refused
        self._tell()

    async def _look_after_start(self) -> None:
        """Ask what became of a Job that has no pod, and then why its pod does not start."""
        await self._look_after_missing_pod()
        while True:
            await asyncio.sleep(_START_SECONDS)
            if self._seen.running or self._has_ended or self._refused is not None:
                return
            with contextlib.suppress(ApiError):
                self._trouble = trouble(await events_of(self._kube, self._pod)) or self._trouble

    async def _look_after_missing_pod(self) -> None:
        wait = 0.5
        while not self._pod and self._refused is None:
            await asyncio.sleep(wait)
            wait = min(wait * 2, 5.0)
            if self._pod:
                return
            with contextlib.suppress(ApiError):
                self._job = await self._read_job()
                if self._job is None or _told_by(self._job) is not None:
                    self._gone = True
                    self._tell()
                    return
                self._refused, waits_for = refusal(await events_of(self._kube, self._job))
                self._waits_for = waits_for or self._waits_for
                if self._refused is not None:
                    self._tell()

    async def _read_job(self) -> Object | None:
        found = await read(self._kube, JOBS, self._namespace, self._name)
        return found if found is not None and found["metadata"]["uid"] == self._uid else None

    async def _follow(self) -> None:
        """Take over what the log says, until all of it was read."""
        pause, told = _SHORTEST, False
        while True:
            while not (self._seen.running or self._has_ended):
                await self._change.wait()
            if not self._pod:
                return
            had_ended = self._has_ended
            before = self._records.last
            whole = False
            try:
                async with contextlib.aclosing(self._log(follow=not had_ended)) as log:
                    async for chunk in log:  # the last record ends the log
                        for stream, said in self._records.feed(chunk):
                            if stream == "stderr" and len(self._first_stderr) < _STDERR_KEPT:
                                self._first_stderr += said[: _STDERR_KEPT - len(self._first_stderr)]
                            self._sink.write(stream, said)
                        if self._records.program_ended is not None and not told:
                            told = True
                            self._tell()
                        if self._records.are_over:
                            break
                whole = True
            except ApiError as error:
                if error.status == _NOT_FOUND and (self._gone or self._seen.over):
                    return
                whole = error.status == _BEFORE_IT_RUNS
            except (aiohttp.ClientError, TimeoutError):
                pass
            if self._records.are_over or (whole and had_ended):
                self._tell()
                return
            self._records.again()
            pause = _SHORTEST if self._records.last != before else min(pause * 2, _LONGEST)
            await asyncio.sleep(pause)

    async def _log(self, *, follow: bool) -> AsyncGenerator[bytes, None]:
        """The log from the last record to its end. Raises as `Kube.stream` does."""
        path = PODS.path(self._namespace, self._pod["metadata"]["name"], "log")
        params = {"container": CONTAINER, "follow": str(follow).lower(), "timestamps": "true"}
        if self._records.last:
            params["sinceTime"] = self._records.since
        chunks = self._kube.stream(path, params=params, silence_seconds=_SILENCE_SECONDS)
        async with contextlib.aclosing(chunks):
            while True:
                coming = asyncio.ensure_future(anext(chunks, None))
                try:
                    while not coming.done():
                        changed = asyncio.ensure_future(self._change.wait())
                        ended = follow and self._has_ended
                        done, _ = await asyncio.wait(
                            {coming} if ended else {coming, changed},
                            timeout=_ENDED_SILENCE_SECONDS if ended else self._longest_silence,
                            return_when=asyncio.FIRST_COMPLETED,
                        )
                        changed.cancel()
                        if not done:
                            return
                    chunk = coming.result()
                finally:
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
                if chunk is None:
                    return
                yield chunk

    @property
    def _longest_silence(self) -> float | None:
        """How long a running container's log may be silent, in seconds; None: as long as the connection allows."""
        tells_files = self._records.program_ended is not None and not self._records.are_over
        return _COLLECTING_SILENCE_SECONDS if tells_files else None

    async def remove(self) -> None:
        """Leave nothing of it alive."""
        await remove_for_sure(self._kube, self._namespace, self._name, self._uid)


async def remove_for_sure(kube: Kube, namespace: str, name: str, uid: str) -> None:
    """Like `remove_job`, but try again while the server refuses: what it keeps may be alive."""
    while True:
        try:
            await remove_job(kube, namespace, name, uid)
        except ApiError as error:
            log.warning("a Job cannot be deleted, and its attempt goes on", job=name, reason=str(error))
            await asyncio.sleep(_REFUSED_SECONDS)
        else:
            return


async def remove_job(kube: Kube, namespace: str, name: str, uid: str = "") -> bool:
    """Delete the Job `uid` (empty: the one that says that it is the attempt's), and wait until nothing of it is alive.
    Whether it was there.

    Nothing is told of an attempt before that, so it goes on while the API server is away or a node does not answer.
    Raises the `ApiError` of a server that refuses.
    """
    pause = _SHORTEST
    options: dict[str, Any] = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Foreground"}
    asked = False
    while True:
        try:
            found = await kube.get(JOBS, namespace, name)
            metadata = found["metadata"]
            if not uid and is_of_attempt(found):
                uid = metadata["uid"]
            if metadata["uid"] != uid or (asked and await _is_dead(kube, namespace, found)):
                return asked
            if not asked:
                path = JOBS.path(namespace, name)
                await kube.request("DELETE", path, body={**options, "preconditions": {"uid": uid}})
                asked = True
                continue
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return asked
            if not error.retryable:
                raise
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST)


async def _is_dead(kube: Kube, namespace: str, job: Object) -> bool:
    """Whether a Job that is to go stays only because somebody else holds it or its pod."""
    selector = f"batch.kubernetes.io/controller-uid={job['metadata']['uid']}"
    pods = await kube.list(PODS, namespace, label_selector=selector)
    return bool(pods) and all(look(pod).over for pod in pods)


def _told_by(job: Mapping[str, Any] | None) -> Outcome | None:
    """How a Job without a pod ended, as far as it tells."""
    if job is None:
        return Outcome(ExitReason.INTERRUPTED, "its Job was deleted by somebody else, and nobody saw how it ended")
    for condition in (job.get("status") or {}).get("conditions") or []:
        if condition["status"] == "True" and condition["type"] == "Complete":
            text = "completed, while no operator was there; its pod is gone, and its output with it"
            return Outcome(ExitReason.COMPLETED, text, 0)
        if condition["status"] == "True" and condition["type"] == "Failed":
            why = condition.get("message") or condition.get("reason") or "it failed"
            return Outcome(ExitReason.INTERRUPTED, f"its pod is gone, and nobody saw how it ended: {why}")
    return None
