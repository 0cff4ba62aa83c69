"""aiohttp's log of the connections of a server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from aiohttp.http_exceptions import HttpProcessingError


class RequestLogger(logging.LoggerAdapter[logging.Logger]):
    """Leaves out requests that are not HTTP: their text, which may hold a token, is in the exception's message.

    `on_malformed` is called for each of them.
    """

    def __init__(self, name: str, on_malformed: Callable[[], None]) -> None:
        super().__init__(logging.getLogger(name))
        self._on_malformed = on_malformed

    def exception(self, msg: object, *args: object, **options: Any) -> None:
        if isinstance(options.get("exc_info"), HttpProcessingError):
            self._on_malformed()
        else:
            super().exception(msg, *args, **options)
