"""What is kept of the files that tasks make, and how later tasks and users get at it."""

from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.saving import save, save_file
from remit.execution.artifacts.store import ARTIFACT_BYTES, ArtifactStore, Surplus
from remit.execution.artifacts.stored import StoredArtifact, StoredFile

__all__ = [
    "ARTIFACT_BYTES",
    "ArtifactStore",
    "FolderStore",
    "StoredArtifact",
    "StoredFile",
    "Surplus",
    "WantedArtifact",
    "WantedResult",
    "collector",
    "save",
    "save_file",
]
