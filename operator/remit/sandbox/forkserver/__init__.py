"""A small process that starts all others, so that the operator itself never forks.

`client` is the operator's side. `__main__`, `server` and `jobs` run in the fork server and import nothing but the
standard library: everything they load is copied by each fork.
"""

from remit.sandbox.forkserver.client import (
    TELL_SECONDS,
    Execute,
    ForkedProcess,
    ForkServer,
    Job,
    Listen,
    Restrict,
    Supervise,
    TryScopes,
    end_work,
    extend_deadline,
    fork_server,
)
from remit.sandbox.forkserver.wire import KILL_GRACE_SECONDS

__all__ = [
    "KILL_GRACE_SECONDS",
    "TELL_SECONDS",
    "Execute",
    "ForkServer",
    "ForkedProcess",
    "Job",
    "Listen",
    "Restrict",
    "Supervise",
    "TryScopes",
    "end_work",
    "extend_deadline",
    "fork_server",
]
