"""Warning headers, within the bounds of kube-apiserver's `AddWarning`: clients give up on larger headers."""

from __future__ import annotations

from collections.abc import Iterable

MAX_TOTAL = 4096
"""Characters of all warnings of one answer. Beyond it, each is cut and the last ones are left out."""
MAX_EACH_WHEN_CUT = 256
MAX_HEADER_BYTES = 8000
"""Limit of one header, escaped and encoded. aiohttp's client refuses headers of more than 8190 bytes."""


def warning_headers(texts: Iterable[str]) -> list[str]:
    """The values of the Warning headers, one for each text; a text that comes again is told once."""
    told = list(dict.fromkeys(text for text in texts if text))
    headers = list(map(_header, told))
    if sum(map(len, told)) > MAX_TOTAL or any(len(header.encode()) > MAX_HEADER_BYTES for header in headers):
        return list(map(_header, _cut(told)))
    return headers


def _cut(texts: Iterable[str]) -> list[str]:
    told: list[str] = []
    total = 0
    for text in texts:
        if total >= MAX_TOTAL:
            break
        told.append(text[:MAX_EACH_WHEN_CUT])
        total += len(told[-1])
    return told


def _header(text: str) -> str:
    return f'299 - "{_escaped(text)}"'


def _escaped(text: str) -> str:
    """The text as a quoted-string of RFC 9110, without control characters."""
    plain = "".join(character if character.isprintable() else " " for character in text)
    return plain.replace("\\", "\\\\").replace('"', '\\"')
