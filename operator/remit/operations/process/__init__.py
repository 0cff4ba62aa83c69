"""Supervised processes: started once, kept running by a supervisor of their own, found again by every operator."""

from remit.operations.process.performer import ProcessPerformer
from remit.operations.process.supervision import State, Supervision, Wanted

__all__ = ["ProcessPerformer", "State", "Supervision", "Wanted"]
