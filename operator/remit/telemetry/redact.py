"""Keeps secret values out of everything that is written: logs, the audit trail, output.

A `Redactor` replaces each registered value by `[redacted]` wherever it appears, also where it appears as Python, JSON,
a shell, a URL, hexadecimal or base64 would write it, the latter also in the middle of a longer text such as
`user:password`. What several values cover together is replaced as one.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from remit.telemetry.encodings import MIN_LENGTH, encodings
from remit.telemetry.multipattern import MultiPattern

MASK: Final = "[redacted]"
_MASK: Final = MASK.encode()
_EVERYWHERE: Final = ""
_ELLIPSIS: Final = re.compile("( ?…)")


class Redactor:
    """The secret values known now. Safe to share between threads."""

    def __init__(self, values: Iterable[str | bytes] = ()) -> None:
        self._all = MultiPattern()
        self._scopes: dict[str, MultiPattern] = {_EVERYWHERE: MultiPattern()}
        self._add(_EVERYWHERE, _forms(values))

    def register(self, value: str | bytes) -> bool:
        """Redact `value` from now on, until `forget` is called as often. False when it is too short to be a secret."""
        forms = _forms([value])
        self._add(_EVERYWHERE, forms)
        return bool(forms)

    def forget(self, value: str | bytes) -> None:
        """Take one registration of `value` back."""
        self._remove(_EVERYWHERE, _forms([value]))

    @contextlib.contextmanager
    def holding(self, values: Iterable[str | bytes], scope: str = _EVERYWHERE) -> Iterator[Redactor]:
        """Redact `values` for the length of a `with` block; of what has a scope, in that one. What it gives redacts
        them alone."""
        forms = _forms(values)
        own = Redactor()
        own._add(_EVERYWHERE, forms)
        self._add(scope, forms)
        try:
            yield own
        finally:
            self._remove(scope, forms)

    def redact(self, text: str, scope: str | None = None) -> str:
        """`scope`: what is written is about that one. Who chose the secrets of another must not blank it."""
        if not self._all:
            return text
        redacted = self.redact_bytes(text.encode(errors="surrogatepass"), scope)
        try:
            return redacted.decode(errors="surrogatepass")
        except UnicodeDecodeError:  # part of a secret that is not text, cut inside a character
            return redacted.decode(errors="replace")

    def redact_cut(self, text: str) -> str:
        """The same for a text that was cut off wherever it has an ellipsis: the beginning of a value is replaced there,
        too, where it is as long as a value must be."""
        *cut, rest = _ELLIPSIS.split(self.redact(text))
        for index, piece in enumerate(cut[::2]):
            data = piece.encode(errors="surrogatepass")
            start = self._all.possible_start(data)
            if len(data) - start >= MIN_LENGTH:
                cut[2 * index] = data[:start].decode(errors="replace") + MASK
        return "".join([*cut, rest])

    def redact_bytes(self, data: bytes, scope: str | None = None) -> bytes:
        known = [self._all] if scope is None else [self._scopes.get(each) for each in {_EVERYWHERE, scope}]
        return _masked(data, sorted(span for patterns in known if patterns for span in patterns.spans(data)))

    def scrub(self, value: Any, scope: str | None = None) -> Any:
        """The same for JSON-like data of any depth, keys included. What is not JSON-like becomes its redacted `str`."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.redact(str(value), scope)
        if isinstance(value, dict):
            return {self.redact(str(key), scope): self.scrub(item, scope) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.scrub(item, scope) for item in value]
        return self.redact(value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value), scope)

    def stream(self) -> RedactedStream:
        """A redactor for data that comes in chunks."""
        return RedactedStream(self._all)

    def _add(self, scope: str, forms: Iterable[bytes]) -> None:
        for patterns in (self._all, self._scopes.setdefault(scope, MultiPattern())):
            patterns.add(forms)

    def _remove(self, scope: str, forms: Iterable[bytes]) -> None:
        scoped = self._scopes.get(scope, MultiPattern())  # missing if the scope had no secrets
        for patterns in (self._all, scoped):
            patterns.remove(forms)
        if scope != _EVERYWHERE and not scoped:
            self._scopes.pop(scope, None)


class RedactedStream:
    """Redacts chunk by chunk; a value that is split over chunks is found too.

    Only what may be the beginning of a secret is held back, so that live output is not delayed.
    """

    def __init__(self, patterns: MultiPattern) -> None:
        self.replacements = 0
        """How many masks were put into what was shown so far."""
        self._patterns = patterns
        self._held = b""
        self._covered = 0  # number of held bytes that belong to a secret whose mask was written already

    def feed(self, chunk: bytes) -> bytes:
        """Return what can be shown after `chunk`."""
        if not self._patterns and not self._held:
            return chunk
        self._held += chunk
        return self._release(self._patterns.possible_start(self._held))

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        return self._release(len(self._held))

    def _release(self, cut: int) -> bytes:
        spans = self._patterns.spans(self._held)
        if self._covered:
            spans.insert(0, (0, self._covered))
        shown: list[bytes] = []
        position = 0
        for start, end in _merged(spans):
            mask_is_out = self._covered and not start
            if start >= cut and not mask_is_out:
                break
            if not mask_is_out:
                shown += [self._held[position:start], _MASK]
                self.replacements += 1
            position = end
        shown.append(self._held[position:cut])
        self._covered = max(0, position - cut)
        self._held = self._held[cut:]
        return b"".join(shown)


def _forms(values: Iterable[str | bytes]) -> list[bytes]:
    return [form for value in values for form in encodings(value)]


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    current: tuple[int, int] | None = None
    for start, end in spans:
        if current is None:
            current = (start, end)
        elif start < current[1]:
            current = (current[0], max(current[1], end))
        else:
            yield current
            current = (start, end)
    if current is not None:
        yield current


def _masked(data: bytes, spans: list[tuple[int, int]]) -> bytes:
    if not spans:
        return data
    shown: list[bytes] = []
    position = 0
    for start, end in _merged(spans):
        shown += [data[position:start], _MASK]
        position = end
    shown.append(data[position:])
    return b"".join(shown)
