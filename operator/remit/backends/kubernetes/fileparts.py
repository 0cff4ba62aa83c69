"""The artifacts that a Job mounts: their files in immutable Secrets, put together in a volume. Pure, but for `read`."""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.sandbox import FilesMount, MountedFile

MOST_SECRET_BYTES: Final = 900 << 10
MOST_PARTS: Final = 256
"""Parts of one attempt. More than all files that it may mount can need."""
_MODES: Final = {False: 0o444, True: 0o555}
CURRENT: Final = "..data"
"""What the kubelet calls the folder with the files: beside it are links into it, which are not mounted."""


@dataclass(frozen=True, slots=True)
class Part:
    """The files of a volume that one Secret has: each file under the key of its place here."""

    name: str
    folder: str
    files: tuple[MountedFile, ...]

    @property
    def source(self) -> dict[str, Any]:
        """The part as a source of a projected volume."""
        items = [
            {"key": f"f{number}", "path": file.path, "mode": _MODES[file.executable]}
            for number, file in enumerate(self.files)
        ]
        return {"secret": {"name": self.name, "items": items}}

    def read(self) -> dict[str, str]:
        """The Secret's data. Blocks; raises OSError."""
        return {
            f"f{number}": base64.b64encode((Path(self.folder) / file.path).read_bytes()).decode()
            for number, file in enumerate(self.files)
        }


def mounts_of(request: AttemptRequest) -> list[FilesMount]:
    confinement = request.confinement
    found: list[Any] = [*confinement.mounts, confinement.stdin_volume]
    return [mount for mount in found if isinstance(mount, FilesMount)]


def parts(request: AttemptRequest, job_name: str) -> dict[str, list[Part]]:
    """By the volume's name in the task. Their own names count up from 0, so that they are found by trying."""
    volumes: Mapping[str, FilesMount] = {mount.volume: mount for mount in mounts_of(request)}
    found: dict[str, list[Part]] = {}
    count = 0
    for volume, mount in volumes.items():
        found[volume] = []
        for files in _portions(mount.files):
            found[volume].append(Part(part_name(job_name, count), mount.folder, files))
            count += 1
    return found


def part_name(job_name: str, number: int) -> str:
    return f"{job_name}-files-{number}"


def _portions(files: tuple[MountedFile, ...]) -> Iterator[tuple[MountedFile, ...]]:
    portion: list[MountedFile] = []
    size = 0
    for file in files:
        if portion and size + file.size > MOST_SECRET_BYTES:
            yield tuple(portion)
            portion, size = [], 0
        portion.append(file)
        size += file.size
    if portion:
        yield tuple(portion)


def sub_path(mount: FilesMount) -> str:
    """The path of the files in the volume."""
    return posixpath.join(CURRENT, mount.sub_path) if mount.sub_path else CURRENT
