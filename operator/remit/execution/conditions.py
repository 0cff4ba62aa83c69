"""Computes the conditions of a task, which kubectl wait, kstatus (Flux, Helm) and Argo CD read.

`Finished` becomes True once, whatever the outcome; `Succeeded` tells the outcome. `Reconciling` and `Stalled` are terms
of kstatus: work is in progress, and the task failed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Final, Literal

from remit.api.base import Condition
from remit.api.phases import Phase

Truth = Literal["True", "False", "Unknown"]
NOT_READ: Final[Mapping[str, Truth]] = {
    "Succeeded": "Unknown",
    "Finished": "False",
    "Reconciling": "False",
    "Stalled": "True",
}
"""The conditions of a task that this version cannot read, and leaves alone."""


def conditions_for(
    phase: Phase,
    reason: str,
    message: str,
    *,
    before: list[Condition],
    generation: int,
    now: datetime.datetime,
) -> list[Condition]:
    """All four conditions for `phase`; `lastTransitionTime` moves only where the status did."""
    succeeded: Truth = "Unknown"
    if phase.final:
        succeeded = "True" if phase is Phase.SUCCEEDED else "False"
    truths: dict[str, Truth] = {
        "Succeeded": succeeded,
        "Finished": "True" if phase.final else "False",
        # A schedule is reconciled once its next run is known.
        "Reconciling": "False" if phase.final or phase is Phase.SCHEDULED else "True",
        "Stalled": "True" if phase.final and phase is not Phase.SUCCEEDED else "False",
    }
    previous = {condition.type: condition for condition in before}
    return [
        Condition(
            type=type_,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=_transition(previous.get(type_), status, now),
            observed_generation=generation,
        )
        for type_, status in truths.items()
    ]


def _transition(before: Condition | None, status: Truth, now: datetime.datetime) -> datetime.datetime:
    if before is not None and before.status == status and before.last_transition_time is not None:
        return before.last_transition_time
    return now.replace(microsecond=0)
