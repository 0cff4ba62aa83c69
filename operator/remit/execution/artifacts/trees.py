"""Artifacts as folders on this host, for those who mount them."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import threading
import uuid
from collections.abc import Callable, Collection
from pathlib import Path

from remit.execution.artifacts.stored import StoredArtifact, StoredFile

Place = Callable[[StoredFile, Path], None]
"""Puts the file's content at a path where no user may write to it. Blocks; raises OSError."""


class Trees:
    """Folders below `root`, each named after what it contains. Every method may block and raise OSError."""

    def __init__(self, root: Path, place: Place) -> None:
        self.root = root
        # Tasks that mount an artifact run as other users. They may enter the folder, but not list it.
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._place = place
        self._guard = threading.Lock()
        self._mounted: dict[str, set[Path]] = {}
        """The trees that each user has."""

    def get(self, artifact: StoredArtifact, user: str) -> Path:
        """Returns a folder with the artifact's files. They cannot be changed, and every user with the path can read
        them. The folder is kept until `let_go` of `user`."""
        folder = self.root / tree_name(artifact)
        with self._guard:
            self._mounted.setdefault(user, set()).add(folder)
        if folder.is_dir():
            return folder
        fresh = self.root / new_name()
        with self._guard:
            self._mounted.setdefault(user, set()).add(fresh)
        try:
            fresh.mkdir(mode=0o755)
            for file in artifact.files:
                target = fresh / file.path
                for above in reversed(target.relative_to(fresh).parents[:-1]):
                    (fresh / above).mkdir(mode=0o755, exist_ok=True)
                self._place(file, target)
            try:
                fresh.rename(folder)
            except OSError:  # another process created the folder first
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def let_go(self, user: str) -> None:
        """The trees that `user` was given are not used any more."""
        with self._guard:
            self._mounted.pop(user, None)

    def prune(self, kept: Collection[str] = ()) -> None:
        """Removes the folders that are not in use, except those with the names `kept`."""
        for tree in self.root.iterdir():
            if tree.name not in kept:
                self._remove(tree)

    def drop(self, artifact: StoredArtifact) -> None:
        """Remove a folder that is damaged. It is created again when it is needed."""
        aside = self.root / new_name()
        with contextlib.suppress(FileNotFoundError):
            (self.root / tree_name(artifact)).rename(aside)

    def _remove(self, tree: Path) -> None:
        with self._guard:
            if any(tree in trees for trees in self._mounted.values()):
                return
            aside = self.root / new_name()
            tree.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)


def tree_name(artifact: StoredArtifact) -> str:
    """The name of a folder with an artifact's files. It depends on their digest, and on which are executable."""
    modes = "".join("x" if file.executable else "-" for file in artifact.files)
    return hashlib.sha256(f"{artifact.digest} {modes}".encode()).hexdigest()


def new_name() -> str:
    """Returns a random name for an artifact that is being written, under which no reader looks for it."""
    return f".new-{uuid.uuid4().hex}"
