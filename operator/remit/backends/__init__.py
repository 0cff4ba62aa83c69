"""Where it runs."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.base import (
        AdoptingBackend,
        AttemptRequest,
        Backend,
        Command,
        Handle,
        OutputSink,
        Stream,
    )
    from remit.backends.egress import NetworkUse
    from remit.backends.exceeded import Exceeded, remedy
    from remit.backends.outcome import ExitReason, Outcome, Usage
    from remit.backends.process import ProcessBackend
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "AdoptingBackend",
    "AttemptRequest",
    "Backend",
    "Command",
    "Exceeded",
    "ExitReason",
    "Handle",
    "NetworkUse",
    "Outcome",
    "OutputSink",
    "ProcessBackend",
    "Stream",
    "Usage",
    "remedy",
]
