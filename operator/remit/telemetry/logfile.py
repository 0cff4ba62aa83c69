"""A log in a file that is rotated by size, and opened anew when somebody else has rotated it."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import stat
import threading
from pathlib import Path
from typing import Final

from remit.errors import InvalidInput

MAX_BYTES: Final = 100 * 1024**2
BACKUPS: Final = 5
_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class LogFile(io.TextIOBase):
    """Appends whole lines to `path`, mode 0600. A line that would make it larger than `max_bytes` begins a new file;
    `path.1` is the one before, and `backups` of them are kept.

    Where `path` leads to another file than before, or to none, such as after logrotate renamed it, it is opened anew
    with the next line. What the disk refuses is lost: a full disk is no reason to stop.

    Raises `InvalidInput` where it cannot be opened, or is no file.
    """

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, backups: int = BACKUPS) -> None:
        self._path, self._most, self._backups = path, max_bytes, backups
        self._guard = threading.Lock()
        try:
            self._descriptor = self._open()
        except OSError as error:
            raise InvalidInput(f"--log-file {path} cannot be opened: {error.strerror}") from None
        if not stat.S_ISREG(os.fstat(self._descriptor).st_mode):
            os.close(self._descriptor)
            raise InvalidInput(f"--log-file {path} is no file; name one, or leave it out to log to standard error")

    def isatty(self) -> bool:
        return False

    def write(self, text: str) -> int:
        self.append(text.encode(errors="backslashreplace"))
        return len(text)

    def append(self, lines: bytes) -> None:
        """Whole lines."""
        with self._guard, contextlib.suppress(OSError):
            self._reopen_if_moved()
            size = os.fstat(self._descriptor).st_size
            if size and size + len(lines) > self._most:
                self._rotate()
            left = memoryview(lines)
            while left:
                left = left[os.write(self._descriptor, left) :]

    def reopen_on_hangup(self) -> None:
        """Have SIGHUP, which logrotate sends, end nothing: the next line looks for the file anyway."""
        signal.signal(signal.SIGHUP, lambda *_: None)

    def close(self) -> None:
        with self._guard:
            if not self.closed:
                os.close(self._descriptor)
                super().close()

    def _open(self) -> int:
        return os.open(self._path, _FLAGS, 0o600)

    def _reopen_if_moved(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path, follow_symlinks=False)):  # noqa: PTH116
                return
        self._replace(self._open())

    def _rotate(self) -> None:
        def older(number: int) -> Path:
            return self._path.with_name(f"{self._path.name}.{number}")

        for number in range(self._backups - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                older(number).replace(older(number + 1))
        self._path.replace(older(1))
        self._replace(self._open())

    def _replace(self, descriptor: int) -> None:
        os.close(self._descriptor)
        self._descriptor = descriptor
