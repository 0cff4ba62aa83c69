"""Runs every process that `remit up` starts: it receives its settings, works until told to stop, and reports what went
wrong."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import traceback
from collections.abc import Callable, Coroutine, Iterator
from importlib import import_module
from typing import Any, Final

from remit import threads
from remit.cli.errors import FAILURE, described, wants_traceback
from remit.cli.logsetup import set_up_logs
from remit.cli.supervisor.channel import Message, receive, send
from remit.lazily import without
from remit.telemetry.redact import Redactor

ROLES: Final = {
    "control-plane": "remit.cli.supervisor.controlplane",
    "operator": "remit.cli.supervisor.operator",
    "page": "remit.cli.supervisor.page",
}
"""The module of each, whose `serve` is a `Serve`."""


TELL_SECONDS: Final = 2.0
"""How often a process that starts or stops says so."""


class Supervised:
    """The supervisor, as its process sees it."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._telling: asyncio.TimerHandle | None = None

    def ready(self, **facts: object) -> None:
        self._quiet()
        send(self._channel, {"ready": facts})

    @contextlib.contextmanager
    def stop_requested(self) -> Iterator[asyncio.Event]:
        """Set when the process is to stop. From then on, as until it is ready, the supervisor is told again and again
        that it is at that."""
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()

        def on_readable() -> None:
            if receive(self._channel) is None:
                loop.remove_reader(self._channel)
                stop.set()
                self._quiet()
                self._tell("stopping")

        loop.add_reader(self._channel, on_readable)
        self._tell("starting")
        try:
            yield stop
        finally:
            loop.remove_reader(self._channel)
            self._quiet()

    def _tell(self, what: str) -> None:
        send(self._channel, {what: True})
        self._telling = asyncio.get_running_loop().call_later(TELL_SECONDS, self._tell, what)

    def _quiet(self) -> None:
        if self._telling is not None:
            self._telling.cancel()


Serve = Callable[[Message, Redactor, Supervised], Coroutine[Any, Any, None]]


def run(role: str, descriptor: int) -> int:
    """Serve the role, as the supervisor at the other end of the channel says. Gives the exit code."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _ignore)
    with socket.socket(fileno=descriptor) as channel:
        channel.set_inheritable(False)
        try:
            # Imported modules stay loaded, and garbage collection during the imports would take a sixth of the time.
            gc.disable()
            with without("click", "pygments", "rich"):  # httpx imports these for its command line, which is not used
                serve: Serve = import_module(ROLES[role]).serve  # the import takes longest and needs no settings
            gc.freeze()
            gc.enable()
            if (settings := receive(channel)) is None:
                return 0  # stopped before the service began
            redactor = set_up_logs(settings["log_format"], settings["log_level"], colors=settings["log_colors"])
            threads.run(serve(settings, redactor, Supervised(channel)))
        except Exception as error:
            if wants_traceback(error):
                traceback.print_exc()
            send(channel, {"failed": described(error)})
            return FAILURE
    return 0


def _ignore(*_: object) -> None:
    """A service manager may signal all processes of `remit up`: the supervisor stops them in order. This is no
    SIG_IGN, because programs that are started inherit that."""
