"""Suggestions for names that are misspelt."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

_LONGEST: Final = 256
"""Comparing takes time that grows with the square of the length."""
_MOST: Final = 2


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean shop?`, or empty: the known names that are most like `name`, or else those that begin with it."""
    candidates = sorted({each for each in known if len(each) <= _LONGEST})
    if not name or len(name) > _LONGEST:
        return ""
    like = difflib.get_close_matches(name, candidates, n=_MOST, cutoff=0.7)
    found = like or [each for each in candidates if each.startswith(name)][:_MOST]
    return f"; did you mean {' or '.join(found)}?" if found else ""
