"""The views, and what their forms do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from remit.web.live import Events, Show
from remit.web.pages.overview import overview
from remit.web.sessions import Session

VIEWS: Final[Sequence[tuple[str, Show, Callable[[web.Request, Session], Events] | None]]] = (("/", overview, None),)
"""The path, what is shown there, and what its live stream tells besides the regions."""
ACTIONS: Final[Sequence[tuple[str, Callable[[web.Request, Session], Awaitable[str]]]]] = ()
DOWNLOADS: Final[Sequence[tuple[str, Callable[[web.Request, Session], Awaitable[web.StreamResponse]]]]] = ()
