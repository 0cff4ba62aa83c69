"""Tells what a leader knows of the leaders before it: from when on nothing that they started is alive. Pure.

An earlier leader's last renewal was sent before the Lease showed it. Its deadline is less than its lease duration after
that, and `kill_grace` seconds after its deadline its fork server has ended its work. A leader that takes the Lease has
seen no renewal for the whole lease duration. So the deadline of every earlier leader has passed by the time at which
the new one asks for the Lease, and `kill_grace` seconds later their work is over.

The numbers of a Lease that was deleted may be used again by the next one. So a number proves nothing until the work
under the Lease before is over: a holder that was restarted waits for that too, and none releases the Lease before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 0
"""`leaseTransitions` of a Lease whose creator knows of none before."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """A holder's time with the Lease. `transitions` is the Lease's `leaseTransitions`, which each new holder raises."""

    transitions: int
    resumed: bool = False
    """Whether the same holder had the Lease before, and was restarted."""
    released: bool = False
    """Whether the leader before released the Lease, which it does once its work has ended."""
    earlier_work_ends: float = -math.inf
    """When the work of all earlier leaders is over, in seconds of this machine's CLOCK_BOOTTIME."""

    def seconds_until_over(self, started_under: int | None, now: float) -> float:
        """How long work may still go on that is not known to have ended, and that was started while the Lease had
        `started_under` transitions (None: nothing was recorded). 0: it is over.

        `now` is in seconds of CLOCK_BOOTTIME.
        """
        let_go = self.released and started_under == self.transitions - 1
        return 0.0 if let_go else max(0.0, self.earlier_work_ends - now)

    def may_be_released(self, now: float) -> bool:
        """Whether the next leader may take what has the number of this one for over."""
        return self.released or now >= self.earlier_work_ends


def acquired(
    transitions: int,
    *,
    at: float,
    lease_duration: float,
    kill_grace: float,
    released: bool = False,
    unseen: bool = False,
) -> Leadership:
    """The leadership of who asked for the Lease at this time of CLOCK_BOOTTIME and got it.

    `unseen`: it was made anew. Others may have made one and held it between two looks.
    """
    waited = 0.0 if unseen else lease_duration
    return Leadership(transitions, released=released, earlier_work_ends=at + lease_duration - waited + kill_grace)


def resumed(
    transitions: int, *, at: float, lease_duration: float, kill_grace: float, earlier_work_ends: float | None
) -> Leadership:
    """The leadership of a holder that was restarted. `earlier_work_ends` is what it noted when it got the Lease, by the
    same clock; None where nothing of that is left."""
    ends = at + lease_duration + kill_grace
    if earlier_work_ends is not None:
        ends = min(ends, earlier_work_ends)
    return Leadership(transitions, resumed=True, earlier_work_ends=ends)
