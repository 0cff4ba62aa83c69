"""Resolves the symbolic links of an image at the places where something is mounted in a container of it.

An engine follows them, as root, and makes the folder that they lead to where there is none: in a folder of the host, if
that is mounted already. So they are looked at before there is a container that has anything of the host.
"""

from __future__ import annotations

import contextlib
import posixpath
import stat
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.docker.archives import PathStat, path_stat
from remit.backends.docker.engine import Engine, create
from remit.backends.docker.holding import looking
from remit.backends.failure import OperationFailed
from remit.errors import InvalidInput

_MOST_LINKS: Final = 40
_MOST_KNOWN: Final = 10_000
_NOT_THERE: Final = PathStat(0, "")


class ImageLinks:
    """Symbolic links in the images of `engine`. An image never changes, so the results are cached."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._known: dict[tuple[str, str], PathStat] = {}

    async def resolved(
        self, name: str, request: AttemptRequest, image: Mapping[str, Any], paths: Sequence[str]
    ) -> dict[str, str]:
        """Resolve each of `paths` in `image`, as the engine inspected it. The result is by the path.

        What is not known yet is looked at in a container called `name`, which never runs. Whoever removes the attempt
        removes it, too, should this process end meanwhile. Raises `OperationFailed`, and `InvalidInput` for links that
        lead in a circle.
        """
        container = _Container(self._engine, name, lambda: looking(request, image))

        async def look(path: str) -> PathStat:
            key = (str(image["Id"]), path)
            if key not in self._known:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                self._known[key] = await container.stat(path)
            return self._known[key]

        async with container.removed():
            return {path: await _follow(path, look) for path in dict.fromkeys(paths)}


class _Container:
    """One that never runs, made when it is first asked for."""

    def __init__(self, engine: Engine, name: str, config: Callable[[], dict[str, Any]]) -> None:
        self._engine, self._name, self._config = engine, name, config
        self._id = ""

    async def stat(self, path: str) -> PathStat:
        if not self._id:
            self._id = await self._engine.call(lambda client: create(client, self._name, self._config()))
        try:
            return await self._engine.call(lambda client: path_stat(client, self._id, path))
        except OperationFailed as error:
            if error.reason != "NotFound":
                raise
            return _NOT_THERE

    @contextlib.asynccontextmanager
    async def removed(self) -> AsyncIterator[None]:
        """In the end, where nothing was raised: then the attempt goes with all that it has."""
        yield
        if self._id:
            await self._engine.call(lambda client: client.remove_container(self._id, v=True, force=True))


async def _follow(path: str, look: Callable[[str], Any]) -> str:
    for _ in range(_MOST_LINKS):
        here = ""
        names = path.strip("/").split("/")
        for at, name in enumerate(names):
            here = f"{here}/{name}"
            found: PathStat = await look(here)
            if stat.S_ISLNK(found.mode):
                path = posixpath.normpath(posixpath.join(found.link_target, *names[at + 1 :]))
                break
            if not stat.S_ISDIR(found.mode):
                return path
        else:
            return path
    raise InvalidInput(f"more than {_MOST_LINKS} links of the image are on the way; choose another path", field=path)
