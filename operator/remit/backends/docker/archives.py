"""The archives that a Docker engine makes of a container's files, read from a thread."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import contextlib
import errno
import http.client
import json
import stat
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import docker
import requests
import urllib3

from remit.backends.docker.client import cut
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed

_KINDS_OF_GO: Final = {
    1 << 31: stat.S_IFDIR,
    1 << 27: stat.S_IFLNK,
    1 << 26: stat.S_IFBLK,
    1 << 25: stat.S_IFIFO,
    1 << 24: stat.S_IFSOCK,
    1 << 21: stat.S_IFCHR,
    1 << 19: stat.S_IFCHR,
}
"""What a mode says in Go's os.FileMode, in which the engine tells it."""
_GONE: Final = (
    "it is gone: its Docker engine was stopped, or somebody ended the container that holds it until it is read"
)
_LATE: Final = "it could not be read in time"
_T = TypeVar("_T")


class EngineArchives:
    """`Archives` of the container `id`, until `seconds` are over or it was `stop`ped.

    The container is the attempt's holder. While that runs, what it holds in memory is what the attempt left; an engine
    that was restarted meanwhile would make archives of empty folders. Whether it runs is looked at where its archive is
    open: that holds the folders, too.
    """

    def __init__(self, engine: Engine, id_: str, seconds: float) -> None:
        self._engine, self._id = engine, id_
        self._loop = asyncio.get_running_loop()
        self._end = time.monotonic() + seconds
        self._stopped = False
        self._opened: requests.Response | None = None

    def stop(self) -> None:
        """Have whatever reads fail, also what waits for the next byte."""
        self._stopped = True
        if (opened := self._opened) is not None:
            cut(opened)

    def mode(self, path: str) -> int:
        """See `Archives.mode`."""
        try:
            return self._asked(self._engine.call(lambda client: path_stat(client, self._id, path))).mode
        except FileNotFoundError:
            self._check_runs()
            return 0

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[_Body]:
        """See `Archives.open`."""
        response = self._asked(self._engine.call(lambda client: _archive(client, self._id, path)))
        with contextlib.closing(response):
            self._opened = response  # `_check_runs` reports a container that stopped before
            try:
                self._check_runs()
                yield _Body(response, self._check)
            finally:
                self._opened = None

    def _check_runs(self) -> None:
        filters = {"id": self._id, "status": "running"}
        if not self._asked(self._engine.call(lambda client: client.containers(filters=filters))):
            raise OSError(errno.EIO, _GONE)

    def _asked(self, asking: Coroutine[Any, Any, _T]) -> _T:
        try:
            self._check()
        except BaseException:
            asking.close()
            raise
        future = asyncio.run_coroutine_threadsafe(asking, self._loop)
        try:
            return future.result(max(0.0, self._end - time.monotonic()))
        except OperationFailed as error:
            number = errno.ENOENT if error.reason == "NotFound" else errno.EIO
            raise OSError(number, str(error)) from None
        except TimeoutError:
            raise TimeoutError(errno.ETIMEDOUT, _LATE) from None
        except concurrent.futures.CancelledError:
            raise OSError(errno.ECANCELED, "the operator is being stopped") from None
        finally:
            future.cancel()

    def _check(self) -> None:
        """Raises OSError when nothing is to be read any more."""
        if self._stopped:
            raise OSError(errno.ECANCELED, "the operator is being stopped")
        if time.monotonic() > self._end:
            raise TimeoutError(errno.ETIMEDOUT, _LATE)


class _Body:
    """The body of an answer, which the engine sends while it is read. A pause may be as long as for any answer."""

    def __init__(self, response: requests.Response, check: Callable[[], None]) -> None:
        self._response, self._check = response, check

    def read(self, size: int, /) -> bytes:
        self._check()
        try:
            read = bytes(self._response.raw.read(size))
        except (urllib3.exceptions.HTTPError, http.client.HTTPException) as error:
            self._check()
            raise OSError(errno.EIO, f"the Docker engine broke off: {error}") from None
        self._check()  # a truncated response can look like a complete one
        return read


def _archive(client: docker.APIClient, id_: str, path: str) -> requests.Response:
    """Like the SDK's own function, which waits for a silent engine for ever."""
    return _asking(client, client.get, id_, path, stream=True, headers={"Accept-Encoding": "identity"})


@dataclass(frozen=True, slots=True)
class PathStat:
    """`mode` is as `st_mode`, of a link its own. `link_target` is where a link leads, all links on the way followed."""

    mode: int
    link_target: str


def path_stat(client: docker.APIClient, id_: str, path: str) -> PathStat:
    """The state of `path` in a container. Links in its parent folders are followed."""
    with contextlib.closing(_asking(client, client.head, id_, path, timeout=client.timeout)) as response:
        told = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
    mode = told["mode"]
    kinds = [kind for bit, kind in _KINDS_OF_GO.items() if mode & bit]
    return PathStat(int((kinds[0] if kinds else stat.S_IFREG) | (mode & 0o777)), str(told["linkTarget"]))


def _asking(client: Any, verb: Callable[..., requests.Response], id_: str, path: str, **how: Any) -> requests.Response:
    response = verb(client._url("/containers/{0}/archive", id_), params={"path": path}, **how)
    client._raise_for_status(response)
    return response
