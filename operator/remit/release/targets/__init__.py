"""Where a Deployment goes live: one adapter for each kind of place."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.targets.process import Admit, Load, ProcessTarget
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["Admit", "Load", "ProcessTarget"]
