"""A filesystem that never answers, like that of a server that is gone."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

from parts import require
from remit.sandbox.exposing import mount
from remit.sandbox.staging import unstage

FREED_SECONDS = 30.0
_NOSUID_NODEV = 0x2 | 0x4


@contextlib.contextmanager
def hanging_filesystem(folder: Path) -> Iterator[threading.Event]:
    """Mounts a FUSE filesystem whose process answers nothing. Whoever still waits for an answer after `FREED_SECONDS`
    gets an error, and the event is set: a test fails instead of hanging."""
    require("fuse", os.geteuid() == 0 and os.access("/dev/fuse", os.R_OK | os.W_OK), "be root, with /dev/fuse")
    device, freed = os.fdopen(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC), "rb", buffering=0), threading.Event()

    def free() -> None:
        freed.set()
        device.close()

    timer = threading.Timer(FREED_SECONDS, free)
    with device:
        options = f"fd={device.fileno()},rootmode=40000,user_id=0,group_id=0"
        mount("hanging", str(folder), "fuse", _NOSUID_NODEV, options)
        timer.start()
        try:
            yield freed
        finally:
            timer.cancel()
            unstage(str(folder))
