"""Doing the same to many instances."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any


async def all_of(doing: Iterable[Coroutine[Any, Any, object]]) -> None:
    """All at once; the first error, once all are done."""
    for result in await asyncio.gather(*doing, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
