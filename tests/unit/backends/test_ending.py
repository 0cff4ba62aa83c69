from __future__ import annotations

import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends.base import AttemptRequest, Command
from remit.backends.ending import Ending, conclude, signal_of
from remit.backends.exceeded import Exceeded
from remit.backends.outcome import ExitReason
from remit.errors import BackendError
from remit.sandbox import Confinement, Limits

REQUEST = AttemptRequest("a", Command(("x",), "/usr/bin/x"), Confinement(Limits(memory_bytes=5)), timeout_seconds=2.5)


def end(**seen: object):
    return conclude(
        Ending(**{"stopped": None, "exit_code": 0, "returncode": 0, "exceeded": (), "stderr": b""} | seen), REQUEST
    )


STOPS = [None, ExitReason.TIMED_OUT, ExitReason.CANCELLED]


@given(st.integers(0, 255), st.lists(st.sampled_from(list(Exceeded)), unique=True).map(tuple), st.sampled_from(STOPS))
def test_every_end_has_one_reason(code, met, stopped):
    found = end(exit_code=code, exceeded=met, stopped=stopped)
    assert found.exceeded == met
    assert found.exit_code == (137 if found.reason is ExitReason.OOM_KILLED else code)
    if stopped:
        assert found.reason is stopped
    elif Exceeded.MEMORY in met and code:
        assert found.reason is ExitReason.OOM_KILLED
    elif code and set(met) - {Exceeded.TIME, Exceeded.OUTPUT}:
        assert str(found.reason).endswith("Exceeded")
        assert "spec.resources." in found.message
    else:
        exited = ExitReason.EXIT_CODE if code else ExitReason.COMPLETED
        assert found.reason is (exited if signal_of(code) is None else ExitReason.SIGNALED)


def test_a_signal_is_named_as_a_shell_would():
    assert signal_of(128 + 15) == signal.SIGTERM
    assert [signal_of(code) for code in (None, 0, 127, 128, 255)] == [None] * 5


def test_an_uncounted_kill_may_have_been_for_memory():
    hint = "; if it was for memory, it used more than its 5 bytes of memory; set spec.resources.memory higher"
    assert end(exit_code=137).message == "ended by SIGKILL"
    assert end(exit_code=137, kills_counted=False).message == f"ended by SIGKILL{hint}"
    assert end(exit_code=143, kills_counted=False).message == "ended by SIGTERM"


def test_the_timeout_is_in_the_message():
    assert end(stopped=ExitReason.TIMED_OUT, exit_code=None).message.startswith("timed out after 2.5 s; ")


def test_a_child_killed_for_memory_does_not_blame_a_program_that_went_well():
    assert end(exceeded=(Exceeded.MEMORY,), exit_code=0).reason is ExitReason.COMPLETED


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            b"bwrap: execvp /usr/bin/x: Exec format error",
            "/usr/bin/x in /workspace: execvp /usr/bin/x: Exec format error",
        ),
        (
            b"bwrap: Can't chdir to /workspace: Not a directory",
            "spec.workingDir /workspace: Not a directory; leave it out",
        ),
    ],
)
def test_what_was_not_executed_gives_the_reason(said, told):
    found = end(exit_code=None, returncode=1, stderr=said)
    assert (found.reason, found.exit_code) == (ExitReason.START_FAILED, None)
    assert told in found.message


def test_a_broken_sandbox_is_the_hosts_fault():
    with pytest.raises(BackendError, match="Creating new namespace failed"):
        end(exit_code=None, returncode=1, stderr=b"bwrap: Creating new namespace failed: No space left on device")
    with pytest.raises(BackendError, match="bubblewrap ended with 1"):
        end(exit_code=None, returncode=1)


def test_a_sandbox_killed_from_outside():
    found = end(exit_code=None, returncode=-9)
    assert (found.reason, found.exit_code) == (ExitReason.SIGNALED, 137)
