"""The audit trail: an append-only file of chained records.

`append` returns once the record is on disk. When it cannot be, it raises `AuditUnavailable`, and the caller must not do
what it could not record.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import fcntl
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Final, Protocol

import structlog

from remit.errors import AuditUnavailable
from remit.privatefiles import untrusted_owner
from remit.telemetry.chain import GENESIS, Anchor, AuditEvent, encode, parse_line
from remit.telemetry.redact import Redactor
from remit.telemetry.segments import number_after, segment, segments

log = structlog.get_logger(__name__)

_TAIL_BLOCK: Final = 65536
MAX_BYTES: Final = 64 * 1024**2
"""Limit of one file, at which it is closed and the next one begins."""
HANG_SECONDS: Final = 30.0
"""After which a write that has not returned counts as failed. What it wrote may still come on record."""
RETRY_SECONDS: Final = 5.0
"""How often a trail that could not be written is tried again."""
_FLAGS: Final = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class Observer(Protocol):
    """Is told what was written, in the trail's own thread: must be quick. What it raises is dropped."""

    def written(self, records: int) -> None:
        """Called when `records` more records are on disk."""

    def closed(self, file: Path, head: Anchor) -> None:
        """`file`, which ends with `head`, is complete; the trail goes on in a new one."""


class AuditLog:
    """The open trail. One process at a time may hold it; any of its threads may append.

    Records that are waiting are written and synced together, so that many callers share one fsync.
    """

    def __init__(
        self,
        path: Path,
        *,
        redactor: Redactor | None = None,
        max_bytes: int = MAX_BYTES,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
        observer: Observer | None = None,
    ) -> None:
        """Open `path` or create it, mode 0600, and mend a line that a crash left unfinished.

        Raises `AuditUnavailable` when it cannot be written, is held by another process, or does not end in a sound
        record.
        """
        self.path = path
        self._redactor = redactor or Redactor()
        self._clock = clock
        self._observer = observer
        self._waiting: list[tuple[AuditEvent, Future[Anchor]]] = []
        self._wake = threading.Condition()
        self._closing = False
        self._broken: str | None = None
        self._failing: str | None = None
        self._ended: str | None = None
        self._writing_since: float | None = None
        self._max_bytes = max_bytes
        self._descriptor = _open(path)
        try:
            self._number = _number(self._descriptor, path)
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
        try:
            return self._submit(event).result(HANG_SECONDS)
        except TimeoutError:
            raise AuditUnavailable(self._hang) from None

    async def append_async(self, event: AuditEvent) -> Anchor:
        """`append` for an event loop. Cancelling the wait does not take the record back."""
        written = asyncio.wrap_future(self._submit(event))
        try:
            async with asyncio.timeout(HANG_SECONDS):
                return await written
        except TimeoutError:
            raise AuditUnavailable(self._hang) from None

    def check(self) -> str | None:
        """Health check: why nothing can be recorded now, or None. It recovers by itself when there is space again."""
        return self._broken or self._hangs() or self._failing

    def check_writer(self) -> str | None:
        """Health check: why the writer has ended, or None. Only a restart mends that."""
        return self._ended

    def close(self) -> None:
        """Write what is waiting and let go of the file. A disk that hangs is left with it after `HANG_SECONDS`."""
        with self._wake:
            if self._closing:
                return
            self._closing = True
            self._wake.notify()
        self._writer.join(HANG_SECONDS)
        if self._writer.is_alive():  # the file cannot be closed while the writer uses it
            log.error("the audit trail was not closed: its disk hangs", path=str(self.path), records=len(self._waiting))
        else:
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
            if unavailable := self._ended or self._hangs():
                raise AuditUnavailable(unavailable)
            self._waiting.append((event, future))
            self._wake.notify()
        return future

    def _write_all(self) -> None:
        """The writer's thread. Whatever ends it, nobody goes on waiting for it, and nothing more is taken."""
        batch: list[tuple[AuditEvent, Future[Anchor]]] = []
        try:
            while True:
                with self._wake:
                    retry = RETRY_SECONDS if self._failing and not self._broken else None
                    self._wake.wait_for(lambda: self._waiting or self._closing, retry)
                    batch, self._waiting = self._waiting, []
                if not batch:
                    if self._closing:
                        return
                    batch = [(AuditEvent(kind="recovery", message=f"writable again: {self._failing}"), Future())]
                self._writing_since = time.monotonic()
                self._write(batch)
                self._writing_since = None
        except BaseException as error:
            with self._wake:
                ended = f"{self._where}: its writer ended by {type(error).__name__}; restart to recover"
                self._broken = self._ended = ended
                batch, self._waiting = [*batch, *self._waiting], []
            for _, future in batch:
                if not future.done():
                    future.set_exception(AuditUnavailable(ended))

    def _hangs(self) -> str | None:
        since = self._writing_since
        return self._hang if since is not None and time.monotonic() - since >= HANG_SECONDS else None

    def _write(self, batch: list[tuple[AuditEvent, Future[Anchor]]]) -> None:
        try:
            if self._size >= self._max_bytes:
                self._rotate()
        except Exception as error:
            self._fail([future for _, future in batch], error)
            return
        head = self._head
        lines: list[bytes] = []
        written: list[tuple[Future[Anchor], Anchor]] = []
        for event, future in batch:
            try:
                line, head = encode(event, head, self._clock(), self._redactor)
            # Also for an event that is nested too deeply, or too large for the available memory.
            except Exception as error:
                why = str(error) or type(error).__name__
                future.set_exception(AuditUnavailable(f"an event cannot be recorded: {why}"))
            else:
                lines.append(line)
                written.append((future, head))
        try:
            self._put(b"".join(lines))
        except Exception as error:
            self._fail([future for future, _ in written], error)
            return
        self._head, self._failing = head, None
        for future, anchor in written:
            future.set_result(anchor)
        self._tell(lambda observer: observer.written(len(written)))

    def _tell(self, what: Callable[[Observer], None]) -> None:
        if self._observer:
            with contextlib.suppress(Exception):
                what(self._observer)

    def _fail(self, futures: list[Future[Anchor]], error: Exception) -> None:
        failure = error if isinstance(error, AuditUnavailable) else AuditUnavailable(f"{self._where}: {error}")
        self._failing = str(failure)
        for future in futures:
            future.set_exception(failure)

    def _rotate(self) -> None:
        """Close the file under its number and begin the next. There is never a moment without `path`: killed in
        between, the file has two names, and the next start takes the second one back."""
        if self._broken:
            raise AuditUnavailable(self._broken)
        self._check_untouched()
        closed, coming = segment(self.path, self._number), self.path.with_name(f".{self.path.name}.next")
        event = AuditEvent(kind="segment", follows=closed.name)
        line, head = encode(event, self._head, self._clock(), self._redactor)
        coming.unlink(missing_ok=True)
        descriptor = os.open(coming, _FLAGS | os.O_EXCL, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _write_fully(descriptor, line)
            os.fsync(descriptor)
            os.link(self.path, closed)
            coming.rename(self.path)
        except BaseException:
            os.close(descriptor)
            coming.unlink(missing_ok=True)
            raise
        old, self._descriptor, end = self._descriptor, descriptor, self._head
        self._head, self._size, self._number = head, len(line), self._number + 1
        os.close(old)
        try:
            _sync_directory(self.path.parent)
        except OSError as error:
            self._broken = f"{self._where}: sync failed: {error}; restart to recover"
            raise AuditUnavailable(self._broken) from error
        self._tell(lambda observer: observer.written(1))
        self._tell(lambda observer: observer.closed(closed, end))

    def _put(self, data: bytes) -> None:
        if self._broken:
            raise AuditUnavailable(self._broken)
        self._check_untouched()
        try:
            _write_fully(self._descriptor, data)
        except BaseException as error:  # a full disk can be freed: remove the partial line and stay usable
            try:
                os.ftruncate(self._descriptor, self._size)
            except OSError:
                self._broken = f"{self._where}: {error}; restart to recover"
            raise
        try:
            os.fsync(self._descriptor)
        # After a failed fsync the content of the disk is unknown, so the trail cannot continue.
        except BaseException as error:
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
    def _hang(self) -> str:
        return f"{self._where}: the disk has not answered for {HANG_SECONDS:g} s"

    @property
    def _where(self) -> str:
        return f"audit trail {self.path} cannot be written"


def _write_fully(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if wrong := untrusted_owner(path.parent):
            raise AuditUnavailable(f"the audit trail cannot be kept there: {wrong}")
        if not path.exists() and segments(path):
            raise AuditUnavailable(
                f"audit trail {path} is gone, and older files of it are there: put it back, or move all of them away"
            )
        descriptor = os.open(path, _FLAGS, 0o600)
    except OSError as error:
        raise AuditUnavailable(f"audit trail {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise BlockingIOError  # the holder of the lock began the next file meanwhile
        _sync_directory(path.parent)
    except OSError as error:
        os.close(descriptor)
        why = "another process holds it" if isinstance(error, BlockingIOError) else error.strerror
        raise AuditUnavailable(f"audit trail {path} cannot be opened: {why}") from error
    return descriptor


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _number(descriptor: int, path: Path) -> int:
    """The number of this file in the trail, from 1. Undoes a closing that a crash interrupted."""
    held = os.fstat(descriptor)
    if not held.st_size and segments(path):
        raise AuditUnavailable(f"audit trail {path} was emptied: run `remit audit verify`, then move all of it away")
    with path.open("rb") as lines:
        try:
            record, _ = parse_line(lines.readline().rstrip(b"\n"))
        except ValueError:
            record = {}
    number = number_after(path, str(record.get("follows", "")))
    closed = segment(path, number)
    if closed.exists() and os.path.samestat(closed.stat(), held):
        closed.unlink()
    return number


def _recover(descriptor: int, path: Path) -> tuple[Anchor, int, int]:
    """The head, the size in bytes, and how many bytes of an unfinished line were dropped."""
    size = os.fstat(descriptor).st_size
    if not size:
        return GENESIS, 0, 0
    start, tail = _last_line(descriptor, size)
    dropped = 0
    if not tail.endswith(b"\n"):
        with contextlib.suppress(ValueError):
            if parse_line(tail)[1]:  # the line was written except for its newline
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


def last_record(path: Path) -> Anchor | None:
    """The last record of a closed file; None where that is not sound. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        size = os.fstat(descriptor).st_size
        _, line = _last_line(descriptor, size) if size else (0, b"")
        with contextlib.suppress(ValueError):
            if parse_line(line.rstrip(b"\n"))[1]:
                return _anchor(line)
        return None
    finally:
        os.close(descriptor)


def _anchor(line: bytes) -> Anchor:
    record, _ = parse_line(line.rstrip(b"\n"))
    return Anchor(record["seq"], record["hash"])


def _last_line(descriptor: int, size: int) -> tuple[int, bytes]:
    """The start of the last line, and its bytes with the newline, if there is one."""
    start, data = size, b""
    while start:
        step = min(_TAIL_BLOCK, start)
        start -= step
        data = os.pread(descriptor, step, start) + data
        newline = data.rfind(b"\n", 0, len(data) - 1)
        if newline >= 0:
            return start + newline + 1, data[newline + 1 :]
    return 0, data
