"""The exit codes of `remit run`. Pure."""

from __future__ import annotations

from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.api.phases import Phase

TIMED_OUT, BROKEN, DENIED, NOT_FOUND, CANCELLED = 124, 125, 126, 127, 130


def exit_code(status: ExecutionTaskStatus) -> int:
    """The exit code for a task that has ended."""
    match status.phase:
        case Phase.SUCCEEDED:
            return 0
        case Phase.TIMED_OUT:
            return TIMED_OUT
        case Phase.DENIED:
            return DENIED
        case Phase.CANCELLED:
            return CANCELLED
    finished = next((condition for condition in status.conditions if condition.type == "Finished"), None)
    if finished is not None and finished.reason == "ExecutableNotFound":
        return NOT_FOUND
    return status.exit_code or BROKEN
