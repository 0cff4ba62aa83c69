"""Globs of tasks below a folder, and whether one can match anything that a policy's glob matches. Pure.

They mean what they mean in policies (see `path_glob`), but that `a/**` is not `a` itself. `**` has to be a whole part,
because a task's glob is walked part by part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from remit.policy.argv import refused_character
from remit.policy.patterns import OPTIONAL, path_tokens

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
        self._task = [*path.rstrip("/"), "/", *path_tokens(glob, folder_itself=False)]
        self._left = _STATES

    def with_(self, allowed: str) -> bool:
        task, policy, seen = self._task, path_tokens(allowed), {(0, 0)}
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
    if OPTIONAL in {here, there}:
        ours = (1, 3) if here == OPTIONAL else (0,)
        theirs = (1, 3) if there == OPTIONAL else (0,)
        return [(at + skipped, to + passed) for skipped in ours for passed in theirs]
    if here in {"*", ACROSS}:  # the wildcard matches no more characters
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
