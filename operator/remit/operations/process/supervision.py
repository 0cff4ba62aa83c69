"""Supervised processes from outside: start a supervisor, find it again, ask it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pickle
import shutil
import sys
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final

import orjson

from remit.backends.base import AttemptRequest
from remit.backends.failure import OperationFailed
from remit.backends.subprocesses import start_subprocess
from remit.operations.base import Effect
from remit.operations.process.logs import tail
from remit.operations.process.record import SOCKET, ProcessIdentity, locked, read_state, supervised
from remit.operations.process.restarting import RestartPolicy
from remit.operations.process.supervisor import Specification
from remit.sandbox import Host, kill_session, plan, start_time

DEFAULT_OUTPUT_BYTES: Final = 10 * 1024 * 1024
MAX_OUTPUT_BYTES: Final = 256 * 1024 * 1024
TAIL_BYTES: Final = 1024
"""Bytes of each stream. Both streams and the state fit in the output that a task's status shows."""
_ALIVE: Final = frozenset({"Starting", "Running", "Backoff"})
_PROGRAM: Final = Path(__file__).parent / "__main__.py"
_PACKAGES: Final = str(Path(__file__).parents[3])
_LINE_BYTES: Final = 1 << 22
_LISTEN_SECONDS: Final = 0.05
_ANSWER_SECONDS: Final = 2.0
"""How long a supervisor may take to answer what it does not have to wait for."""
_START_SECONDS: Final = 60.0
"""How long it may take until the program runs, or has ended."""
_END_SECONDS: Final = 10.0
"""How long it may take beyond the program's grace period to end."""
_DEATH_SECONDS: Final = 10.0
"""How long a supervisor that was killed may take to be dead."""
_LONGEST_GRACE: Final = 3600.0

State = dict[str, Any]
"""What is known of a process, as `status` shows it: `phase` is one of Starting, Running, Backoff, Stopped, Exited,
Failed and Lost (its supervisor died by force or with the machine, and it too); `restarts`, `maxRestarts` where there is
a limit, `lastExit` and more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A process to be supervised. `task` is told along with it; `secrets` never reach its kept output.

    After `max_restarts` restarts it has failed, unless the limit is lifted before.
    """

    namespace: str
    name: str
    request: AttemptRequest
    restart_policy: RestartPolicy = "Never"
    task: str = ""
    max_output_bytes: int = DEFAULT_OUTPUT_BYTES
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    max_restarts: int | None = None
    effect: Effect = field(default_factory=Effect)
    """Begins right before the program can run."""


class Supervision:
    """The supervised processes below `root`, each in a folder of its own; confined on `host` as commands are."""

    def __init__(self, root: Path, host: Host, read_only_paths: Sequence[str] = ()) -> None:
        self._root = root.absolute()
        self._host = host
        self._read_only_paths = tuple(read_only_paths)

    async def start(self, wanted: Wanted) -> State:
        """Start it, and wait until it runs, or has ended. One that runs already as it is wanted is left alone: then the
        state has `same`.

        Raises:
            SandboxUnavailable: this host cannot confine it as it is to be.
            OperationFailed: another one of that name runs, or the supervisor ended.
        """
        plan(wanted.request.confinement, self._host)  # refuse here, where the error is shown in the task
        folder = self._folder(wanted.namespace, wanted.name)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        specification = self._specification(wanted)
        child: asyncio.subprocess.Process | None = None
        try:
            with locked(folder) as lock:
                if lock is not None:
                    with _new_log(folder) as log:
                        child = await start_subprocess(
                            *(sys.executable, "-I", str(_PROGRAM), _PACKAGES, _label(specification)),
                            stdin=asyncio.subprocess.PIPE,
                            stdout=asyncio.subprocess.PIPE,
                            stderr=log,
                            cwd=folder,
                            env={},
                            pass_fds=[lock],
                            start_new_session=True,
                            limit=_LINE_BYTES,
                        )
            if child is not None:
                return await _begin(folder, child, specification, wanted.effect)
        finally:
            if child is not None:
                _hang_up(child)
        state = await _ask(folder, {"do": "same", "digest": specification.digest}, _START_SECONDS)
        if state.get("same"):
            return state
        message = (
            f"spec.process.name: process {wanted.name} runs already, with another specification; stop it first, or"
            " take another name"
        )
        raise OperationFailed("AlreadyExists", message, retryable=False)

    async def stop(self, namespace: str, name: str) -> State | None:
        """TERM, the grace that it was started with, KILL to all that came of it. None: it was not running.

        A supervisor that does not answer is killed, and its program with it.
        """
        folder = self._existing(namespace, name)
        return await _end(folder) if supervised(folder) else None

    async def remove(self, namespace: str, name: str) -> None:
        """Stop it, and forget it with its output. Nothing happens if there is none."""
        folder = self._folder(namespace, name)
        if folder.is_dir():
            await self.stop(namespace, name)
            await asyncio.to_thread(_forget, folder)

    def leave(self, namespace: str) -> None:
        """Remove the folder of a namespace, once no process is left in it."""
        with contextlib.suppress(OSError):
            (self._root / namespace).rmdir()

    async def signal(self, namespace: str, name: str, number: int, effect: Effect) -> None:
        folder = self._existing(namespace, name)
        if not supervised(folder):
            raise _not_running(name)

        def sending() -> None:
            effect.begin(f"the signal may have been sent to process {name}")

        if not (await _ask(folder, {"do": "signal", "number": number}, sending=sending)).get("sent"):
            raise _not_running(name)

    async def lift_limit(self, namespace: str, name: str) -> None:
        """Have it restarted however often it ends. Raises OperationFailed where nobody answers."""
        await _ask(self._existing(namespace, name), {"do": "lift limit"})

    async def restart(self, namespace: str, name: str, restarts: int, reason: str) -> bool:
        """TERM, the grace period and KILL to the run that began after so many `restarts`; another one follows as its
        policy says. Returns when that has begun, and gives False where the run is over. Raises OperationFailed where
        nobody answers.
        """
        order = {"do": "restart", "restarts": restarts, "reason": reason}
        return bool((await _ask(self._existing(namespace, name), order)).get("restarting"))

    async def watch(self, namespace: str, name: str) -> AsyncGenerator[None, None]:
        """Yields at each change of its state, and ends with its supervisor. Raises OperationFailed where none lives."""
        try:
            reader, writer = await _connected(self._existing(namespace, name), _ANSWER_SECONDS)
        except TimeoutError:
            return
        try:
            writer.write(orjson.dumps({"do": "watch"}) + b"\n")
            with contextlib.suppress(ConnectionError):
                while (line := await reader.readline()).strip() == b"" and line:
                    yield
        finally:
            writer.close()

    async def usage(self, namespace: str, name: str) -> dict[str, Any]:
        """`now`, and `samples` of the last ten minutes, the oldest first."""
        folder = self._existing(namespace, name)
        if not supervised(folder):
            raise _not_running(name)
        return await _ask(folder, {"do": "usage"})

    async def state(self, namespace: str, name: str) -> State:
        """The state from its supervisor if that lives, which first waits until a start has succeeded or failed."""
        folder = self._existing(namespace, name)
        if supervised(folder):
            with contextlib.suppress(OperationFailed):  # the process ended meanwhile
                return await _ask(folder, {"do": "status"}, _START_SECONDS)
        return _known(folder)

    def tails(self, namespace: str, name: str, count: int = TAIL_BYTES) -> dict[str, str]:
        """The end of its output, the runs before the last restart included."""
        folder = self._existing(namespace, name)
        return {f"{stream}Tail": tail(folder, stream, count) for stream in ("stdout", "stderr")}

    def list(self, namespace: str) -> dict[str, State]:
        """All of a namespace, by name."""
        folder = self._root / namespace
        return {each.name: _known(each) for each in sorted(folder.glob("[!.]*"))} if folder.is_dir() else {}

    def _specification(self, wanted: Wanted) -> Specification:
        return Specification(
            namespace=wanted.namespace,
            name=wanted.name,
            task=wanted.task,
            request=wanted.request,
            restart_policy=wanted.restart_policy,
            digest=_digest(wanted.request, wanted.restart_policy),
            max_output_bytes=min(wanted.max_output_bytes, MAX_OUTPUT_BYTES),
            host=self._host,
            read_only_paths=self._read_only_paths,
            secrets=wanted.secrets,
            max_restarts=wanted.max_restarts,
        )

    def _folder(self, namespace: str, name: str) -> Path:
        return self._root / namespace / name

    def _existing(self, namespace: str, name: str) -> Path:
        folder = self._folder(namespace, name)
        if not folder.is_dir():
            message = f"spec.process.name: there is no process {name} in {namespace}; start it, or see what list shows"
            raise OperationFailed("NotFound", message)
        return folder


def _forget(folder: Path) -> None:
    """Remove the folder once the supervisor has exited, which is a little after its answer."""
    folder.rename(gone := folder.with_name(f".{folder.name}-{os.getpid()}-{time.monotonic_ns()}"))
    shutil.rmtree(gone, ignore_errors=True)


def _known(folder: Path) -> State:
    """The known state of a process. One whose supervisor died with the machine or by force is `Lost`, and dead."""
    state = read_state(folder)
    if not supervised(folder):
        _reap(state)
        state = read_state(folder)  # the process may have ended meanwhile
        if state.get("phase") in _ALIVE or not state:
            return {**{key: value for key, value in state.items() if key != "process"}, "phase": "Lost"}
    return state


def _reap(state: Mapping[str, Any]) -> None:
    identity = ProcessIdentity.parse(state.get("supervisor"))
    if identity and (handle := identity.open()):
        with handle:
            handle.reap()


def _label(specification: Specification) -> str:
    return f"{specification.namespace}/{specification.name}"


def _new_log(folder: Path) -> IO[bytes]:
    return open(folder / "supervisor.log", "wb", opener=lambda path, flags: os.open(path, flags, 0o600))


async def _begin(
    folder: Path, child: asyncio.subprocess.Process, specification: Specification, effect: Effect
) -> State:
    """Have the supervisor begin. It is ended where it does not get so far in time, or on a cancellation, and nothing is
    in doubt once it is dead."""
    label, pickled = _label(specification), pickle.dumps(specification)
    started = start_time(child.pid) or 0
    effect.begin(f"process {specification.name} may have been started")
    try:
        async with asyncio.timeout(_START_SECONDS):
            line = await _first_word(child, pickled)
    except (TimeoutError, asyncio.CancelledError) as error:
        _hang_up(child)
        try:
            if isinstance(error, asyncio.CancelledError):
                with contextlib.suppress(OperationFailed):
                    await _end(folder)
        finally:
            with contextlib.suppress(ProcessLookupError):
                child.kill()
            kill_session(child.pid, started, (str(_PROGRAM), _PACKAGES, label))
        if await _is_dead(folder):
            effect.settle()  # nothing of the process is alive, as after a cancelled command
        if isinstance(error, asyncio.CancelledError):
            raise
        message = f"the supervisor of {label} did not get it started within {_START_SECONDS:g} s, and was ended"
        raise OperationFailed("SupervisorFailed", message) from None
    if not line:
        raise OperationFailed("SupervisorFailed", f"the supervisor of {label} ended; see supervisor.log in {folder}")
    state: State = orjson.loads(line)
    return state


def _hang_up(child: asyncio.subprocess.Process) -> None:
    """A supervisor that has not heard everything ends."""
    if child.stdin and not child.stdin.is_closing():
        child.stdin.transport.abort()


async def _first_word(child: asyncio.subprocess.Process, pickled: bytes) -> bytes:
    """The supervisor's first report, after it has read what to supervise; empty if it ends before."""
    assert child.stdin is not None  # noqa: S101  # asked for
    assert child.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(pickled)
        await child.stdin.drain()
    child.stdin.close()
    line = await child.stdout.readline()
    await child.wait()
    return line


async def _is_dead(folder: Path) -> bool:
    """Whether no supervisor lives, as soon as one that was killed is dead, or else when that takes too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEATH_SECONDS):
            while supervised(folder):  # noqa: ASYNC110  # nothing tells of it
                await asyncio.sleep(_LISTEN_SECONDS)
    return not supervised(folder)


async def _end(folder: Path) -> State:
    """Stop it. A supervisor that does not do so in time is killed, and takes its program with it.

    Raises OperationFailed where it does not die even then.
    """
    known = read_state(folder)
    grace = min(float(known.get("graceSeconds", _END_SECONDS)), _LONGEST_GRACE)
    try:
        return await _ask(folder, {"do": "stop"}, grace + _END_SECONDS)
    except OperationFailed as error:
        if error.reason != "SupervisorFailed":
            raise
    identity = ProcessIdentity.parse(known.get("supervisor"))
    handle = identity.open() if identity else None
    if handle is not None:
        with handle:
            handle.kill()
            try:
                async with asyncio.timeout(_DEATH_SECONDS):
                    await handle.death()
            except TimeoutError:
                message = f"the supervisor of process {folder.name} was killed, and goes on after {_DEATH_SECONDS:g} s"
                raise OperationFailed("SupervisorFailed", message) from None
            handle.reap()
    elif supervised(folder):
        message = f"the supervisor of process {folder.name} neither answers nor can be found"
        raise OperationFailed("SupervisorFailed", message)
    return _known(folder)


async def _ask(
    folder: Path,
    request: Mapping[str, Any],
    seconds: float = _ANSWER_SECONDS,
    sending: Callable[[], None] = lambda: None,
) -> State:
    """Ask the supervisor; `sending` is called right before it can hear of it. Raises OperationFailed: `NotRunning`, or
    `SupervisorFailed` without an answer in time."""
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await _connected(folder, seconds)
            try:
                sending()
                writer.write(orjson.dumps(request) + b"\n")
                line = await reader.readline()
            except ConnectionError:
                line = b""
            finally:
                writer.close()
    except TimeoutError:
        message = f"the supervisor of process {folder.name} did not answer within {seconds:g} s"
        raise OperationFailed("SupervisorFailed", message) from None
    if not line:
        raise OperationFailed("NotRunning", f"process {folder.name} ended meanwhile")
    answer: State = orjson.loads(line)
    return answer


async def _connected(folder: Path, seconds: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to the supervisor, and wait for one that has just been started."""
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        async with asyncio.timeout(seconds):
            while True:
                try:
                    # Connects through the descriptor, because the path of a socket is limited to 107 bytes.
                    return await asyncio.open_unix_connection(f"/proc/self/fd/{directory}/{SOCKET}", limit=_LINE_BYTES)
                except (FileNotFoundError, ConnectionRefusedError):
                    if not supervised(folder):
                        raise OperationFailed("NotRunning", f"process {folder.name} ended meanwhile") from None
                    await asyncio.sleep(_LISTEN_SECONDS)
    finally:
        os.close(directory)


def _digest(request: AttemptRequest, restart_policy: str) -> str:
    """A digest of everything that makes two starts the same. The task that asks is not part of it."""
    command, confinement = request.command, request.confinement
    env = sorted((name, value) for name, value in command.env.items() if not name.startswith("REMIT_"))
    what = (
        *(command.argv, command.executable, env, command.stdin, sorted(request.files.items())),
        *(confinement.limits, confinement.network, sorted(confinement.require), confinement.working_dir),
        *(request.grace_seconds, restart_policy, request.egress),
    )
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _not_running(name: str) -> OperationFailed:
    return OperationFailed("NotRunning", f"process {name} is not running", retryable=False)
