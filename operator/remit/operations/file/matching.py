"""Finds what a glob matches below a folder, by descriptor: links are not crossed, and nothing is held in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator

from remit.backends.pathpattern import PathPattern, State
from remit.operations.file.access import Access, below
from remit.operations.file.tree import OPEN_FOLDER, check_depth
from remit.sandbox.beneath import Place


def matches(
    access: Access,
    top: Place,
    glob: str,
    modified_before: float | None,
    *,
    folders: bool,
    leave: Callable[[int], None] = lambda descriptor: None,
) -> Iterator[tuple[Place, os.stat_result]]:
    """Each entry below `top` that `glob` matches and policy allows, once, in no order; directories only with `folders`.
    The glob is one that policy accepts. `leave` is called with each folder's descriptor when all in it was seen.

    Raises `PolicyDenied` for one that policy does not allow.
    """
    pattern = PathPattern(glob.split("/"), whole_folders=False)
    return _within(access, top, pattern, pattern.start, modified_before, folders, leave, 0)


def _within(
    access: Access,
    at: Place,
    pattern: PathPattern,
    state: State,
    modified_before: float | None,
    folders: bool,
    leave: Callable[[int], None],
    depth: int,
) -> Iterator[tuple[Place, os.stat_result]]:
    check_depth(at, depth)
    access.check_folder(at.path)
    with access.about(at.path):
        descriptor = os.open(at.name, OPEN_FOLDER, dir_fd=at.parent)
    try:
        with os.scandir(descriptor) as found:
            for one in found:
                access.check_stop()
                entry, is_folder = Place(descriptor, one.name, below(at.path, one.name)), _is_folder(one)
                after = pattern.enter(state, one.name)
                if is_folder and pattern.goes_on(after):
                    with access.leaving_out(entry.path):
                        yield from _within(access, entry, pattern, after, modified_before, folders, leave, depth + 1)
                if pattern.accepts(after) and (folders or not is_folder):
                    info = _looked_at(access, entry, modified_before, folders)
                    if info is not None:
                        yield entry, info
        leave(descriptor)
    finally:
        os.close(descriptor)


def _looked_at(access: Access, entry: Place, modified_before: float | None, folders: bool) -> os.stat_result | None:
    """None for what is not meant after all, or is left out."""
    with access.leaving_out(entry.path):
        with access.about(entry.path):
            info = entry.lstat()
        if not is_older(info, modified_before) or (stat.S_ISDIR(info.st_mode) and not folders):
            return None
        if access.leaves_out(entry.path):
            return None
        access.check(entry.path)
        access.inspect(entry.path, info, links=True)
        return info
    return None


def is_older(info: os.stat_result, modified_before: float | None) -> bool:
    """Whether it was last modified before that, in seconds since the epoch. None: any is."""
    return modified_before is None or info.st_mtime < modified_before


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:  # the file is gone
        return False
