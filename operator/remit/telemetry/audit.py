"""The audit trail: append-only JSON lines, each of which carries the hash of the one before.

A line is `{"seq": …, "time": …, "kind": …, …, "prev": …, "hash": …}`. `hash` is the SHA-256 of the line's own bytes up
to the comma before `"hash"`, so an edit, a gap or another order is found without any canonical form. The chain shows
that lines belong together, not that the end is there: keep a copy of the head (`Anchor`) elsewhere to see a cut tail.
A file that continues another one starts with the other's head as its `prev`.

`append` returns once the record is on disk. When it cannot be, it raises `AuditUnavailable`, and the caller must not do
what it could not record.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import orjson

from remit.errors import AuditUnavailable
from remit.telemetry.redact import Redactor

_HASH_FIELD: Final = b',"hash":"'
_HASH_END: Final = b'"}'
_TAIL_BLOCK: Final = 65536


class Anchor(NamedTuple):
    """A place in the chain: the number and the hash of a record."""

    seq: int
    hash: str


GENESIS: Final = Anchor(0, "0" * 64)
"""Before the first record."""


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """A decision, or one step of an execution. What is not known stays unset and is left out of the line."""

    kind: Literal["decision", "execution", "recovery"]
    namespace: str = ""
    task: str = ""
    uid: str = ""
    who: str = ""
    """The user or service account that asked."""
    attempt: str = ""
    argv: Sequence[str] = ()
    executable: str = ""
    """As written."""
    resolved: str = ""
    """The absolute path that ran or would have run."""
    policy: str = ""
    rule: str = ""
    verdict: str = ""
    """Allowed or Denied; for an execution, Started or how it ended."""
    reason: str = ""
    message: str = ""
    backend: str = ""
    exit_code: int | None = None
    usage: Mapping[str, float] = field(default_factory=dict)
    output_digest: str = ""
    """`sha256:` and the digest of everything that was written to standard output and error."""

    def as_record(self) -> dict[str, Any]:
        """What is set, by name."""
        return {name: value for name, value in vars(self).items() if value not in ("", None, (), [], {})}


class AuditLog:
    """The open trail. One process at a time may hold it; any of its threads may append.

    Records that are waiting are written and synced together, so that many callers share one fsync.
    """

    def __init__(
        self,
        path: Path,
        *,
        redactor: Redactor | None = None,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        """Open `path` or create it, mode 0600, and mend a line that a crash left unfinished.

        Raises `AuditUnavailable` when it cannot be written, is held by another process, or does not end in a sound
        record.
        """
        self.path = path
        self._redactor = redactor or Redactor()
        self._clock = clock
        self._waiting: list[tuple[AuditEvent, Future[Anchor]]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._broken: str | None = None
        self._descriptor = _open(path)
        try:
            self._head, self._size, dropped = _recover(self._descriptor, path)
        except BaseException:
            os.close(self._descriptor)
            raise
        self._writer = threading.Thread(target=self._write_all, name="remit-audit", daemon=True)
        self._writer.start()
        if dropped:
            message = f"dropped {dropped} bytes of a record that a crash left unfinished"
            self.append(AuditEvent(kind="recovery", message=message))

    @property
    def head(self) -> Anchor:
        """The last record on disk."""
        return self._head

    def append(self, event: AuditEvent) -> Anchor:
        """Record `event`; back when it is on disk. Raises `AuditUnavailable`. Blocks: not for an event loop."""
        return self._submit(event).result()

    async def append_async(self, event: AuditEvent) -> Anchor:
        """`append` for an event loop. Cancelling the wait does not take the record back."""
        return await asyncio.wrap_future(self._submit(event))

    def check(self) -> str | None:
        """For a health check: None, or why nothing can be recorded any more."""
        return self._broken

    def close(self) -> None:
        """Write what is waiting and let go of the file."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._writer.join()
        os.close(self._descriptor)

    def __enter__(self) -> AuditLog:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, event: AuditEvent) -> Future[Anchor]:
        future: Future[Anchor] = Future()
        future.set_running_or_notify_cancel()
        with self._wake:
            if self._closing:
                raise AuditUnavailable(f"audit trail {self.path} is closed")
            self._waiting.append((event, future))
            self._wake.notify()
        return future

    def _write_all(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._waiting or self._closing)
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            self._write(batch)

    def _write(self, batch: list[tuple[AuditEvent, Future[Anchor]]]) -> None:
        anchors: list[Anchor] = []
        lines: list[bytes] = []
        try:
            for event, _ in batch:
                line, anchor = _line(event, anchors[-1] if anchors else self._head, self._clock(), self._redactor)
                lines.append(line)
                anchors.append(anchor)
            self._put(b"".join(lines))
        except Exception as error:
            failure = error if isinstance(error, AuditUnavailable) else AuditUnavailable(f"{self._where}: {error}")
            for _, future in batch:
                future.set_exception(failure)
            return
        self._head = anchors[-1]
        for (_, future), anchor in zip(batch, anchors, strict=True):
            future.set_result(anchor)

    def _put(self, data: bytes) -> None:
        if self._broken:
            raise AuditUnavailable(self._broken)
        self._check_untouched()
        try:
            _write_fully(self._descriptor, data)
        except OSError as error:  # a full disk can be cleared: take back what was half written and stay usable
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self._broken = f"{self._where}: {error}; restart to recover"
            raise
        try:
            os.fsync(self._descriptor)
        except OSError as error:  # after a failed fsync nobody knows what is on disk, so there is no carrying on
            self._broken = f"{self._where}: sync failed: {error}; restart to recover"
            raise AuditUnavailable(self._broken) from error
        self._size += len(data)

    def _check_untouched(self) -> None:
        held = os.fstat(self._descriptor)
        try:
            named = self.path.stat()
        except FileNotFoundError:
            named = None
        if named is None or (named.st_dev, named.st_ino) != (held.st_dev, held.st_ino):
            self._broken = f"{self._where}: the file was moved or removed; restart to start a new one"
        elif held.st_size != self._size:
            self._broken = f"{self._where}: somebody else wrote to it; run `remit audit verify`, then restart"
        if self._broken:
            raise AuditUnavailable(self._broken)

    @property
    def _where(self) -> str:
        return f"audit trail {self.path} cannot be written"


def parse_line(line: bytes) -> tuple[dict[str, Any], bool]:
    """A record and whether its hash is right. Raises `ValueError` when it is no record at all."""
    record = orjson.loads(line)
    if not isinstance(record, dict) or not isinstance(record.get("seq"), int):
        raise ValueError("not an audit record")  # noqa: TRY004  (as orjson does)
    body, found, rest = line.rpartition(_HASH_FIELD)
    return record, bool(found) and rest == hashlib.sha256(body).hexdigest().encode() + _HASH_END


def _line(event: AuditEvent, head: Anchor, now: datetime.datetime, redactor: Redactor) -> tuple[bytes, Anchor]:
    record = {
        "seq": head.seq + 1,
        "time": now.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "kind": event.kind,
        **{name: _encodable(redactor.scrub(value)) for name, value in event.as_record().items() if name != "kind"},
        "prev": head.hash,
    }
    body = orjson.dumps(record)[:-1]
    digest = hashlib.sha256(body).hexdigest()
    return body + _HASH_FIELD + digest.encode() + _HASH_END + b"\n", Anchor(head.seq + 1, digest)


def _encodable(value: Any) -> Any:
    """Arguments may be any bytes; what is not Unicode is written as an escape."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    return {key: _encodable(item) for key, item in value.items()} if isinstance(value, dict) else value


def _write_fully(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise AuditUnavailable(f"audit trail {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with contextlib.closing(_Directory(path.parent)) as directory:
            os.fsync(directory.descriptor)
    except OSError as error:
        os.close(descriptor)
        why = "another process holds it" if isinstance(error, BlockingIOError) else error.strerror
        raise AuditUnavailable(f"audit trail {path} cannot be opened: {why}") from error
    return descriptor


class _Directory:
    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def close(self) -> None:
        os.close(self.descriptor)


def _recover(descriptor: int, path: Path) -> tuple[Anchor, int, int]:
    """The head, the size in bytes, and how many bytes of an unfinished line were dropped."""
    size = os.fstat(descriptor).st_size
    if not size:
        return GENESIS, 0, 0
    start, tail = _last_line(descriptor, size)
    dropped = 0
    if not tail.endswith(b"\n"):
        with contextlib.suppress(ValueError):
            if parse_line(tail)[1]:  # all but its newline was written
                _write_fully(descriptor, b"\n")
                os.fsync(descriptor)
                return _anchor(tail), size + 1, 0
        dropped = len(tail)
        os.ftruncate(descriptor, start)
        os.fsync(descriptor)
        size = start
        if not size:
            return GENESIS, 0, dropped
        _, tail = _last_line(descriptor, size)
    with contextlib.suppress(ValueError):
        if parse_line(tail.rstrip(b"\n"))[1]:
            return _anchor(tail), size, dropped
    raise AuditUnavailable(
        f"audit trail {path} does not end in a sound record: run `remit audit verify`, then move the file away"
    )


def _anchor(line: bytes) -> Anchor:
    record = orjson.loads(line)
    return Anchor(record["seq"], record["hash"])


def _last_line(descriptor: int, size: int) -> tuple[int, bytes]:
    """Where the last line starts, and its bytes, newline included when there is one."""
    start, data = size, b""
    while start:
        step = min(_TAIL_BLOCK, start)
        start -= step
        data = os.pread(descriptor, step, start) + data
        newline = data.rfind(b"\n", 0, len(data) - 1)
        if newline >= 0:
            return start + newline + 1, data[newline + 1 :]
    return 0, data
