"""Keeps secret values out of everything that is written: logs, the audit trail, output.

A `Redactor` replaces each registered value by `[redacted]` wherever it appears, also where it appears as Python, JSON,
a shell, a URL, hexadecimal or base64 would write it, the latter also in the middle of a longer text such as
`user:password`. What several values cover together is replaced as one.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shlex
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, AnyStr, Final
from urllib.parse import quote

MASK: Final = "[redacted]"
MIN_LENGTH: Final = 4
"""In bytes. Shorter values are not registered: to blank every `1` or `on` hides nothing and garbles everything."""
_MIN_LINE_LENGTH: Final = 8
_MIN_CORE_LENGTH: Final = 8


class Redactor:
    """The secret values known now. Safe to share between threads."""

    def __init__(self, values: Iterable[str | bytes] = ()) -> None:
        self._lock = threading.Lock()
        self._held: Counter[bytes] = Counter()
        self._bytes: tuple[bytes, ...] = ()
        self._text: tuple[str, ...] = ()
        for value in values:
            self.register(value)

    def register(self, value: str | bytes) -> bool:
        """Redact `value` from now on, until `forget` is called as often. False when it is too short to be a secret."""
        forms = _forms(value)
        self._count(forms, 1)
        return bool(forms)

    def forget(self, value: str | bytes) -> None:
        """Take one registration of `value` back."""
        self._count(_forms(value), -1)

    @contextlib.contextmanager
    def holding(self, values: Iterable[str | bytes]) -> Iterator[None]:
        """Redact `values` for the length of a `with` block."""
        registered = tuple(values)
        for value in registered:
            self.register(value)
        try:
            yield
        finally:
            for value in registered:
                self.forget(value)

    def redact(self, text: str) -> str:
        return _mask(text, _spans(text, self._text), MASK)

    def redact_bytes(self, data: bytes) -> bytes:
        return _mask(data, _spans(data, self._bytes), MASK.encode())

    def scrub(self, value: Any) -> Any:
        """The same for JSON-like data of any depth, keys included. What is not JSON-like becomes its redacted `str`."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.redact(str(value))
        if isinstance(value, dict):
            return {self.redact(str(key)): self.scrub(item) for key, item in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.scrub(item) for item in value]
        return self.redact(value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value))

    def stream(self) -> RedactedStream:
        """A redactor for data that comes in chunks. It knows the values that are registered now."""
        return RedactedStream(self._bytes)

    def _count(self, forms: frozenset[bytes], change: int) -> None:
        with self._lock:
            for form in forms:
                self._held[form] += change
            self._held = +self._held
            self._bytes = tuple(self._held)
            self._text = tuple(_decoded(self._held))


class RedactedStream:
    """Redacts chunk by chunk; a value that is split over chunks is found too.

    Only what may be the beginning of a secret is held back, so that live output is not delayed.
    """

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        self._held = b""
        self._covered = 0  # how much of what is held belongs to a secret whose mask is already out

    def feed(self, chunk: bytes) -> bytes:
        """What can be shown after `chunk`."""
        if not self._secrets:
            return chunk
        self._held += chunk
        return self._release(self._possible_start())

    def finish(self) -> bytes:
        """The rest, at the end of the stream."""
        return self._release(len(self._held))

    def _release(self, cut: int) -> bytes:
        spans = _spans(self._held, self._secrets)
        if self._covered:
            spans.insert(0, (0, self._covered))
        shown: list[bytes] = []
        position = 0
        for start, end in _merged(spans):
            mask_is_out = self._covered and not start
            if start >= cut and not mask_is_out:
                break
            if not mask_is_out:
                shown += [self._held[position:start], MASK.encode()]
            position = end
        shown.append(self._held[position:cut])
        self._covered = max(0, position - cut)
        self._held = self._held[cut:]
        return b"".join(shown)

    def _possible_start(self) -> int:
        """The first position from which all that is held could be the beginning of a secret."""
        cut = len(self._held)
        for secret in self._secrets:
            position = self._held.find(secret[:1], max(0, len(self._held) - len(secret) + 1))
            while 0 <= position < cut:
                if secret.startswith(self._held[position:]):
                    cut = position
                    break
                position = self._held.find(secret[:1], position + 1)
        return cut


def _forms(value: str | bytes) -> frozenset[bytes]:
    """The ways in which a value may be written."""
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    if len(raw) < MIN_LENGTH:
        return frozenset()
    forms = {raw, base64.b64encode(raw), *_base64_cores(raw), raw.hex().encode(), raw.hex().upper().encode()}
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode()
        quoted = [repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""), shlex.quote(text)]
        lines = [line for line in text.split("\n") if len(line) >= _MIN_LINE_LENGTH] if "\n" in text else []
        forms.update(form.encode() for form in quoted + lines)
    return frozenset(forms)


def _base64_cores(raw: bytes) -> Iterator[bytes]:
    """The characters that base64 writes for `raw` whatever stands around it, for each of its three alignments."""
    for offset in range(3):
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(bytes(offset) + raw)[first:last]
            if len(core) >= _MIN_CORE_LENGTH:
                yield core


def _decoded(values: Iterable[bytes]) -> Iterator[str]:
    for value in values:
        with contextlib.suppress(UnicodeDecodeError):
            yield value.decode()


def _spans(data: AnyStr, secrets: Iterable[AnyStr]) -> list[tuple[int, int]]:
    """Where secrets are, in order; they may overlap."""
    spans = []
    for secret in secrets:
        position = data.find(secret)
        while position >= 0:
            spans.append((position, position + len(secret)))
            position = data.find(secret, position + 1)
    return sorted(spans)


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


def _mask(data: AnyStr, spans: list[tuple[int, int]], mask: AnyStr) -> AnyStr:
    if not spans:
        return data
    shown: list[AnyStr] = []
    position = 0
    for start, end in _merged(spans):
        shown += [data[position:start], mask]
        position = end
    shown.append(data[position:])
    return data[:0].join(shown)
