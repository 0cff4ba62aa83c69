"""Which object a path names."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


def place(request: web.Request) -> tuple[str, str]:
    """The namespace and the name of the path. Raises 404 for what no object is called."""
    namespace, name = request.match_info["namespace"], request.match_info["name"]
    if not _NAME.fullmatch(namespace) or not _NAME.fullmatch(name):
        raise web.HTTPNotFound
    return namespace, name
