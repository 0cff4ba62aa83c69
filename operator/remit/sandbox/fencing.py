"""The deadline until which this process may work, where several operators compete for a lease.

The deadline is in seconds of CLOCK_BOOTTIME, which also counts the time for which the machine was suspended. The fork
server enforces it from outside this process: when it passes, the fork server kills what it started, and then this
process. `check` is for what this process does itself.
"""

from __future__ import annotations

import math
import time

from remit.errors import LeaseLost


def now() -> float:
    """CLOCK_BOOTTIME, in seconds."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence:
    """Without a deadline nothing is restricted."""

    def __init__(self) -> None:
        self.deadline = math.inf
        self.transitions: int | None = None
        """The Lease's `leaseTransitions` under which this process works. None without leader election."""

    @property
    def expired(self) -> bool:
        return now() >= self.deadline

    def check(self) -> None:
        """Raises LeaseLost when the deadline has passed."""
        if self.expired:
            raise LeaseLost("the lease of this operator has ended, and another one may be at work")


fence = Fence()
"""This process's."""
