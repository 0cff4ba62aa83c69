"""Globs of tasks below a folder, and whether one can match anything that a policy's glob matches. Pure.

`*` and `?` stand for characters of one name, and `**` for any number of folders, as in policies. In a glob of a task
`**` has to be a whole part, because it is walked part by part.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from remit.policy.argv import refused_character

ACROSS: Final = "**"
_STATES: Final = 50_000
_WILD: Final = ("*", "?", ACROSS)


def unacceptable_glob(glob: str) -> str | None:
    """None, or why no rule is asked about it."""
    if refused := refused_character(glob):
        return f"the glob has {refused[1]} in column {refused[0]}"
    parts = glob.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return f"the glob {glob!r} takes a detour; write it below path, without '..', '.', '//' or a '/' at either end"
    if any(ACROSS in part and part != ACROSS for part in parts):
        return f"in the glob {glob!r}, '**' has to be a whole part, as in '**/*.log'"
    return None


class Overlaps:
    """Answers whether globs of policies have a path in common with one of a task. The work is bounded, and where that
    does not suffice the answer is yes: what is found is judged path by path all the same."""

    def __init__(self, path: str, glob: str) -> None:
        self._task = [*path.rstrip("/"), "/", *_tokens(re.sub(r"(\*\*/)+", ACROSS, glob))]
        self._left = _STATES

    def with_(self, allowed: str) -> bool:
        below = allowed.removesuffix("/**")
        variants = [below] if below == allowed else [below, f"{below}/**"]
        return any(self._meet(_tokens(text)) for text in variants)

    def _meet(self, policy: Sequence[str]) -> bool:
        task, seen = self._task, {(0, 0)}
        waiting = [(0, 0)]
        while waiting:
            self._left -= 1
            if self._left < 0:
                return True
            at, to = waiting.pop()
            if at == len(task) and to == len(policy):
                return True
            for state in _next(task, at, policy, to):
                if state not in seen:
                    seen.add(state)
                    waiting.append(state)
        return False


def _next(one: Sequence[str], at: int, other: Sequence[str], to: int) -> list[tuple[int, int]]:
    found = []
    here = one[at] if at < len(one) else None
    there = other[to] if to < len(other) else None
    if here in {"*", ACROSS}:  # it stands for nothing more
        found.append((at + 1, to))
    if there in {"*", ACROSS}:
        found.append((at, to + 1))
    if here is not None and there is not None and _share(here, there):
        found.append((at if here in {"*", ACROSS} else at + 1, to if there in {"*", ACROSS} else to + 1))
    return found


def _share(here: str, there: str) -> bool:
    """Whether there is a character that both stand for."""
    if here in _WILD and there in _WILD:
        return True
    if here in _WILD:
        here, there = there, here
    return here == there or (there in _WILD and (here != "/" or there == ACROSS))


def _tokens(glob: str) -> list[str]:
    """Wildcards, and all other characters one by one."""
    return re.findall(r"\*\*|.", glob, re.DOTALL)
