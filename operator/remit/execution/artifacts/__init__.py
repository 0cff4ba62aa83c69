"""What is kept of the files that tasks make, and how later tasks and users get at it."""

from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
from remit.execution.artifacts.store import ArtifactStore, StoredArtifact, StoredFile, keep_pruning

__all__ = [
    "ArtifactStore",
    "StoredArtifact",
    "StoredFile",
    "WantedArtifact",
    "WantedResult",
    "collector",
    "keep_pruning",
]
