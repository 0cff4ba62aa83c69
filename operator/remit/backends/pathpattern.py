"""Patterns of paths, matched name by name, so that a tree is walked only where something may be found. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Final

from remit.policy.patterns import Pattern, path_glob

MAX_DEPTH: Final = 64
"""Folders may lie as deep in each other."""
_WILDCARD: Final = re.compile(r"[*?]")

State = frozenset[int]
"""How many parts of a pattern are behind it, after some folders, in each way in which it can match."""


class PathPattern:
    """`parts` are those of a path relative to a folder: `*` and `?` stay within one name, `**` stands for any number of
    folders, none included. With `whole_folders` everything below a folder that matches is meant, too; all, where there
    are no parts."""

    def __init__(self, parts: Sequence[str], *, whole_folders: bool = True) -> None:
        self._parts = tuple(parts)
        self._whole_folders = whole_folders
        self._globs: dict[str, Pattern] = {}
        self._fixed = next((at for at, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
        self.start: State = frozenset({0})

    @property
    def prefix(self) -> tuple[str, ...]:
        """The names before the first wildcard."""
        return self._parts[: self._fixed]

    def enter(self, state: State, name: str) -> State:
        """After `name` in a folder that was reached with `state`; empty: nothing there can match."""
        after = set[int]()
        for at in self._open(state):
            if at == len(self._parts):
                after |= {at} if self._whole_folders else set()
            elif self._parts[at] == "**":
                after |= {at, at + 1} if at == len(self._parts) - 1 else {at}
            elif self._matches(self._parts[at], name):
                after.add(at + 1)
        return frozenset(after)

    def goes_on(self, state: State) -> bool:
        """Whether anything in a folder that was reached with `state` can match."""
        return bool(state if self._whole_folders else state - {len(self._parts)})

    def only(self, state: State) -> str | None:
        """The one name in a folder that can match; None: any may."""
        names = {None if at == len(self._parts) else self._parts[at] for at in self._open(state)}
        name = names.pop() if len(names) == 1 else None
        return None if name is None or _WILDCARD.search(name) else name

    def accepts(self, state: State) -> bool:
        """Whether what was reached with `state` is meant."""
        return len(self._parts) in state

    def relative(self, names: Sequence[str]) -> str:
        """The path of a file at `names`: below where the first wildcard is; of a folder, below that."""
        if self._fixed == len(names):
            return names[-1]
        return "/".join(names[self._fixed :])

    def _open(self, state: State) -> set[int]:
        """Add the positions that follow where a `**` stands for nothing."""
        found = set(state)
        for at in sorted(state):
            while at < len(self._parts) and self._parts[at] == "**":
                at += 1
                found.add(at)
        return found

    def _matches(self, part: str, name: str) -> bool:
        if not _WILDCARD.search(part):
            return part == name
        glob = self._globs.setdefault(part, path_glob(part)) if part not in self._globs else self._globs[part]
        return glob.matches(os.fsencode(name).decode(errors="replace"))
