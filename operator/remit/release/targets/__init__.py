"""Where a Deployment goes live: one adapter for each kind of place."""

from remit.release.targets.process import Admit, Load, ProcessTarget

__all__ = ["Admit", "Load", "ProcessTarget"]
