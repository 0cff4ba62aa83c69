"""Who is logged in: sessions in memory, known by a random cookie."""

from __future__ import annotations

import hashlib
import secrets
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from remit.web.viewer import Viewer

IDLE_SECONDS: Final = 12 * 3600
_MOST: Final = 100
_MOST_STREAMS: Final = 32


@dataclass
class Notice:
    """The result of something that the viewer asked for. It is shown once."""

    text: str
    good: bool = True


@dataclass
class Session:
    viewer: Viewer
    seen: float
    """When it was last used, on the server's clock."""
    notices: deque[Notice] = field(default_factory=lambda: deque(maxlen=5))
    streams: int = 0
    """How many live streams are open."""
    over: bool = False
    """It was logged out: its streams end."""

    @property
    def may_stream(self) -> bool:
        return self.streams < _MOST_STREAMS

    def take_notices(self) -> list[Notice]:
        taken = list(self.notices)
        self.notices.clear()
        return taken


class Sessions:
    """The cookie itself is not kept, only its digest."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sessions: dict[str, Session] = {}

    def begin(self, viewer: Viewer) -> str:
        """A session, and the cookie's value. Where there are too many, the one that was idle longest ends."""
        self._expire()
        while len(self._sessions) >= _MOST:
            self._end(min(self._sessions, key=lambda each: self._sessions[each].seen))
        cookie = secrets.token_urlsafe(32)
        self._sessions[_digest(cookie)] = Session(viewer, self._clock())
        return cookie

    def find(self, cookie: str) -> Session | None:
        """The session of a cookie, which is used by that."""
        self._expire()
        session = self._sessions.get(_digest(cookie))
        if session is not None:
            session.seen = self._clock()
        return session

    def end(self, cookie: str) -> None:
        self._end(_digest(cookie))

    def _end(self, digest: str) -> None:
        session = self._sessions.pop(digest, None)
        if session is not None:
            session.over = True

    def _expire(self) -> None:
        oldest = self._clock() - IDLE_SECONDS
        for digest in [each for each, session in self._sessions.items() if session.seen < oldest]:
            self._end(digest)


def _digest(cookie: str) -> str:
    return hashlib.sha256(cookie.encode("utf-8", "surrogateescape")).hexdigest()
