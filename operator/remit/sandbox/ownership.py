"""Gives a tree of files to another user, by descriptor."""

from __future__ import annotations

import contextlib
import os
import stat

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def give(folder: int, uid: int, gid: int) -> None:
    """Have this user and group own `folder`, an open one, and everything in it. No link is followed.

    The folder itself comes last: its owner tells that all the rest is done. The tree may be of any depth: one
    descriptor is open at a time, and it goes up by `..`, so nobody else may move its folders meanwhile. Raises OSError.
    """
    here = os.open(".", _FOLDER, dir_fd=folder)
    try:
        left = [_given(here, uid, gid)]
        while left:
            if left[-1]:
                with contextlib.suppress(FileNotFoundError):
                    below = os.open(left[-1].pop(), _FOLDER, dir_fd=here)
                    os.close(here)
                    here = below
                    left.append(_given(here, uid, gid))
                continue
            left.pop()
            if left:
                above = os.open("..", _FOLDER, dir_fd=here)
                os.close(here)
                here = above
    finally:
        os.close(here)
    os.chown(".", uid, gid, dir_fd=folder, follow_symlinks=False)


def _given(folder: int, uid: int, gid: int) -> list[str]:
    """Change the owner of what is in `folder`, and return the folders among it."""
    names = os.listdir(folder)  # pathlib cannot list a descriptor
    for name in names:
        os.chown(name, uid, gid, dir_fd=folder, follow_symlinks=False)
    return [name for name in names if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)]
