"""Private files as the archives that the engine takes. Pure."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping

from remit.backends.base import AttemptRequest
from remit.backends.docker.planning import Given, private_folders
from remit.backends.filetree import is_below


def archives(request: AttemptRequest, given: Given) -> dict[str, bytes]:
    """By folder, a tar of the files in it, which nobody but the attempt's user may read, and of what else is mounted
    beneath: an engine can make no place for that in a folder that is only to be read."""
    folders = private_folders(request)
    places = {mount.mount_path for mount in request.confinement.mounts} | set(folders)
    return {folder: _packed(folder, request.files, places, given) for folder in folders}


def _packed(folder: str, files: Mapping[str, bytes], places: Iterable[str], given: Given) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for place in sorted(place for place in places if place != folder and is_below(place, folder)):
            names = place.removeprefix(f"{folder}/").split("/")
            for depth in range(1, len(names) + 1):
                entry = tarfile.TarInfo("/".join(names[:depth]))
                is_file = depth == len(names) and place in given.host_files
                entry.type, entry.mode = (tarfile.REGTYPE, 0o444) if is_file else (tarfile.DIRTYPE, 0o755)
                tar.addfile(entry)
        for path, content in files.items():
            if path.rpartition("/")[0] == folder:
                entry = tarfile.TarInfo(path.rpartition("/")[2])
                entry.size, entry.mode, entry.uid, entry.gid = len(content), 0o400, given.user, given.group
                tar.addfile(entry, io.BytesIO(content))
    return archive.getvalue()
