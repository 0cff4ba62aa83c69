"""Sets what a process inherits without asking to known values, so that no task depends on how its operator was started.

The fork server takes these values once, and its children inherit them. Standard library only. What an administrator set
as a bound stays one: hard resource limits and the CPUs that the operator may use. An ordinary user cannot take back a
positive nice value, and a kernel or an outer sandbox may refuse any of this; then what was inherited stays.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal

from remit.libc import call

UMASK = 0o022
STACK_BYTES = 8 << 20
"""The kernel's own default. A smaller one breaks programs, and an unlimited one changes the layout of memory."""
LOCKED_BYTES = 8 << 20
QUEUE_BYTES = 819_200

_SOFT_LIMITS = {
    **dict.fromkeys(
        (
            *(resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_DATA, resource.RLIMIT_FSIZE),
            *(resource.RLIMIT_NPROC, resource.RLIMIT_RSS),
        ),
        resource.RLIM_INFINITY,
    ),
    resource.RLIMIT_STACK: STACK_BYTES,
    resource.RLIMIT_MEMLOCK: LOCKED_BYTES,
    resource.RLIMIT_MSGQUEUE: QUEUE_BYTES,
}
"""As far as the hard limit allows. RLIMIT_NOFILE is not here: the fork server needs its own, and each job sets it."""
_HARD_LIMITS = {resource.RLIMIT_CORE: 0, resource.RLIMIT_NICE: 0, resource.RLIMIT_RTPRIO: 0}
"""No core dumps, which would have secrets in them, and no higher priority than others."""

_PR_SET_TIMERSLACK = 29
_TIMER_SLACK_NANOSECONDS = 50_000
_PERSONALITY_LINUX = 0
_IOPRIO_SET = {"x86_64": 251, "aarch64": 30}
"""The number of the system call, which has no function in libc."""
_IOPRIO_WHO_PROCESS = 1
_IOPRIO_BY_NICE = 0


def take_known_values() -> None:
    """Set signal mask, umask, resource limits, priorities, scheduling, timer slack and personality of this process."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(UMASK)
    for number, value in _SOFT_LIMITS.items():
        hard = resource.getrlimit(number)[1]
        _set_limit(number, value if hard == resource.RLIM_INFINITY else _least(value, hard), hard)
    for number, value in _HARD_LIMITS.items():
        _set_limit(number, value, value)
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    with contextlib.suppress(OSError):
        call("prctl", _PR_SET_TIMERSLACK, _TIMER_SLACK_NANOSECONDS, 0, 0, 0)
    with contextlib.suppress(OSError):
        call("personality", _PERSONALITY_LINUX)
    if io_priority := _IOPRIO_SET.get(os.uname().machine):
        with contextlib.suppress(OSError):
            call("syscall", io_priority, _IOPRIO_WHO_PROCESS, 0, _IOPRIO_BY_NICE)


def _least(value: int, hard: int) -> int:
    return hard if value == resource.RLIM_INFINITY else min(value, hard)


def _set_limit(number: int, soft: int, hard: int) -> None:
    with contextlib.suppress(OSError, ValueError):  # Python raises ValueError for EPERM
        resource.setrlimit(number, (soft, hard))
