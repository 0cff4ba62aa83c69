"""What a leader knows of the leaders before it: from when on nothing that they started is alive. Pure.

An earlier leader's last renewal was sent before the Lease showed it. Its deadline is less than its lease duration after
that, and `kill_grace` seconds after its deadline its fork server has ended its work. A leader that takes the Lease has
seen no renewal for the whole lease duration. So the deadline of every earlier leader has passed by the time at which
the new one asks for the Lease, and `kill_grace` seconds later their work is over.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FIRST = 0
"""`leaseTransitions` of a Lease that its holder created: nobody knows of a leader before."""


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
        ours = self.resumed and started_under == self.transitions
        let_go = self.released and started_under == self.transitions - 1
        return 0.0 if ours or let_go else max(0.0, self.earlier_work_ends - now)


def acquired(
    transitions: int,
    *,
    at: float,
    lease_duration: float,
    kill_grace: float,
    resumed: bool = False,
    released: bool = False,
    unseen: bool = False,
) -> Leadership:
    """The leadership of who asked for the Lease at this time of CLOCK_BOOTTIME and got it.

    `unseen`: without having seen that nobody renews it. Who creates the Lease has waited for nobody: it may have been
    deleted while another leader was at work. That is true after a restart, too, of who created the first one.
    """
    waited = 0.0 if unseen or transitions == FIRST else lease_duration
    return Leadership(transitions, resumed, released, at + lease_duration - waited + kill_grace)
