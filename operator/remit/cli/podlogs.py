"""The logs of pods, read from the API server with the reader's own permissions (`get pods/log`)."""

from __future__ import annotations

import asyncio
import datetime
import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from remit.api import ExecutionTask
from remit.api.controllerref import controller_of
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.backends.kubernetes.labels import ATTEMPT
from remit.backends.kubernetes.manifests import CONTAINER, job_name
from remit.backends.kubernetes.records import Records
from remit.cli.follow import Selection, Shown
from remit.cli.terminal import LogWriter
from remit.errors import ApiError, RemitError
from remit.kube.client import PODS, Kube, Object
from remit.release.targets.kubernetes.identity import CONTAINER as INSTANCE_CONTAINER

_FORBIDDEN, _NOT_FOUND, _BAD_REQUEST = 403, 404, 400
_SILENCE_SECONDS: Final = 300.0
"""After which a log that says nothing is asked for anew."""
_PAUSE_SECONDS: Final = 1.0
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


class PushedReader:
    """What was put comes out: a `Reader` of what a connection brings."""

    def __init__(self) -> None:
        self.gaps = self.position = 0
        self._pieces: deque[tuple[bytes, float | None]] = deque()
        self._moment: float | None = None

    def put(self, data: bytes, moment: float | None) -> None:
        self._pieces.append((data, moment))

    def read(self, limit: int = 0) -> bytes:
        """The next piece, whole."""
        if not self._pieces:
            return b""
        data, self._moment = self._pieces.popleft()
        self.position += len(data)
        return data

    def moment(self, position: int) -> float | None:
        """When the piece that was read last came."""
        return self._moment

    def close(self) -> None:
        """Nothing is open."""


async def show(
    kube: Kube,
    task: ExecutionTask,
    attempt: AttemptStatus,
    screen: LogWriter,
    selection: Selection,
    *,
    follow: bool,
    tell: Callable[[str], None],
) -> bool:
    """Show the output of an attempt from its Job's pod. False where there is none, or where it may not be read.

    Raises `ApiError` where the server does not answer.
    """
    if attempt.backend != "kubernetes":
        return False
    namespace = task.metadata.namespace
    try:
        labelled = await kube.list(PODS, namespace, label_selector=f"{ATTEMPT}={attempt.id}")
        pods = [each for each in labelled if controller_of(each, "batch/v1", "Job") == job_name(attempt.id)]
        if not pods:
            return False
        pod = max(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")))
        await _JobLog(kube, pod, screen, selection, tell).show(follow=follow)
    except ApiError as error:
        if error.status == _FORBIDDEN:
            tell(f"the log of the pod of attempt {attempt.number} may not be read: {error}")
        if error.status in {_FORBIDDEN, _NOT_FOUND, _BAD_REQUEST}:  # gone by now, or not started yet
            return False
        raise
    return True


@dataclass
class _JobLog:
    """The log of an attempt's pod, which has both streams of the program in it."""

    kube: Kube
    pod: Object
    screen: LogWriter
    selection: Selection
    tell: Callable[[str], None]

    def __post_init__(self) -> None:
        self._records = Records()
        self._readers = {stream: PushedReader() for stream in self.screen.streams}
        self._shown = Shown(self._readers, self.screen, self.selection, self.tell)

    async def show(self, *, follow: bool) -> None:
        """Raises as `Kube.stream` does."""
        is_told = False
        while True:
            before = self._records.last
            await self._read(follow=follow and before != "")
            if self._records.last and not is_told:
                self.tell("[from the pod's log, in which secrets are not redacted]")
                is_told = True
            self._shown.advance()
            if not follow or self._records.ended is not None or not await self._goes_on():
                break
            self._records.again()
            if self._records.last == before:
                await asyncio.sleep(_PAUSE_SECONDS)
        self._shown.close()
        if self._records.unexpected and self._records.ended is None:
            self.tell(self._records.unexpected.decode(errors="replace").strip())

    async def _read(self, *, follow: bool) -> None:
        async for chunk in _chunks(self.kube, self.pod, CONTAINER, follow=follow, since=self._since()):
            for line in chunk.splitlines(keepends=True):
                for stream, said in self._records.feed(line):
                    if stream in self._readers:
                        self._readers[stream].put(said, _seconds(self._records.last))
            if follow:
                self._shown.advance()
            if self._records.ended is not None:
                return

    def _since(self) -> str | None:
        return self._records.since if self._records.last else None

    async def _goes_on(self) -> bool:
        metadata = self.pod["metadata"]
        try:
            pod = await self.kube.get(PODS, metadata["namespace"], metadata["name"])
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return False
            raise
        return bool(pod["metadata"]["uid"] == metadata["uid"]) and pod["status"].get("phase") in {"Pending", "Running"}


@dataclass(frozen=True, slots=True)
class PodSource:
    """The instance of a release to Kubernetes. What it wrote to both streams is one."""

    label: str
    kube: Kube
    pod: Object
    previous: bool

    async def show(self, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]) -> None:
        """See `Source.show`."""
        reader = PushedReader()
        stream: Stream = screen.streams[0]
        shown = Shown({stream: reader}, screen, selection, tell)
        follow = follow and not self.previous
        last: float | None = None
        try:
            # First what is there, of which perhaps only the end is wanted.
            for going_on in (False, True) if follow else (False,):
                since = None if last is None else f"{datetime.datetime.fromtimestamp(last, datetime.UTC):%FT%TZ}"
                chunks = _chunks(
                    self.kube, self.pod, INSTANCE_CONTAINER, follow=going_on, since=since, previous=self.previous
                )
                rest, known = b"", last
                async for chunk in chunks:
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        moment, said = _stamped(line)
                        if known is None or moment is None or moment > known:
                            last = moment or last
                            reader.put(said + b"\n", moment)
                    if going_on:
                        shown.advance()
                shown.advance()
        except ApiError as error:
            raise RemitError(f"the log of {self.label} cannot be read: {error}") from None
        shown.close()


async def _chunks(
    kube: Kube, pod: Object, container: str, *, follow: bool, since: str | None, previous: bool = False
) -> Any:
    metadata = pod["metadata"]
    params = {"container": container, "timestamps": "true", "follow": str(follow).lower()}
    params |= {"sinceTime": since} if since else {}
    params |= {"previous": "true"} if previous else {}
    path = PODS.path(metadata["namespace"], metadata["name"], "log")
    try:
        async for chunk in kube.stream(path, params=params, silence_seconds=_SILENCE_SECONDS):
            yield chunk
    except (aiohttp.ClientError, TimeoutError) as error:
        if not follow:
            raise ApiError(
                f"the log of pod {metadata['name']} broke off: {error}", status=503, reason="ServiceUnavailable"
            ) from None


def _stamped(line: bytes) -> tuple[float | None, bytes]:
    """The moment at the beginning of a line, and the rest."""
    found = _STAMP.match(line)
    return (None, line) if found is None else (_seconds(found[0].decode().strip()), line[found.end() :])


def _seconds(stamp: str) -> float | None:
    return datetime.datetime.fromisoformat(stamp).timestamp() if stamp else None
