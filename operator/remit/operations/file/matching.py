"""What a glob matches below a folder, found by descriptor: links are not crossed, and nothing is held in memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import Final

from remit.operations.file.access import Access, below
from remit.operations.file.tree import OPEN_FOLDER, check_depth
from remit.policy.globs import ACROSS
from remit.policy.patterns import Pattern, path_glob
from remit.sandbox.beneath import Place

Parts = frozenset[int]
"""Which parts of a glob the next name may be for."""


class Glob:
    """A glob, name by name. `text` is one that policy accepts."""

    def __init__(self, text: str) -> None:
        self._parts: Final[list[Pattern | None]] = [
            None if part == ACROSS else path_glob(part) for part in text.split("/")
        ]

    def first(self) -> Parts:
        return self._with_next({0})

    def takes(self, parts: Parts, name: str) -> bool:
        """Whether it ends with `name`."""
        last = len(self._parts) - 1
        return last in parts and self._is_for(last, name)

    def below(self, parts: Parts, name: str) -> Parts:
        """For what is in a folder `name`; empty where nothing in it can match."""
        last = len(self._parts) - 1
        found = {part for part in parts if self._parts[part] is None}
        found |= {part + 1 for part in parts if part < last and self._parts[part] and self._is_for(part, name)}
        return self._with_next(found)

    def _with_next(self, parts: set[int]) -> Parts:
        """`**` may be for no folder at all."""
        found, last = set(parts), len(self._parts) - 1
        for part in sorted(parts):
            while self._parts[part] is None and part < last:
                part += 1
                found.add(part)
        return frozenset(found)

    def _is_for(self, part: int, name: str) -> bool:
        pattern = self._parts[part]
        return pattern is None or pattern.matches(os.fsencode(name).decode(errors="replace"))


def matches(
    access: Access,
    top: Place,
    glob: Glob,
    modified_before: float | None,
    *,
    folders: bool,
    leave: Callable[[int], None] = lambda descriptor: None,
) -> Iterator[tuple[Place, os.stat_result]]:
    """Each entry below `top` that `glob` matches and policy allows, once, in no order; directories only with `folders`.
    `leave` is called with each folder's descriptor when all in it was seen.

    Raises `PolicyDenied` for one that policy does not allow.
    """
    return _within(access, top, glob, glob.first(), modified_before, folders, leave, 0)


def _within(
    access: Access,
    at: Place,
    glob: Glob,
    parts: Parts,
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
                if is_folder and (inside := glob.below(parts, one.name)):
                    with access.leaving_out(entry.path):
                        yield from _within(access, entry, glob, inside, modified_before, folders, leave, depth + 1)
                if glob.takes(parts, one.name) and (folders or not is_folder):
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
    except OSError:  # it is gone
        return False
