"""Give every file and folder of a tree that is newer than SOURCE_DATE_EPOCH that time: `clamp.py FOLDER`.

The time of a build is all that differs between images of the same sources otherwise.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path


def clamp(folder: Path, seconds: int) -> None:
    """`seconds` since the epoch. What is mounted in the folder is left alone."""
    device = folder.stat().st_dev
    for here, folders, files in os.walk(folder, topdown=True):
        folders[:] = [name for name in folders if Path(here, name).lstat().st_dev == device]
        for path in (Path(here), *(Path(here, name) for name in (*folders, *files))):
            status = path.lstat()
            if status.st_dev == device and status.st_mtime > seconds:
                os.utime(path, (seconds, seconds), follow_symlinks=False)


if __name__ == "__main__":
    clamp(Path(sys.argv[1]), int(os.environ["SOURCE_DATE_EPOCH"]))
