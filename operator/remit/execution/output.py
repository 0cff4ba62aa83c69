"""Keeps the output of a run in files of bounded size, with its end in memory and its length counted.

Of each stream the beginning and the end are kept, each up to half of the limit. The end is a ring of segments, so
that a gigabyte of output costs neither memory nor disk. Memory held is the tail shown in status and nothing else.

    stdout.head             the first half
    stdout.1, stdout.2 …    segments of the end; the oldest are removed
    stdout.times            when it came, see `remit.backends.outputtimes`
    redactions              how many times a secret was redacted in these files; not there while that is 0

Raw output, which may have secrets in it, is kept in the same files below `raw/`: a reader that does not look for them
there, such as an earlier version of Remit, cannot show them.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from remit.api.executiontaskstatus import OutputStatus, Stream
from remit.backends.outputtimes import OutputTimes, RecordedTimes
from remit.diskspace import nearly_full
from remit.telemetry.redact import Redactor

STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
Listener = Callable[[Stream, bytes], None]
"""Called with all output as it arrives, with secrets redacted. It must not block."""
_RING = 4
"""Segments of the end that are kept besides the one being written."""
_LOOK_AGAIN_BYTES = 256 << 10
RAW: Final = "raw"
"""The folder of raw output in the directory of a run."""
_REDACTIONS: Final = "redactions"
_LOOKED_AT: Final = 8000
"""Number of bytes at the beginning of a stream that determine whether it looks binary; the same number as in Git."""


@dataclass
class _Kept:
    """One stream's files. A disk that is full, or nearly, stops the keeping, never the program."""

    directory: Path
    name: Stream
    limit: int
    total: int = 0
    segment: int = 0
    room: int = 0
    unseen: int = 0
    """How many bytes are written before the free space of the disk is checked again."""
    file: BinaryIO | None = None
    full_disk: bool = False

    def __post_init__(self) -> None:
        self.times = OutputTimes(_times_file(self.directory, self.name))

    def write(self, chunk: bytes) -> None:
        if chunk and self.limit and not self.full_disk:
            self.times.note(self.total)
        self.total += len(chunk)
        view = memoryview(chunk)
        try:
            while view and not self.full_disk:
                if self.unseen <= 0:
                    self.full_disk, self.unseen = nearly_full(self.directory), _LOOK_AGAIN_BYTES
                    continue
                if self.room == 0:
                    self._rotate()
                if self.file is None:
                    return
                part = view[: min(self.room, self.unseen)]
                self.file.write(part)
                self.room -= len(part)
                self.unseen -= len(part)
                view = view[len(part) :]
        except OSError:
            self.full_disk = True

    def _rotate(self) -> None:
        if self.file is not None:
            self.file.close()
            self.segment += 1
            self.file = None
        if self.limit == 0:
            self.full_disk = True
            return
        half = max(1, self.limit // 2)
        self.room = half if self.segment == 0 else segment_bytes(half)
        suffix = "head" if self.segment == 0 else str(self.segment)
        path = self.directory / f"{self.name}.{suffix}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        self.file = os.fdopen(descriptor, "wb", buffering=0)
        if self.segment > _RING:
            (self.directory / f"{self.name}.{self.segment - _RING}").unlink(missing_ok=True)

    @property
    def truncated(self) -> bool:
        return self.full_disk or self.total > self.limit

    def close(self) -> None:
        try:
            if self.file is not None:
                self.file.close()
        except OSError:  # some file systems report a full disk or an exhausted quota only on close
            self.full_disk = True


def segment_bytes(head_bytes: int) -> int:
    """The size of each segment of the end, where the beginning has so many bytes."""
    return max(1, head_bytes // (_RING + 1))


def recorded_times(directory: Path, stream: Stream) -> RecordedTimes:
    """When the output came; positions are those in the whole stream, what was dropped included."""
    return RecordedTimes(_times_file(directory, stream))


def _times_file(directory: Path, stream: Stream) -> Path:
    return directory / f"{stream}.times"


class OutputWriter:
    """Takes a run's output as it comes, takes secrets out, and keeps it. An `OutputSink` for the backends.

    With `raw` the files get the output as it is. The tails, the listener and the digest get it redacted all the same.
    """

    def __init__(
        self,
        directory: Path,
        *,
        max_bytes: int,
        tail_bytes: int,
        redactor: Redactor | None = None,
        listener: Listener | None = None,
        raw: bool = False,
    ) -> None:
        self._listener = listener
        self._tail_bytes = tail_bytes
        self._raw = raw
        self._directory = directory / RAW if raw else directory
        if raw:
            with contextlib.suppress(OSError):  # on an error the output is not kept, as with a full disk
                self._directory.mkdir(mode=0o700, exist_ok=True)
        self._kept = {name: _Kept(self._directory, name, max_bytes) for name in STREAMS}
        self._tails = {name: bytearray() for name in STREAMS}
        self._redact = {name: redactor.stream() for name in STREAMS} if redactor else {}
        self._redactions = 0
        self._first = {name: bytearray() for name in STREAMS}
        self._hash = {name: hashlib.sha256() for name in STREAMS}

    @property
    def digest(self) -> str:
        """Digest of all output, whether it was kept or not, with secrets redacted: `sha256:` over the digests of the
        two streams. A digest of raw output would allow short secrets to be guessed."""
        both = b"".join(self._hash[name].digest() for name in STREAMS)
        return f"sha256:{hashlib.sha256(both).hexdigest()}"

    def write(self, stream: Stream, chunk: bytes) -> None:
        if self._raw:
            self._kept[stream].write(chunk)
        if self._redact:
            chunk = self._redact[stream].feed(chunk)
        self._put(stream, chunk)

    def _put(self, stream: Stream, chunk: bytes) -> None:
        """`chunk` is redacted."""
        self._hash[stream].update(chunk)
        first = self._first[stream]
        if len(first) < _LOOKED_AT:
            first += chunk[: _LOOKED_AT - len(first)]
        if not self._raw:
            self._count_redactions()
            self._kept[stream].write(chunk)
        tail = self._tails[stream]
        tail += chunk[-self._tail_bytes :] if self._tail_bytes else b""
        del tail[: max(0, len(tail) - self._tail_bytes)]
        if self._listener and chunk:
            self._listener(stream, chunk)

    def _count_redactions(self) -> None:
        """Stores the number for a reader of the files after this process was killed."""
        redactions = sum(redactor.replacements for redactor in self._redact.values())
        if redactions == self._redactions:
            return
        self._redactions = redactions
        with contextlib.suppress(OSError):
            descriptor = os.open(self._directory / _REDACTIONS, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                file.write(b"%d" % redactions)  # the number never gets shorter, so nothing has to be truncated

    def close(self) -> OutputStatus:
        """Ends the writing and gives what status says of it."""
        for name, redactor in self._redact.items():
            self._put(name, redactor.finish())
        for kept in self._kept.values():
            kept.close()
        out, err = self._kept["stdout"], self._kept["stderr"]
        return OutputStatus(
            stdout_tail=text_tail(bytes(self._tails["stdout"]), self._tail_bytes),
            stderr_tail=text_tail(bytes(self._tails["stderr"]), self._tail_bytes),
            stdout_bytes=out.total,
            stderr_bytes=err.total,
            truncated=out.truncated or err.truncated,
            raw=self._raw,
            redactions=sum(redactor.replacements for redactor in self._redact.values()),
            redacted_streams=[name for name, redactor in self._redact.items() if redactor.replacements],
            binary_streams=[name for name, first in self._first.items() if looks_binary(bytes(first))],
            ref=str(self._directory),
        )


def recovered(directory: Path, tail_bytes: int) -> OutputStatus:
    """The output that is left of a run whose operator was killed: the files, whose ends are the tails. Those of raw
    output are not shown: they may have secrets in them that are not known any more."""
    raw = (directory / RAW).is_dir()
    if raw:
        directory, tail_bytes = directory / RAW, 0
    tails, sizes, binary = {}, {}, []
    for stream in STREAMS:
        paths, _ = kept_files(directory, stream)
        sizes[stream] = sum(path.stat().st_size for path in paths)
        data = b"".join(_end_of(path, tail_bytes) for path in paths[-2:])
        if paths and looks_binary(_start_of(paths[0])):
            binary.append(stream)
        tails[stream] = text_tail(data[-tail_bytes:] if tail_bytes else b"", tail_bytes)
    return OutputStatus(
        stdout_tail=tails["stdout"],
        stderr_tail=tails["stderr"],
        stdout_bytes=sizes["stdout"],
        stderr_bytes=sizes["stderr"],
        raw=raw,
        redactions=_counted_redactions(directory),
        binary_streams=binary,
        ref=str(directory),
    )


def looks_binary(first: bytes) -> bool:
    """Whether the beginning of a stream has NUL bytes or is no UTF-8; a character may be cut in half at its end."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(first)
    except UnicodeDecodeError:
        return True
    return b"\0" in first


def _start_of(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_LOOKED_AT)


def _end_of(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - count))
        return file.read(count)


def _counted_redactions(directory: Path) -> int:
    try:
        return int((directory / _REDACTIONS).read_bytes())
    except (OSError, ValueError):
        return 0


def text_tail(data: bytes, limit: int) -> str:
    """The end of `data` as text that any JSON reader accepts: a character cut in half at the front is dropped,
    invalid bytes become U+FFFD, and at most `limit` bytes come out."""
    if len(data) == limit:
        start = next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)
        data = data[start:]
    text = data.decode(errors="replace").replace("\0", "\ufffd")
    while len(text.encode()) > limit:
        text = text[(len(text.encode()) - limit + 3) // 4 or 1 :]
    return text


def kept_files(directory: Path, stream: Stream) -> tuple[list[Path], bool]:
    """A stream's files in the order they were written, and whether something between the first two is gone."""
    segments = sorted(
        (path for path in directory.glob(f"{stream}.*") if path.suffix[1:].isdigit()),
        key=lambda path: int(path.suffix[1:]),
    )
    head = directory / f"{stream}.head"
    gap = bool(segments) and segments[0].suffix != ".1"
    return ([head] if head.exists() else []) + segments, gap
