"""The operator's side of the fork server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import marshal
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from remit.sandbox.forkserver.wire import receive, send
from remit.sandbox.memory import sealed_memory

_MOST_INLINE = 1 << 15
_LOST = "the fork server ended; the next start begins a new one"

Step = tuple[object, ...]
"""The name of a step of `remit.sandbox.forkserver.jobs` and its arguments, of plain types."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Become the program `argv[0]` with an empty environment, once the `steps` have confined it.

    `stdio` are its stdin, stdout and stderr. `pass_fds` keep their numbers; nothing else is inherited.
    """

    argv: Sequence[str]
    stdio: tuple[int, int, int]
    pass_fds: Sequence[int] = ()
    steps: Sequence[Step] = ()

    kind: ClassVar[str] = "execute"

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (*self.stdio, *self.pass_fds)

    def data(self) -> dict[str, Any]:
        argv = [os.fsencode(word) for word in self.argv]
        return {"argv": argv, "places": [0, 1, 2, *self.pass_fds], "steps": list(self.steps)}


@dataclass(frozen=True, slots=True)
class Supervise:
    """Run the program `executable` in `folder`, and end with everything that came of it.

    It waits for a byte from the pipe `go`; `environment` is a file. The process takes `steps`, then `last_steps`, after
    which few calls may be left. The result is a dictionary, see `remit.sandbox.forkserver.supervise`.
    """

    executable: str
    argv: Sequence[str]
    stdio: tuple[int, int, int]
    environment: int
    go: int
    folder: str
    scoped: int
    steps: Sequence[Step] = ()
    last_steps: Sequence[Step] = ()

    kind: ClassVar[str] = "supervise"

    @property
    def descriptors(self) -> tuple[int, ...]:
        return (*self.stdio, self.environment, self.go)

    def data(self) -> dict[str, Any]:
        return {
            "executable": os.fsencode(self.executable),
            "argv": [os.fsencode(word) for word in self.argv],
            "places": [0, 1, 2],
            "folder": self.folder,
            "scoped": self.scoped,
            "steps": list(self.steps),
            "last_steps": list(self.last_steps),
        }


@dataclass(frozen=True, slots=True)
class Listen:
    """A listening TCP socket on 127.0.0.1:`port` (0: any) in the network namespace of the process `pid`."""

    pid: int
    port: int
    backlog: int = 128

    kind: ClassVar[str] = "listen"
    descriptors: ClassVar[tuple[int, ...]] = ()

    def data(self) -> dict[str, Any]:
        return {"pid": self.pid, "port": self.port, "backlog": self.backlog}


@dataclass(frozen=True, slots=True)
class TryScopes:
    """Whether a Landlock domain with these scopes keeps a process from its parent: the result is True if it does."""

    scoped: int

    kind: ClassVar[str] = "try_scopes"
    descriptors: ClassVar[tuple[int, ...]] = ()

    def data(self) -> dict[str, Any]:
        return {"scoped": self.scoped}


Job = Execute | Supervise | Listen | TryScopes


@dataclass(slots=True)
class ForkedProcess:
    """A job under way. `fileno` is readable when there is news, which `update` takes.

    Closing it before its end kills the process. `returncode` is as subprocess has it: negative is the signal that
    ended it.
    """

    _channel: socket.socket
    pid: int = 0
    pidfd: int = -1
    returncode: int | None = None
    failure: OSError | None = None
    """Why it could not be done; or that the fork server died, and with it, by the kernel's signal, the process."""
    result: object = None
    descriptors: list[int] = field(default_factory=list)
    """What a job sent back. They belong to the caller."""

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def ended(self) -> bool:
        return self.failure is not None or self.returncode is not None

    def update(self) -> None:
        """Take all news there is, without waiting."""
        while not self.ended:
            try:
                received = receive(self._channel, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except ConnectionResetError:
                received = None
            self._take(*(received or (("lost",), [])))

    def _take(self, news: tuple[Any, ...], descriptors: list[int]) -> None:
        match news:
            case ("started", int(pid)):
                self.pid, (self.pidfd,) = pid, descriptors
            case ("failed", int(number), str(text)):
                self.failure = OSError(number, text)
            case ("result", result):
                self.result = result
                self.descriptors += descriptors
            case ("exited", int(status)):
                self.returncode = os.waitstatus_to_exitcode(status)
            case _:
                self.failure = OSError(errno.EPIPE, _LOST)

    def wait(self, seconds: float, *, start: bool = False) -> None:
        """Block until the end, or only until there is a pid. Raises TimeoutError, and `failure`."""
        poller = select.poll()
        poller.register(self.fileno(), select.POLLIN)
        self.update()
        while not (self.ended or (start and self.pid)):
            if not poller.poll(seconds * 1000):
                raise TimeoutError(f"still running after {seconds:g} s")
            self.update()
        if self.failure:
            raise self.failure

    async def started(self) -> None:
        """Wait until there is a pid. The program may not be executed yet. Raises `failure`."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.fileno(), news.set)
        try:
            self.update()
            while not (self.pid or self.ended):
                await news.wait()
                news.clear()
                self.update()
        finally:
            loop.remove_reader(self.fileno())
        if self.failure:
            raise self.failure

    def kill(self) -> None:
        """KILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to this process alone, unless it has ended."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        self._channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class ForkServer:
    """A fork server of one's own. Most want `fork_server()`, which there is one of in each process."""

    def __init__(self) -> None:
        """Raises OSError where it cannot be started."""
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        self.owner = os.getpid()
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-I", "-S", str(Path(__file__).parent), str(theirs.fileno())],
                    env={},
                    cwd="/",
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the operator, which then stops its attempts in order
                )
            except OSError:
                self._control.close()
                raise

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def begin(self, job: Job) -> ForkedProcess:
        """Ask for it. The descriptors may be closed at once; what went wrong is told by its `failure`.

        Raises:
            OSError: the fork server is gone, or there are no descriptors left.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as ending, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            descriptors = [theirs.fileno(), *job.descriptors]
            body: bytes | None = marshal.dumps(job.data())
            if body and len(body) > _MOST_INLINE:
                descriptors.append(held := sealed_memory(body))
                ending.callback(os.close, held)
                body = None
            request = {"job": job.kind, "data": body, "descriptors": len(descriptors)}
            with self._lock:
                send(self._control, request, descriptors)
            undo.pop_all()
        return ForkedProcess(ours)

    def close(self) -> None:
        """End it, and every process that it started."""
        self._control.close()
        if self.owner == os.getpid():
            self._process.wait()
        else:  # inherited by a fork of ours: somebody else's child
            self._process.returncode = 0


_server: ForkServer | None = None
_server_lock = threading.Lock()


def fork_server() -> ForkServer:
    """This process's fork server, started now if there is none or if it has died. It ends with this process.

    Raises:
        OSError: it cannot be started.
    """
    global _server
    with _server_lock:
        if _server is None or _server.owner != os.getpid() or not _server.alive:
            if _server:
                _server.close()
            _server = ForkServer()
        return _server


@atexit.register
def _end() -> None:
    if _server and _server.owner == os.getpid():
        _server.close()
