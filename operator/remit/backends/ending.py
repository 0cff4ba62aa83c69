"""Say how an attempt ended. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from remit.backends.base import AttemptRequest, ExitReason
from remit.backends.exceeded import Exceeded, remedy
from remit.errors import BackendError

_SHELL_SIGNAL_BASE = 128
_REASONS: Mapping[Exceeded, ExitReason] = {
    Exceeded.PIDS: ExitReason.PIDS_EXCEEDED,
    Exceeded.OPEN_FILES: ExitReason.OPEN_FILES_EXCEEDED,
    Exceeded.FILE_SIZE: ExitReason.FILE_SIZE_EXCEEDED,
    Exceeded.DISK: ExitReason.DISK_EXCEEDED,
}
_NOT_EXECUTED = ("execvp", "chdir")


@dataclass(frozen=True, slots=True)
class Ending:
    """What was seen: `stopped` is why Remit ended it, `exit_code` the command's (None: it was never executed),
    `returncode` bubblewrap's own (negative: the signal that killed it), `stderr` the first bytes of it, `kills_counted`
    whether every kill for a lack of memory is among `exceeded`."""

    stopped: ExitReason | None
    exit_code: int | None
    returncode: int | None
    exceeded: tuple[Exceeded, ...]
    stderr: bytes
    kills_counted: bool = True


@dataclass(frozen=True, slots=True)
class Conclusion:
    reason: ExitReason
    exit_code: int | None
    signal: int | None
    message: str


def conclude(ending: Ending, request: AttemptRequest) -> Conclusion:
    """Choose the reason. What Remit did comes first, then the kernel's OOM killer, then the command's own end.

    Raises:
        BackendError: bubblewrap itself failed: the host is at fault, not the command.
    """
    code = ending.exit_code
    number = signal_of(code)
    if ending.stopped is ExitReason.TIMED_OUT:
        return Conclusion(ending.stopped, code, number, f"still running after {request.timeout_seconds:g} s")
    if ending.stopped:
        return Conclusion(ending.stopped, code, number, "cancelled while it ran")
    if Exceeded.MEMORY in ending.exceeded and code != 0:  # then it may have no code at all
        message = remedy(Exceeded.MEMORY, request.confinement.limits)
        return Conclusion(ExitReason.OOM_KILLED, code, number, message)
    if code is None:
        return _not_executed(ending, request)
    if code != 0 and (limit := next((limit for limit in ending.exceeded if limit in _REASONS), None)):
        return Conclusion(_REASONS[limit], code, number, remedy(limit, request.confinement.limits))
    if number is not None:
        perhaps = number == signal.SIGKILL and not ending.kills_counted and request.confinement.limits.memory_bytes
        hint = f"; if it was for memory, it {remedy(Exceeded.MEMORY, request.confinement.limits)}" if perhaps else ""
        return Conclusion(ExitReason.SIGNALED, code, number, f"ended by {signal.Signals(number).name}{hint}")
    return Conclusion(ExitReason.EXITED, code, None, f"exit code {code}" if code else "")


def signal_of(exit_code: int | None) -> int | None:
    """The signal that an exit code over 128 stands for. A program may exit so by itself: the shell's convention."""
    if exit_code is None or exit_code <= _SHELL_SIGNAL_BASE:
        return None
    number = exit_code - _SHELL_SIGNAL_BASE
    return number if number in {item.value for item in signal.Signals} else None


def _not_executed(ending: Ending, request: AttemptRequest) -> Conclusion:
    if ending.returncode is not None and ending.returncode < 0:
        number = -ending.returncode
        return Conclusion(ExitReason.SIGNALED, None, number, "its sandbox was killed from outside")
    said = ending.stderr.decode(errors="replace").strip().removeprefix("bwrap: ")
    if any(word in said for word in _NOT_EXECUTED):
        inside = f"{request.command.executable} in {request.confinement.working_dir}"
        return Conclusion(ExitReason.START_FAILED, None, None, f"could not be started: {inside}: {said}")
    raise BackendError(f"the sandbox could not be built: {said or f'bubblewrap ended with {ending.returncode}'}")
