"""Reads the output of pods from the API server with the reader's own permissions (`list pods`, `get pods/log`)."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import re
from collections import deque
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from remit.agent.logs import LogChunk, Reading, Wanted
from remit.api.controllerref import controller_of
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.api.slots import Slot
from remit.backends.kubernetes.labels import ATTEMPT
from remit.backends.kubernetes.manifests import CONTAINER, job_name
from remit.backends.kubernetes.records import Records
from remit.errors import ApiError
from remit.kube.client import PODS, Kube, Object
from remit.release.targets.kubernetes.identity import CONTAINER as INSTANCE_CONTAINER
from remit.release.targets.kubernetes.identity import SLOT, WorkloadIdentity

FORBIDDEN: Final = 403
NOT_STARTED: Final = 400
"""What the server answers where a pod's container has not started yet."""
_NOT_FOUND: Final = 404
NOTHING_THERE: Final = frozenset({NOT_STARTED, _NOT_FOUND})
_SILENCE_SECONDS: Final = 300.0
"""After which a log that says nothing is asked for anew."""
_PAUSE_SECONDS: Final = 1.0
_LONGEST_LINE: Final = 64 << 10
"""Bytes of an instance's line. A longer one is given in pieces."""
_STAMP: Final = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of what a program wrote. `moment` is when, in seconds since 1970, where it is known."""

    stream: Stream
    data: bytes
    moment: float | None


Pieces = AsyncGenerator[list[LogPiece], None]
"""First all that is there, in one list, which may be empty; then what comes."""


class PushedReader:
    """A `Reader` of what a connection brings: what was put comes out."""

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


def dispatch(batch: list[LogPiece], readers: Mapping[Stream, PushedReader]) -> None:
    """Give each piece to the reader of its stream; without one, it is dropped."""
    for piece in batch:
        if piece.stream in readers:
            readers[piece.stream].put(piece.data, piece.moment)


async def lines(
    pieces: Pieces, wanted: Wanted, *, attempt: int = 0, source: str = ""
) -> AsyncGenerator[LogChunk, None]:
    """Yield the wanted lines. Raises as they do."""
    readers = {stream: PushedReader() for stream in wanted.streams}
    reading = Reading(readers, attempt, wanted, source)
    async with contextlib.aclosing(pieces):
        async for batch in pieces:
            dispatch(batch, readers)
            async for chunk in reading.news(at_end=False):
                yield chunk
    async for chunk in reading.news(at_end=True):
        yield chunk


async def pod_of_attempt(kube: Kube, task: ExecutionTask, attempt: AttemptStatus) -> Object | None:
    """The pod of an attempt's Job; None where there is none. Raises `ApiError`."""
    if attempt.backend != "kubernetes":
        return None
    labelled = await kube.list(PODS, task.metadata.namespace, label_selector=f"{ATTEMPT}={attempt.id}")
    # Any user who may create a pod may give it this label, so the owner reference is checked too.
    pods = [each for each in labelled if controller_of(each, "batch/v1", "Job") == job_name(attempt.id)]
    return max(pods, key=lambda each: str(each["metadata"].get("creationTimestamp", "")), default=None)


async def pods_of_release(kube: Kube, deployment: Object, side: Slot | None = None) -> Mapping[str, Object]:
    """The pods of a Deployment whose target is Kubernetes, by their names. Raises `ApiError`, and `DeploymentError` for
    a name that no Service can have."""
    identity = identity_of(deployment)
    selector = identity.selector + (f",{SLOT}={side}" if side else "")
    found = await kube.list(PODS, identity.place, label_selector=selector)
    return dict(sorted((str(pod["metadata"]["name"]), pod) for pod in found))


def identity_of(deployment: Object) -> WorkloadIdentity:
    """The identity of a Deployment on Kubernetes. Raises `DeploymentError` for a name that no Service can have."""
    metadata = deployment["metadata"]
    place = deployment["spec"]["target"]["kubernetes"].get("namespace") or metadata["namespace"]
    return WorkloadIdentity(metadata["namespace"], metadata["name"], metadata["uid"], place)


@dataclass
class JobLog:
    """The log of an attempt's pod, which has both streams of the program in it. With `most_bytes`, no more is given of
    what is there at first than its end of that size."""

    kube: Kube
    pod: Object
    most_bytes: int | None = None
    records: Records = field(default_factory=Records)

    async def pieces(self, *, follow: bool) -> Pieces:
        """The pieces of the log; with `follow`, until the program has ended or the pod is gone. Raises `ApiError`."""
        while True:
            before = self.records.last
            going_on = follow and before != ""
            first: deque[LogPiece] = deque()
            size = 0
            async with contextlib.aclosing(self._read(follow=going_on)) as reading:
                async for batch in reading:
                    if going_on:
                        yield batch
                        continue
                    first += batch
                    size += sum(len(said.data) for said in batch)
                    while self.most_bytes is not None and size > self.most_bytes:
                        size -= len(first.popleft().data)
            if not going_on:
                yield list(first)
            if not follow or self.is_whole or not await _goes_on(self.kube, self.pod):
                return
            self.records.again()
            if self.records.last == before:
                await asyncio.sleep(_PAUSE_SECONDS)

    @property
    def is_whole(self) -> bool:
        """Whether its end was read."""
        return self.records.ended is not None

    @property
    def complaint(self) -> str:
        """The message of the container runtime in place of the program's output."""
        unexpected = self.records.unexpected if self.records.ended is None else b""
        return unexpected.decode(errors="replace").strip()

    async def _read(self, *, follow: bool) -> Pieces:
        since = self.records.since if self.records.last else None
        async with contextlib.aclosing(_chunks(self.kube, self.pod, CONTAINER, follow=follow, since=since)) as chunks:
            async for chunk in chunks:
                batch = []
                for line in chunk.splitlines(keepends=True):
                    for stream, said in self.records.feed(line):
                        batch.append(LogPiece(stream, said, _seconds(self.records.last)))
                yield batch
                if self.is_whole:
                    return


async def instance_log(
    kube: Kube, pod: Object, *, follow: bool, previous: bool = False, tail: int | None = None
) -> Pieces:
    """Yield the output of an instance of a release to Kubernetes, or of what is there at first the last `tail` lines.
    Both of its streams are one. With `follow`, until the pod is over or gone. Raises `ApiError`."""
    last: float | None = None
    going_on = False
    while True:
        since = None if last is None else f"{datetime.datetime.fromtimestamp(last, datetime.UTC):%FT%TZ}"
        asked = {"previous": "true"} if previous else {}
        asked |= {"tailLines": str(tail)} if tail is not None and last is None else {}
        chunks = _chunks(kube, pod, INSTANCE_CONTAINER, follow=going_on, since=since, **asked)
        rest, known, first = b"", last, list[LogPiece]()
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                *whole, rest = (rest + chunk).split(b"\n")
                if len(rest) > _LONGEST_LINE:
                    whole, rest = [*whole, rest], b""
                batch = []
                for line in whole:
                    moment, said = _stamped(line)
                    if known is None or moment is None or moment > known:
                        last = moment or last
                        batch.append(LogPiece("stdout", said + b"\n", moment))
                if going_on:
                    yield batch
                else:
                    first += batch
        if not going_on:
            yield first
        if not follow or previous:
            return
        if going_on:
            if not await _goes_on(kube, pod):
                return
            if last == known:
                await asyncio.sleep(_PAUSE_SECONDS)
        going_on = True  # the first round reads existing output, of which the caller may want only the end


async def _goes_on(kube: Kube, pod: Object) -> bool:
    metadata = pod["metadata"]
    try:
        now = await kube.get(PODS, metadata["namespace"], metadata["name"])
    except ApiError as error:
        if error.status == _NOT_FOUND:
            return False
        raise
    return bool(now["metadata"]["uid"] == metadata["uid"]) and now["status"].get("phase") in {"Pending", "Running"}


async def _chunks(
    kube: Kube, pod: Object, container: str, *, follow: bool, since: str | None, **asked: str
) -> AsyncGenerator[bytes, None]:
    metadata = pod["metadata"]
    params = {"container": container, "timestamps": "true", "follow": str(follow).lower(), **asked}
    params |= {"sinceTime": since} if since else {}
    path = PODS.path(metadata["namespace"], metadata["name"], "log")
    try:
        async with contextlib.aclosing(kube.stream(path, params=params, silence_seconds=_SILENCE_SECONDS)) as stream:
            async for chunk in stream:
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
