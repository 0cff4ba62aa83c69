"""Multi-pattern substring search with a bounded run time, even if an attacker chooses both the patterns and the text.

A few patterns are searched one by one with `bytes.find`. Many are looked up in a sorted list wherever four bytes of the
text begin a pattern, so their number hardly matters. Both ways count their work. Once it exceeds what ordinary texts
need, the rest of the text counts as found.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from remit.telemetry.encodings import MIN_LENGTH, PIECE

_FEW: Final = 64
# Maximum work, in steps of about 50 ns: 65,536, plus one for each byte of the text.
_ALLOWED: Final = 1 << 16
_FIND_FOR_EACH_BYTE: Final = 1 / 8
_LOOK_UP: Final = 8
_LOOK_UP_FOR_EACH_BYTE: Final = 1 / 16


class MultiPattern:
    """The patterns to search for, counted by how often each was added. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: Counter[bytes] = Counter()
        self._ordered: list[bytes] = []
        self._starts: Counter[bytes] = Counter()
        """The number of patterns that begin with these four bytes."""
        self._longest = 0

    def __bool__(self) -> bool:
        return bool(self._held)

    def add(self, forms: Iterable[bytes]) -> None:
        """Add patterns of MIN_LENGTH to PIECE bytes each."""
        with self._lock:
            for form, count in Counter(forms).items():
                if form not in self._held:
                    self._ordered.append(form)
                    self._starts[form[:MIN_LENGTH]] += 1
                self._held[form] += count
            self._ordered.sort()
            self._longest = max(map(len, self._ordered), default=0)

    def remove(self, forms: Iterable[bytes]) -> None:
        """Undo one addition of each pattern."""
        with self._lock:
            for form, count in Counter(forms).items():
                self._held[form] -= count if form in self._held else 0
                if self._held[form] <= 0:
                    del self._held[form]
                    self._starts[form[:MIN_LENGTH]] -= 1
                    if self._starts[form[:MIN_LENGTH]] <= 0:
                        del self._starts[form[:MIN_LENGTH]]
            self._ordered = [form for form in self._ordered if form in self._held]
            self._longest = max(map(len, self._ordered), default=0)

    def spans(self, data: bytes) -> list[tuple[int, int]]:
        """The positions of all matches, in order. They may overlap."""
        with self._lock:
            return sorted(self._one_by_one(data) if len(self._held) <= _FEW else self._wherever_one_begins(data))

    def possible_start(self, data: bytes) -> int:
        """The first position from which all the rest could be the beginning of one; `len(data)` if there is none."""
        with self._lock:
            for position in range(max(0, len(data) - self._longest + 1), len(data)):
                if data[position : position + MIN_LENGTH] in self._starts or position > len(data) - MIN_LENGTH:
                    rest = data[position:]
                    # Patterns that begin with `rest` follow it directly in the order.
                    after = bisect_right(self._ordered, rest)
                    if after < len(self._ordered) and self._ordered[after].startswith(rest):
                        return position
            return len(data)

    def _one_by_one(self, data: bytes) -> Iterator[tuple[int, int]]:
        work = _ALLOWED + len(data)
        for form in self._held:
            position = data.find(form)
            while position >= 0:
                yield position, position + len(form)
                work -= 1 + int(len(form) * _FIND_FOR_EACH_BYTE)
                if work < 0:
                    yield 0, len(data)
                    return
                position = data.find(form, position + 1)

    def _wherever_one_begins(self, data: bytes) -> Iterator[tuple[int, int]]:
        work, starts = _ALLOWED + len(data), self._starts
        for position in [at for at in range(len(data) - MIN_LENGTH + 1) if data[at : at + MIN_LENGTH] in starts]:
            window = data[position : position + PIECE]
            while (after := bisect_right(self._ordered, window)) and len(window) >= MIN_LENGTH:
                before = self._ordered[after - 1]
                same = _alike(before, window)
                work -= _LOOK_UP + int(same * _LOOK_UP_FOR_EACH_BYTE)
                if work < 0:
                    yield position, len(data)
                    return
                if same == len(before):
                    yield position, position + same
                    break  # the longest pattern that begins here
                window = window[:same]  # a longer match would be between `before` and this one in the order


def _alike(one: bytes, other: bytes) -> int:
    """How many bytes they have in common at the front."""
    same, differs = 0, min(len(one), len(other)) + 1
    while differs - same > 1:
        middle = (same + differs) // 2
        same, differs = (middle, differs) if one[:middle] == other[:middle] else (same, middle)
    return same
