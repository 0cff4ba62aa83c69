"""Reads what bubblewrap reports of a run: the pid of the namespace's init, and the exit code of an executed command."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os

from remit.sandbox import ProcessHandle

_CHUNK = 4096


class StatusPipe:
    """Reads bubblewrap's JSON lines as they come. `init` is None until the namespace exists; `exit_code` until it ends.

    `reported` is set with `init`, or when it cannot come any more.

    No exit code after the end means that the command never was executed.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._buffer = b""
        self.init: ProcessHandle | None = None
        self.exit_code: int | None = None
        self.reported = asyncio.Event()
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self.read)

    def read(self) -> None:
        """Take what is there now, without waiting."""
        while True:
            try:
                chunk = os.read(self._descriptor, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                self.reported.set()
                asyncio.get_running_loop().remove_reader(self._descriptor)
                return
            *lines, self._buffer = (self._buffer + chunk).split(b"\n")
            for line in lines:
                self._take(json.loads(line))

    def _take(self, report: dict[str, int]) -> None:
        # Bubblewrap writes its own report before any program runs.
        if "child-pid" in report and not self.reported.is_set():
            with contextlib.suppress(ProcessLookupError):  # the sandbox has ended, and everything in it is dead
                self.init = ProcessHandle(report["child-pid"])
            self.reported.set()
        self.exit_code = report.get("exit-code", self.exit_code)

    def close(self) -> None:
        """The descriptor itself belongs to the launch."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        if self.init:
            self.init.reap()
            self.init.close()
            self.init = None
