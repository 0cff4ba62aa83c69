"""How the new side takes over from the old one, a strategy a file."""

from remit.release.strategies.base import RolloutStrategy
from remit.release.strategies.bluegreen import BlueGreenTakeover
from remit.release.strategies.canary import CanaryTakeover
from remit.release.strategies.recreate import RecreateTakeover
from remit.release.strategies.rolling import RollingTakeover

STRATEGIES: dict[str, RolloutStrategy] = {
    "BlueGreen": BlueGreenTakeover(),
    "Canary": CanaryTakeover(),
    "Recreate": RecreateTakeover(),
    "Rolling": RollingTakeover(),
}

__all__ = ["STRATEGIES", "RolloutStrategy"]
