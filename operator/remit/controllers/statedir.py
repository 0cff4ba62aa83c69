"""The state directory: which operator works in it, and as whom an operator holds its lease."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from remit.errors import RemitError
from remit.privatefiles import open_private
from remit.sandbox import boot_id

_LOOK_SECONDS = 0.2


@contextlib.contextmanager
def holder_identity(state_dir: Path) -> Iterator[str]:
    """Yields the identity with which this process holds a lease. No other running process has the same.

    It is the same after a restart, so that an operator that was killed acquires its own lease again immediately. It is
    derived from the content of a file that this process has locked, from the file's inode and from this boot of the
    machine. A copy of the directory therefore has another identity, and so has another machine that shares it, even on
    a file system that does not share locks. While another process holds the lock, the identity is for this run alone.
    """
    descriptor = open_private(state_dir / "holder.lock")
    try:
        if not _try_lock(descriptor):
            yield f"{os.uname().nodename}_{secrets.token_hex(8)}"
            return
        kept = os.pread(descriptor, 256, 0)
        if not kept:
            kept = secrets.token_hex(16).encode()
            os.pwrite(descriptor, kept, 0)
            os.fsync(descriptor)
        file = os.fstat(descriptor)
        source = f"{kept.decode(errors='replace')} {file.st_dev} {file.st_ino} {boot_id()}"
        yield f"{os.uname().nodename}_{hashlib.sha256(source.encode()).hexdigest()[:16]}"
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(state_dir: Path) -> Iterator[None]:
    """The state directory, for this process alone. Raises `RemitError` when another operator works in it."""
    descriptor = open_private(state_dir / "operator.lock")
    try:
        if not _try_lock(descriptor):
            raise RemitError(f"another operator works in {state_dir}; stop it, or give this one its own --state-dir")
        yield
    finally:
        os.close(descriptor)


async def locked_in_time(stack: contextlib.AsyncExitStack, state_dir: Path, seconds: float) -> None:
    """`locked`, on `stack`, for which another operator gets some time to end: its lease has ended, or was released."""
    clock = asyncio.get_running_loop().time
    until = clock() + seconds
    while True:
        try:
            stack.enter_context(locked(state_dir))
        except RemitError:
            if clock() > until:
                raise
        else:
            return
        await asyncio.sleep(_LOOK_SECONDS)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
