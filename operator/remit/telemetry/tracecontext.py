"""Spans as plain data, and the W3C trace context that links them. Ids are derived from what a span tells of, so that
every operator gives it the same ones and nothing has to be remembered. Pure."""

from __future__ import annotations

import datetime
import hashlib
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

TRACEPARENT: Final = "remit.dev/traceparent"
"""The annotation of a task that continues somebody's trace."""
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_LONGEST: Final = 512
_SAMPLED: Final = 1
_NO_VERSION: Final = "ff"


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Names one span of one trace."""

    trace_id: int
    span_id: int
    sampled: bool = True

    def __str__(self) -> str:
        """The context as a `traceparent` header."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{self.sampled:02x}"

    def child(self, *of: object) -> TraceContext:
        """The context of a span in the same trace that is identified by `of`."""
        return TraceContext(self.trace_id, derived_id(8, *of), self.sampled)


@dataclass(frozen=True, slots=True)
class Span:
    """Something that took time and is over."""

    name: str
    context: TraceContext
    parent: TraceContext | None
    start: datetime.datetime
    end: datetime.datetime
    """Never before `start`."""
    attributes: Mapping[str, str | int | float | bool] = field(default_factory=dict)
    error: str = ""
    """The code of what went wrong, if something did."""


def parse_traceparent(text: str | None) -> TraceContext | None:
    """Parse a `traceparent`; None for one that W3C Trace Context does not allow."""
    if not text or len(text) > _LONGEST or (found := _TRACEPARENT.fullmatch(text)) is None:
        return None
    version, trace_id, span_id, flags, rest = found.groups()
    if version == _NO_VERSION or (version == "00" and rest):
        return None
    context = TraceContext(int(trace_id, 16), int(span_id, 16), bool(int(flags, 16) & _SAMPLED))
    return context if context.trace_id and context.span_id else None


def trace_id_of(uid: str) -> int:
    """The trace of the object with this uid: the uid itself, without its dashes, where that is a UUID."""
    try:
        return uuid.UUID(uid).int or derived_id(16, uid)
    except ValueError:
        return derived_id(16, uid)


def derived_id(size: int, *of: object) -> int:
    """An id of `size` bytes for what `of` identifies. Never 0."""
    digest = hashlib.sha256("\0".join(str(part) for part in of).encode()).digest()
    return int.from_bytes(digest[:size], "big") or 1
