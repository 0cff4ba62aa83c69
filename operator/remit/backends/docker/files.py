"""Private files as the archives that the engine takes. Pure."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

from remit.backends.docker.planning import USER


def archives(files: Mapping[str, bytes], user: int = USER, group: int = USER) -> dict[str, bytes]:
    """By folder, a tar of the files in it, which nobody but the attempt's user may read."""
    found: dict[str, io.BytesIO] = {}
    for folder in {path.rpartition("/")[0] for path in files}:
        found[folder] = io.BytesIO()
        with tarfile.open(fileobj=found[folder], mode="w") as tar:
            for path, content in files.items():
                if path.rpartition("/")[0] == folder:
                    entry = tarfile.TarInfo(path.rpartition("/")[2])
                    entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, user, group
                    tar.addfile(entry, io.BytesIO(content))
    return {folder: archive.getvalue() for folder, archive in found.items()}
