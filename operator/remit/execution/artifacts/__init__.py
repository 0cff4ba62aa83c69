"""What is kept of the files that tasks make, and how later tasks and users get at it."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
    from remit.execution.artifacts.folderstore import FolderStore
    from remit.execution.artifacts.saving import save, save_file
    from remit.execution.artifacts.store import ARTIFACT_BYTES, ArtifactReader, ArtifactStore, StoreUnavailable, Surplus
    from remit.execution.artifacts.stored import Damaged, StoredArtifact, StoredFile
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "ARTIFACT_BYTES",
    "ArtifactReader",
    "ArtifactStore",
    "Damaged",
    "FolderStore",
    "StoreUnavailable",
    "StoredArtifact",
    "StoredFile",
    "Surplus",
    "WantedArtifact",
    "WantedResult",
    "collector",
    "save",
    "save_file",
]
