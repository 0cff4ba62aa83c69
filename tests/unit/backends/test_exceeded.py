"""Tests which limit was reached, according to the kernel's counters and the program's output."""

from __future__ import annotations

import pytest

from remit.backends.exceeded import Exceeded, exceeded, remedy
from remit.sandbox import Limits


def met(
    code: int | None = 1, *, said: bytes = b"", oom: int = 0, refused: int | None = 0, timed_out: bool = False
) -> tuple[Exceeded, ...]:
    return exceeded(exit_code=code, oom_kills=oom, refused_tasks=refused, stderr=said, timed_out=timed_out)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"dd: error writing 'x': No space left on device", (Exceeded.DISK,)),
        (b"OSError: [Errno 24] Too many open files: '/dev/null'", (Exceeded.OPEN_FILES,)),
        (b"OSError: [Errno 27] File too large", (Exceeded.FILE_SIZE,)),
        (b"all is well", ()),
    ],
)
def test_a_program_that_failed_is_believed(said: bytes, expected: tuple[Exceeded, ...]) -> None:
    assert met(said=said) == expected
    assert met(0, said=said) == ()


def test_processes_are_counted_where_they_can_be() -> None:
    words = b"sh: 1: Cannot fork: Resource temporarily unavailable"
    assert met(said=words, refused=3) == (Exceeded.PIDS,)
    assert met(said=words, refused=0) == ()
    assert met(said=words, refused=None) == (Exceeded.PIDS,)
    assert met(said=b"RuntimeError: can't start new thread", refused=None) == (Exceeded.PIDS,)


def test_what_the_kernel_counted_is_told_though_all_went_well() -> None:
    assert met(0, oom=1, refused=2) == (Exceeded.MEMORY, Exceeded.PIDS)


def test_a_signal_and_a_timeout() -> None:
    assert met(153) == (Exceeded.FILE_SIZE,)
    assert met(None, timed_out=True) == (Exceeded.TIME,)


@pytest.mark.parametrize("limit", list(Exceeded))
def test_each_remedy_names_the_field(limit: Exceeded) -> None:
    assert "; set spec." in remedy(limit, Limits(memory_bytes=1, pids=1, file_bytes=1))
