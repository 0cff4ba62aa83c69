"""The encodings in which a secret may appear in output. Pure."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shlex
from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import quote, unquote, urlsplit

MIN_LENGTH: Final = 4
"""Bytes. Shorter values are not redacted: replacing every `1` or `on` would hide nothing and garble all output."""
MOST_BYTES: Final = 1 << 20
MOST_VALUES: Final = 1024
MOST_LINES: Final = 4096
"""Limits for all secrets of one task or release together, because each encoding of each is searched in all output."""
PIECE: Final = 4096
"""Bytes of the longest pattern. Longer values are searched in pieces of this size."""
_MIN_LINE_LENGTH: Final = 8
_MIN_CORE_LENGTH: Final = 8
_BASE64_WIDTHS: Final = (76, 64)


def excess(values: Iterable[str]) -> str | None:
    """None, or why these are more secrets than can be redacted."""
    found = {value.strip() for value in values}
    for count, most, what in (
        (len(found), MOST_VALUES, "values"),
        (sum(map(len, found)), MOST_BYTES, "bytes"),
        (sum(value.count("\n") for value in found), MOST_LINES, "lines"),
    ):
        if count > most:
            return f"has {count} {what} of Secrets, {most} are the most; what is no secret belongs in a ConfigMap"
    return None


def told_as(value: str) -> set[str]:
    """The texts by which programs tell a secret: as it is, without the white space around it, as a file's last line end
    is easily lost, and the password alone where it is a URL."""
    texts = {value, value.strip()}
    with contextlib.suppress(ValueError):
        if password := urlsplit(value).password:
            texts |= {password, unquote(password)}
    return texts


def encodings(value: str | bytes) -> frozenset[bytes]:
    """The ways in which a value may be written, none longer than PIECE; none for a value that is too short.

    A long one, such as a bundle of certificates, is looked for as it is, in base64 and by its lines alone.
    """
    raw = value.encode(errors="surrogateescape") if isinstance(value, str) else value
    if len(raw) < MIN_LENGTH:
        return frozenset()
    forms = {raw, base64.b64encode(raw)}
    text = None
    with contextlib.suppress(UnicodeDecodeError):
        text = raw.decode()
    if text and "\n" in text:
        # Also each line without its indentation and "\r", because programs print lines in this form.
        lines = (line.strip() for line in text.split("\n"))
        forms.update(line.encode() for line in lines if len(line) >= _MIN_LINE_LENGTH)
    if len(raw) <= PIECE:
        forms.update(_base64_cores(raw), _base64_lines(raw), (raw.hex().encode(), raw.hex().upper().encode()))
        if text:
            in_quotes = shlex.quote(f" {text}")[2:-1]  # the value may also be quoted in the middle of a longer word
            quoted = repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""), in_quotes
            forms.update(form.encode() for form in quoted)
    return frozenset(piece for form in forms for piece in _pieces(form))


def _pieces(form: bytes) -> Iterator[bytes]:
    """Pieces of about equal length, because a short rest would match everywhere."""
    count = -(-len(form) // PIECE)
    cuts = [len(form) * number // count for number in range(count + 1)]
    return (form[start:end] for start, end in itertools.pairwise(cuts))


def _base64_lines(raw: bytes) -> Iterator[bytes]:
    """Base64 in lines, as base64(1), MIME and PEM write longer content."""
    encoded = base64.b64encode(raw)
    for width in _BASE64_WIDTHS:
        lines = (encoded[start : start + width] for start in range(0, len(encoded), width))
        yield from (line for line in lines if len(line) >= _MIN_CORE_LENGTH)


def _base64_cores(raw: bytes) -> Iterator[bytes]:
    """The characters that base64 writes for `raw` whatever stands around it, for each of its three alignments."""
    for offset in range(3):
        first, last = -(-offset * 8 // 6), (offset + len(raw)) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            core = encode(bytes(offset) + raw)[first:last]
            if len(core) >= _MIN_CORE_LENGTH:
                yield core
