"""Supervised processes: started once, kept running by a supervisor of their own, found again by every operator."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.process.executor import ProcessExecutor
    from remit.operations.process.supervision import State, Supervision, Wanted
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["ProcessExecutor", "State", "Supervision", "Wanted"]
