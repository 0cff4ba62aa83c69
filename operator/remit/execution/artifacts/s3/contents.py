"""Contents in object storage, each cut into objects of 8 MiB.

blobs/<first two digits>/<sha256>/<number>      of six digits; an empty content is one empty object
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO, Final, cast

from remit.execution.artifacts.copying import copied
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.failures import Failure, unavailable
from remit.execution.artifacts.stored import Damaged, StoredFile, verified

PART_BYTES: Final = 8 << 20
_AT_ONCE: Final = 4
_WAITING: Final = 8
"""Contents that were copied from the attempt and are being sent, or are about to be."""
_SECONDS: Final = 1500.0
"""Time for all contents of an attempt: less than collecting may take."""


def keys(sha256: str, size: int) -> dict[str, int]:
    """The parts of a content, with the bytes of each."""
    starts = range(0, max(size, 1), PART_BYTES)
    return {f"{_folder(sha256)}/{number:06}": min(PART_BYTES, size - at) for number, at in enumerate(starts)}


def content_of(key: str) -> str:
    """The SHA-256 of the content that an object is a part of."""
    return key.split("/")[2] if key.count("/") == 3 else ""


def read(bucket: Bucket, file: StoredFile) -> BinaryIO:
    """Reads one part after the other. Reading raises `Damaged` instead of the end where it is not what was kept."""
    return verified(cast(BinaryIO, io.BufferedReader(_Parts(bucket, file), 1 << 20)), file)


class Uploads:
    """The contents of one attempt, on their way. Used by one thread."""

    def __init__(self, bucket: Bucket, spool: Path, hold: Callable[[str], None], seconds: float = _SECONDS) -> None:
        """`hold` is called with each content before it is searched."""
        self._bucket, self._spool, self._hold = bucket, spool, hold
        self._until = time.monotonic() + seconds
        self._contents = ThreadPoolExecutor(_AT_ONCE, "artifact")
        self._parts = ThreadPoolExecutor(_AT_ONCE, "artifact-part")
        self._going = dict[Future[None], str]()
        self._sent = set[str]()
        self._closed = threading.Event()

    def put(self, path: str, source: BinaryIO, *, executable: bool, most: int) -> StoredFile:
        copy = TemporaryFile(dir=self._spool)  # noqa: SIM115  # has no name, so nothing of it outlives this process
        try:
            size, digest = copied(source, copy, most, self._spool)
            copy.flush()
            stored = StoredFile(path, size, digest, executable)
            if digest in self._sent:
                copy.close()
                return stored
            self._hold(digest)
            self._sent.add(digest)
            self._make_room(_WAITING)
            self._going[self._contents.submit(self._send, copy, digest, size)] = digest
        except BaseException:
            copy.close()
            raise
        return stored

    def sync(self) -> None:
        self._make_room(1)

    def close(self) -> None:
        """Nothing is on its way any more."""
        self._closed.set()
        for pool in (self._contents, self._parts):
            pool.shutdown(cancel_futures=True)

    def _make_room(self, most: int) -> None:
        """Wait until fewer than `most` are on their way. Raises what went wrong with one of them."""
        while len(self._going) >= most:
            for future in wait(self._going, return_when=FIRST_COMPLETED).done:
                del self._going[future]
                future.result()

    def _send(self, copy: BinaryIO, digest: str, size: int) -> None:
        with copy:
            there = {entry.key: entry.size for entry in self._bucket.list(_folder(digest))}
            missing = [(key, length) for key, length in keys(digest, size).items() if there.get(key) != length]
            places = ((key, int(key[-6:]) * PART_BYTES, length) for key, length in missing)
            if len(missing) == 1:
                self._send_part(copy.fileno(), *next(places))
                return
            for _ in self._parts.map(lambda place: self._send_part(copy.fileno(), *place), places):
                pass

    def _send_part(self, descriptor: int, key: str, start: int, length: int) -> None:
        if self._closed.is_set() or time.monotonic() > self._until:
            raise unavailable(self._bucket.where, Failure("an attempt's artifacts took too long to send"))
        self._bucket.put(key, os.pread(descriptor, length, start))


class _Parts(io.RawIOBase):
    def __init__(self, bucket: Bucket, file: StoredFile) -> None:
        self._bucket, self._file = bucket, file
        self._keys: Iterator[tuple[str, int]] = iter(keys(file.sha256, file.size).items())
        self._part = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not self._part and (following := next(self._keys, None)) is not None:
            key, length = following
            content = self._bucket.get(key)
            if content is None or len(content) != length:
                raise Damaged(self._file)
            self._part = memoryview(content)
        some = self._part[: len(view)]
        view[: len(some)] = some
        self._part = self._part[len(some) :]
        return len(some)


def _folder(sha256: str) -> str:
    return f"blobs/{sha256[:2]}/{sha256}"
