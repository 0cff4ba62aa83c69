"""The operator's side of the fork server."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import itertools
import marshal
import math
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from remit.sandbox.cgroup import AttemptCgroup, CgroupSpec
from remit.sandbox.fencing import fence
from remit.sandbox.forkserver.supervise import STOP
from remit.sandbox.forkserver.wire import DEADLINE, readable, receive, send
from remit.sandbox.memory import sealed_memory
from remit.sandbox.model import CgroupTree

_MOST_INLINE = 1 << 15
_LOST = "the fork server ended; the next start begins a new one"
_NOT_TAKEN = "the fork server has too many open files, or has ended"
_HANGS = "the fork server did not answer, and was ended with all that it had started; the next start begins a new one"
_LAST_SECONDS = 5.0
ORDER_SECONDS = 5.0
"""How long a fork server whose queue is full may take to accept an order."""
START_SECONDS = 60.0
"""How long a fork server may take to fork."""
TELL_SECONDS = 10.0
"""How long a fork server may take to report the end of a process that is dead."""
SPARES = 2
"""Processes that wait for a frequent job. With one, a start right after another's end would come while it is forked."""

Step = tuple[object, ...]
"""The name of a step of `remit.sandbox.forkserver.jobs` and its arguments, of plain types."""


@dataclass(frozen=True, slots=True)
class Execute:
    """Become the program `argv[0]` with an empty environment, once the `steps` have confined it.

    `stdio` are its stdin, stdout and stderr. `pass_fds` keep their numbers; nothing else is inherited. With `cgroup` it
    is in one of its own, limited before the steps.
    """

    argv: Sequence[str]
    stdio: tuple[int, int, int]
    pass_fds: Sequence[int] = ()
    steps: Sequence[Step] = ()
    cgroup: CgroupSpec | None = None

    kind: ClassVar[str] = "execute"
    is_frequent: ClassVar[bool] = True
    stop: ClassVar[signal.Signals] = signal.SIGKILL

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
    is_frequent: ClassVar[bool] = True
    stop: ClassVar[signal.Signals] = STOP
    cgroup: ClassVar[None] = None

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
    """A listening TCP socket on 127.0.0.1:`port` (0: any) in the network namespace of the process `pid`.

    `owned`: the user of that process owns its user namespace, as in bubblewrap, and not in a container of an engine.
    """

    pid: int
    port: int
    backlog: int = 128
    owned: bool = True

    kind: ClassVar[str] = "listen"
    is_frequent: ClassVar[bool] = False
    stop: ClassVar[signal.Signals] = signal.SIGKILL
    cgroup: ClassVar[None] = None
    descriptors: ClassVar[tuple[int, ...]] = ()

    def data(self) -> dict[str, Any]:
        return {"pid": self.pid, "port": self.port, "backlog": self.backlog, "owned": self.owned}


@dataclass(frozen=True, slots=True)
class TryScopes:
    """Whether a Landlock domain with these scopes keeps a process from its parent: the result is True if it does."""

    scoped: int

    kind: ClassVar[str] = "try_scopes"
    is_frequent: ClassVar[bool] = False
    stop: ClassVar[signal.Signals] = signal.SIGKILL
    cgroup: ClassVar[None] = None
    descriptors: ClassVar[tuple[int, ...]] = ()

    def data(self) -> dict[str, Any]:
        return {"scoped": self.scoped}


@dataclass(frozen=True, slots=True)
class Restrict:
    """Set a resource limit of the process `pid`, as its own user and group, who may always do so."""

    pid: int
    uid: int
    gid: int
    number: int
    value: int

    kind: ClassVar[str] = "restrict_process"
    is_frequent: ClassVar[bool] = False
    stop: ClassVar[signal.Signals] = signal.SIGKILL
    cgroup: ClassVar[None] = None
    descriptors: ClassVar[tuple[int, ...]] = ()

    def data(self) -> dict[str, Any]:
        return {"pid": self.pid, "uid": self.uid, "gid": self.gid, "number": self.number, "value": self.value}


Job = Execute | Supervise | Listen | TryScopes | Restrict


@dataclass(slots=True)
class ForkedProcess:
    """A job under way. `fileno` is readable when there is news, which `update` takes.

    Closing it before its end kills the process. `returncode` is as subprocess has it: negative is the signal that
    ended it.
    """

    _channel: socket.socket
    cgroup: AttemptCgroup | None = None
    """The cgroup of the process, if it was to have one."""
    pid: int = 0
    pidfd: int = -1
    returncode: int | None = None
    failure: OSError | None = None
    """Why it could not be done; or that the fork server died, and with it, by the kernel's signal, the process."""
    result: object = None
    descriptors: list[int] = field(default_factory=list)
    """What a job sent back. They belong to the caller."""
    _end_server: Callable[[], None] = lambda: None
    _refusal: OSError | None = None
    _lost: bool = False

    def fileno(self) -> int:
        return self._channel.fileno()

    @property
    def ended(self) -> bool:
        return self.failure is not None or self.returncode is not None

    @property
    def refused(self) -> bool:
        """Whether `failure` is why it could not be done, so that nothing of it ran."""
        return self._refusal is not None

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
            case ("refused", int(number), str(text)):
                self._refusal = OSError(number, text)
            case ("result", result):
                self.result = result
                self.descriptors += descriptors
            case ("exited", int(status)) if self._refusal is None:
                self.returncode = os.waitstatus_to_exitcode(status)
            case _:
                self._lost = news == ("lost",)
                lost = OSError(errno.EPIPE, _LOST) if self.pid else OSError(errno.EMFILE, _NOT_TAKEN)
                self.failure = self._refusal or lost

    def wait(self, seconds: float, *, start: bool = False) -> None:
        """Block until the end, or only until there is a pid. Raises TimeoutError, and `failure`."""
        self.update()
        while not (self.ended or (start and self.pid)):
            if not readable(self.fileno(), seconds):
                raise TimeoutError(f"still running after {seconds:g} s")
            self.update()
        if self.failure:
            raise self.failure

    async def started(self) -> None:
        """Wait until there is a pid. The program may not be executed yet.

        Raises `failure`, and OSError where the fork server does not answer.
        """
        await self._until(lambda: bool(self.pid), START_SECONDS)
        if not (self.pid or self.ended):
            self.end_server()
            raise OSError(errno.ETIMEDOUT, _HANGS)

    async def finished(self, seconds: float) -> None:
        """Wait until the end. Raises TimeoutError, and `failure`."""
        await self._until(lambda: False, seconds)
        if not self.ended:
            raise TimeoutError(f"still running after {seconds:g} s")

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Wait until that or its end, or for so long. Raises `failure`."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self.fileno(), news.set)
        try:
            self.update()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    while not (reached() or self.ended):
                        await news.wait()
                        news.clear()
                        self.update()
        finally:
            loop.remove_reader(self.fileno())
        if self.failure:
            raise self.failure

    def end_server(self) -> None:
        """End a fork server that does not tell what it should. All that it started dies with it."""
        self._end_server()

    def send(self, request: dict[str, Any], descriptors: Sequence[int]) -> None:
        """The job. Raises OSError."""
        send(self._channel, request, descriptors)

    def gone(self) -> bool:
        """Whether it ended, though the fork server may not have told of it yet."""
        self.update()
        return self.ended or (self.pidfd >= 0 and readable(self.pidfd, 0))

    def kill(self) -> None:
        """KILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to this process alone, unless it has ended."""
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, number)

    @property
    def closes_slowly(self) -> bool:
        """Whether `close` may block for some seconds."""
        return self._lost and self.cgroup is not None

    def close(self) -> None:
        """The fork server removes its cgroup then; where that is no more, this does."""
        if self._lost and self.cgroup:
            if self.pidfd >= 0:
                readable(self.pidfd, _LAST_SECONDS)
            self.cgroup.remove()
        self._channel.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class ForkServer:
    """A fork server of one's own. Most want `fork_server()`, which there is one of in each process."""

    def __init__(self) -> None:
        """Raises OSError where it cannot be started."""
        self._lock = threading.Lock()
        self._spares: dict[_Kind, deque[ForkedProcess]] = defaultdict(deque)
        self.owner = os.getpid()
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
            self._control, control = map(undo.enter_context, _pair())
            theirs.enter_context(control)
            self._orders, orders = map(undo.enter_context, _pair())
            theirs.enter_context(orders)
            self._orders.settimeout(ORDER_SECONDS)
            descriptors = [control.fileno(), orders.fileno()]
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(Path(__file__).parent), *map(str, descriptors)],
                env={},
                cwd="/",
                pass_fds=descriptors,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches only the operator, which then stops its attempts in order
            )
            undo.pop_all()
        if fence.deadline < math.inf:
            self.set_deadline(fence.deadline)

    def set_deadline(self, deadline: float) -> None:
        """End at this time of CLOCK_BOOTTIME, kill everything that was started, and then kill this process.

        Raises OSError where the fork server does not take the message: it has ended, or hangs.
        """
        self._control.send(struct.pack(DEADLINE, deadline), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """End it by force. What it started dies by the kernel's signal."""
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_LAST_SECONDS)

    def begin(self, job: Job) -> ForkedProcess:
        """Ask for it. The descriptors may be closed at once; what went wrong is told by its `failure`.

        Raises:
            OSError: the fork server is gone, or there are no descriptors left.
            LeaseLost: this process may not start anything any more.
        """
        fence.check()
        kind = _Kind(job.stop, job.cgroup.tree if job.cgroup else None)
        with self._lock:
            spares = self._spares[kind]
            process = spares.popleft() if spares else self._order(kind)
            try:
                if not _give(process, job):  # the spare process was killed meanwhile
                    process.close()
                    process = self._order(kind)
                    _give(process, job)
                if not process.pid:
                    # An earlier wake-up that the server has not read yet is sufficient.
                    with contextlib.suppress(BlockingIOError):
                        self._control.send(b"!", socket.MSG_DONTWAIT)
            except BaseException:
                process.close()
                raise
            with contextlib.suppress(OSError):  # the next call reports the error
                while job.is_frequent and len(spares) < SPARES:
                    spares.append(self._order(kind))
        return process

    def close(self) -> bool:
        """End it, and every process that it started. False if it had to be killed: then they may be dying still."""
        ours = self.owner == os.getpid()
        if not ours:  # inherited by a fork of the operator, for which the fork server is not a child
            self._process.returncode = 0
        self._control.close()
        self._orders.close()
        in_time = True
        try:
            self._process.wait(_LAST_SECONDS)
        except subprocess.TimeoutExpired:  # the server hangs; its children end with it
            in_time = False
            self.kill()
        for spare in itertools.chain(*self._spares.values()):
            if ours:
                spare.update()
            spare.close()
        self._spares.clear()
        return in_time

    def _order(self, kind: _Kind) -> ForkedProcess:
        """A process that waits for its job, or will when it is forked."""
        cgroup = AttemptCgroup(kind.tree, f"{os.getpid()}.{next(_numbers)}") if kind.tree else None
        entering = cgroup.entering() if cgroup else ((), "", "")
        ours, theirs = _pair()
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            try:
                send(self._orders, (*entering, int(kind.stop)), [theirs.fileno()])
            except TimeoutError:
                self.kill()
                raise OSError(errno.ETIMEDOUT, _HANGS) from None
            undo.pop_all()
        return ForkedProcess(ours, cgroup, _end_server=self.kill)


@dataclass(frozen=True, slots=True)
class _Kind:
    """The properties of a process that are settled before it has a job."""

    stop: signal.Signals
    tree: CgroupTree | None


def _pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def _give(process: ForkedProcess, job: Job) -> bool:
    """Send it the job. False if there is nobody to take it."""
    if process.gone():
        return False
    data = job.data()
    if process.cgroup and job.cgroup:
        data["steps"] = [*process.cgroup.limiting(job.cgroup), *data["steps"]]
    body: bytes | None = marshal.dumps(data)
    descriptors = list(job.descriptors)
    with contextlib.ExitStack() as ending:
        if body and len(body) > _MOST_INLINE:
            descriptors.append(held := sealed_memory(body))
            ending.callback(os.close, held)
            body = None
        try:
            process.send({"job": job.kind, "data": body, "descriptors": len(descriptors)}, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            return False
    return True


_numbers = itertools.count()
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


def extend_deadline(deadline: float) -> None:
    """This process, and what its fork server starts, may work until this time of CLOCK_BOOTTIME.

    A fork server that hangs could not enforce that, and is replaced, which kills what it started. Raises OSError where
    none can be started.
    """
    fence.deadline = deadline
    server = fork_server()
    try:
        server.set_deadline(deadline)
    except OSError:
        server.kill()
        fork_server()


def end_work() -> bool:
    """Kill everything that was started, return when it is dead, and start nothing more. It blocks for up to 10 s.

    False where it is not certain that everything is dead.
    """
    fence.deadline = -math.inf
    with _server_lock:
        return _server is None or _server.owner != os.getpid() or _server.close()


@atexit.register
def _end() -> None:
    if _server and _server.owner == os.getpid():
        _server.close()
