"""How the new side takes over from the old one, a strategy a file."""

from remit.release.strategies.base import Takeover
from remit.release.strategies.bluegreen import BlueGreenTakeover
from remit.release.strategies.canary import CanaryTakeover
from remit.release.strategies.recreate import RecreateTakeover
from remit.release.strategies.rolling import RollingTakeover

TAKEOVERS: dict[str, Takeover] = {
    "BlueGreen": BlueGreenTakeover(),
    "Canary": CanaryTakeover(),
    "Recreate": RecreateTakeover(),
    "Rolling": RollingTakeover(),
}

__all__ = ["TAKEOVERS", "Takeover"]
