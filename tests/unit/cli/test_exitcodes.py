from __future__ import annotations

import pytest

from remit.api.base import Condition
from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.api.phases import Phase
from remit.cli.exitcodes import exit_code


@pytest.mark.parametrize(
    ("phase", "reason", "code", "expected"),
    [
        (Phase.SUCCEEDED, "Completed", 0, 0),
        (Phase.FAILED, "ExitCode", 3, 3),
        (Phase.FAILED, "Signal", 143, 143),
        (Phase.FAILED, "OOMKilled", 137, 137),
        (Phase.FAILED, "ExecutableNotFound", None, 127),
        (Phase.FAILED, "SandboxUnavailable", None, 125),
        (Phase.FAILED, "Interrupted", None, 125),
        (Phase.TIMED_OUT, "Timeout", 143, 124),
        (Phase.DENIED, "NotAllowed", None, 126),
        (Phase.CANCELLED, "Cancelled", 143, 130),
    ],
)
def test_every_end_has_its_code(phase: Phase, reason: str, code: int | None, expected: int) -> None:
    conditions = [Condition(type="Finished", status="True", reason=reason)]
    assert exit_code(ExecutionTaskStatus(phase=phase, exit_code=code, conditions=conditions)) == expected
