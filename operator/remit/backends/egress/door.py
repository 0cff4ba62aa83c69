"""Where a sandbox and its proxy meet: a port on the sandbox's own loopback, on which the operator accepts."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Mapping
from typing import Final

from remit.backends.egress.ledger import NetworkUse
from remit.backends.egress.proxy import EgressProxy
from remit.sandbox import Listen, ProcessHandle, fork_server

PORT: Final = 3128
_SECONDS: Final = 10.0
_URL: Final = f"http://127.0.0.1:{PORT}"
# What listens on the sandbox's loopback is the attempt's own, and needs no proxy to be reached.
_OWN: Final = "localhost,127.0.0.1,::1"

_ENVIRONMENT: Final[Mapping[str, str]] = {
    "HTTP_PROXY": _URL,
    "HTTPS_PROXY": _URL,
    "ALL_PROXY": _URL,
    "NO_PROXY": _OWN,
    "http_proxy": _URL,
    "https_proxy": _URL,
    "all_proxy": _URL,
    "no_proxy": _OWN,
}


class Door:
    """Opened once the network namespace is there and before the command runs; closed when the attempt is dead."""

    environment = _ENVIRONMENT
    """By which programs find the proxy. One that does not look at it reaches nothing."""

    def __init__(self, proxy: EgressProxy) -> None:
        self._proxy = proxy

    @property
    def use(self) -> NetworkUse:
        """What went through so far."""
        return self._proxy.use

    async def open(self, init: ProcessHandle, *, owned: bool = True) -> None:
        """Listen inside the namespace of `init`; see `Listen` for `owned`. Raises OSError when that cannot be done."""
        await self._proxy.start(await asyncio.to_thread(_listener, init, owned))

    async def close(self) -> NetworkUse:
        await self._proxy.close()
        return self._proxy.use


def _listener(init: ProcessHandle, owned: bool) -> socket.socket:
    """Which namespace a socket is in is settled when it is made: who accepts on it makes no difference."""
    with contextlib.closing(fork_server().begin(Listen(init.pid, PORT, owned=owned))) as job:
        job.wait(_SECONDS)
        if not job.descriptors:
            raise OSError("no socket could be made in the sandbox")
        listener = socket.socket(fileno=job.descriptors[0])
    if init.dead:
        listener.close()
        raise ProcessLookupError("the sandbox ended before it began")  # and its pid may have been another's
    return listener
