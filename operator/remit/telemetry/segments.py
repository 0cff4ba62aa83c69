"""The files of a trail: `audit.jsonl` is written to, `audit-000001.jsonl`, `audit-000002.jsonl` … are closed.

A closed file is never written to again. The first record of every file but the very first is of kind `segment`; it
names the file before it in `follows`, and continues its chain.
"""

from __future__ import annotations

import re
from pathlib import Path

_DIGITS = 6


def segment(path: Path, number: int) -> Path:
    """The name that the trail's file `path` gets when it is closed as the `number`-th, counted from 1."""
    return path.with_name(f"{path.stem}-{number:0{_DIGITS}}{path.suffix}")


def segments(path: Path) -> list[Path]:
    """The closed files of the trail whose newest file is `path`, oldest first. Raises `OSError`."""
    pattern = _closed(path)
    found = [(int(match[1]), each) for each in path.parent.iterdir() if (match := pattern.fullmatch(each.name))]
    return [each for _, each in sorted(found)]


def belongs(path: Path, other: Path) -> bool:
    """Whether a file called `other` would be taken for one of the trail whose newest file is `path`."""
    path, other = path.resolve(), other.resolve()
    return path.parent == other.parent and (path.name == other.name or _closed(path).fullmatch(other.name) is not None)


def _closed(path: Path) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(path.stem)}-(\d{{{_DIGITS},}}){re.escape(path.suffix)}")


def number_after(path: Path, follows: str) -> int:
    """The number of the file that follows the closed file `follows`; 1 when there was none."""
    digits = follows.removeprefix(f"{path.stem}-").removesuffix(path.suffix)
    return int(digits) + 1 if digits.isdigit() else 1
