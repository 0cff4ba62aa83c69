"""Say how an attempt ended. Pure."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from remit.backends.base import AttemptRequest
from remit.backends.exceeded import Exceeded, remedy
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import BackendError, OutcomeUnknown

_SHELL_SIGNAL_BASE = 128
_REASONS: Mapping[Exceeded, ExitReason] = {
    Exceeded.PIDS: ExitReason.PIDS_EXCEEDED,
    Exceeded.OPEN_FILES: ExitReason.OPEN_FILES_EXCEEDED,
    Exceeded.FILE_SIZE: ExitReason.FILE_SIZE_EXCEEDED,
    Exceeded.DISK: ExitReason.DISK_EXCEEDED,
}
CANCELLED_MESSAGE = "cancelled; everything it started was killed"
_NOT_EXECUTED = ("execvp", "chdir")


@dataclass(frozen=True, slots=True)
class Ending:
    """The observed end of a command: `stopped` is why Remit ended it, `exit_code` the command's (None: it was never
    executed), `returncode` bubblewrap's own (negative: the signal that killed it), `stderr` the first bytes of it,
    `kills_counted` whether every kill for a lack of memory is among `exceeded`."""

    stopped: ExitReason | None
    exit_code: int | None
    returncode: int | None
    exceeded: tuple[Exceeded, ...]
    stderr: bytes
    kills_counted: bool = True


def conclude(ending: Ending, request: AttemptRequest) -> Outcome:
    """Choose the reason. What Remit did comes first, then the kernel's OOM killer, then the command's own end.

    The caller adds what was used and how it was confined.

    Raises:
        BackendError: bubblewrap itself failed: the host is at fault, not the command.
    """
    code, met, limits = ending.exit_code, ending.exceeded, request.confinement.limits
    number = signal_of(code)
    if ending.stopped is ExitReason.TIMED_OUT:
        message = f"timed out after {request.timeout_seconds:g} s; everything it started was killed"
        return Outcome(ending.stopped, message, code, exceeded=met)
    if ending.stopped:
        return Outcome(ending.stopped, CANCELLED_MESSAGE, code, exceeded=met)
    if Exceeded.MEMORY in met and code != 0:  # there may be no exit code in this case
        oom = _SHELL_SIGNAL_BASE + signal.SIGKILL
        return Outcome(ExitReason.OOM_KILLED, remedy(Exceeded.MEMORY, limits), oom, exceeded=met)
    if code is None:
        return _not_executed(ending, request)
    if code != 0 and (limit := next((limit for limit in met if limit in _REASONS), None)):
        return Outcome(_REASONS[limit], remedy(limit, limits), code, exceeded=met)
    if number is not None:
        perhaps = number == signal.SIGKILL and not ending.kills_counted and limits.memory_bytes
        hint = f"; if it was for memory, it {remedy(Exceeded.MEMORY, limits)}" if perhaps else ""
        return Outcome(ExitReason.SIGNALED, f"ended by {signal.Signals(number).name}{hint}", code, exceeded=met)
    if code:
        return Outcome(ExitReason.EXIT_CODE, f"exited with code {code}", code, exceeded=met)
    return Outcome(ExitReason.COMPLETED, "completed", 0, exceeded=met)


def not_stored(error: Exception, *, completed: bool) -> BackendError:
    """The error of an attempt whose output could not be stored. It was killed for that, unless it had `completed`."""
    failed = (OutcomeUnknown if completed else BackendError)(f"the output could not be stored: {error}")
    failed.__cause__ = error
    return failed


def signal_of(exit_code: int | None) -> int | None:
    """The signal that an exit code over 128 stands for. A program may exit so by itself: the shell's convention."""
    if exit_code is None or exit_code <= _SHELL_SIGNAL_BASE:
        return None
    number = exit_code - _SHELL_SIGNAL_BASE
    return number if number in {item.value for item in signal.Signals} else None


def _not_executed(ending: Ending, request: AttemptRequest) -> Outcome:
    met = ending.exceeded
    if ending.returncode is not None and ending.returncode < 0:
        code = _SHELL_SIGNAL_BASE - ending.returncode
        return Outcome(ExitReason.SIGNALED, "its sandbox was killed from outside", code, exceeded=met)
    said = ending.stderr.decode(errors="replace").strip().removeprefix("bwrap: ")
    if any(word in said for word in _NOT_EXECUTED):
        if said.startswith("Can't chdir to"):
            where = f"spec.workingDir {request.confinement.working_dir}: {said.rpartition(': ')[2]}"
            message = (
                f"could not be started: {where}; leave it out, or name a folder that is mounted or has a private file"
            )
            return Outcome(ExitReason.START_FAILED, message, exceeded=met)
        inside = f"{request.command.executable} in {request.confinement.working_dir}"
        return Outcome(ExitReason.START_FAILED, f"could not be started: {inside}: {said}", exceeded=met)
    raise BackendError(f"the sandbox could not be built: {said or f'bubblewrap ended with {ending.returncode}'}")
