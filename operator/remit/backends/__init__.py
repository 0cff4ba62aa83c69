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
    from remit.backends.filetree import Collector, DescriptorTree, FileTree, FoundFile, TooMuch
    from remit.backends.outcome import ExitReason, KeptArtifact, Outcome, Usage
    from remit.backends.process import ProcessBackend
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "AdoptingBackend",
    "AttemptRequest",
    "Backend",
    "Collector",
    "Command",
    "DescriptorTree",
    "Exceeded",
    "ExitReason",
    "FileTree",
    "FoundFile",
    "Handle",
    "KeptArtifact",
    "NetworkUse",
    "Outcome",
    "OutputSink",
    "ProcessBackend",
    "Stream",
    "TooMuch",
    "Usage",
    "remedy",
]
