"""Functions of libc that Python does not offer. Standard library only: fork servers and their children import it."""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def call(function: str, *arguments: int) -> int:
    """A function of libc that returns -1 and sets errno. Raises OSError."""
    result: int = getattr(_libc, function)(*(ctypes.c_ulong(argument) for argument in arguments))
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{function}: {os.strerror(number)}")
    return result


def die_with(parent: int, number: int = signal.SIGKILL) -> None:
    """Be signalled when `parent` ends; die now, if it has ended already and the kernel would say nothing more."""
    call("prctl", _PR_SET_PDEATHSIG, number, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(127)
