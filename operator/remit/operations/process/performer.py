"""Performs process operations: starts supervisors, and asks them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import pickle
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson

import remit
from remit.api.operations import ProcessOperation
from remit.backends import AttemptRequest, OutputSink
from remit.operations.base import Work
from remit.operations.breaker import Breaker
from remit.operations.failure import OperationFailed
from remit.operations.process.logs import tail
from remit.operations.process.record import SOCKET, Identity, read_state, supervised, try_lock
from remit.operations.process.supervisor import Specification
from remit.sandbox import Host, plan

DEFAULT_OUTPUT_BYTES: Final = 10 * 1024 * 1024
MAX_OUTPUT_BYTES: Final = 256 * 1024 * 1024
_TAIL_BYTES: Final = 4096
_ALIVE: Final = frozenset({"Starting", "Running", "Backoff"})
_PROGRAM: Final = Path(__file__).parent / "__main__.py"
_PACKAGES: Final = str(Path(remit.__file__).parent.parent)
_LINE_BYTES: Final = 1 << 22


class ProcessPerformer:
    """Supervised processes, each in a folder below `root`; confined on `host` as commands are."""

    breaker: Breaker | None = None

    def __init__(self, root: Path, host: Host, read_only_paths: Sequence[str] = ()) -> None:
        self._root = root.absolute()
        self._host = host
        self._read_only_paths = tuple(read_only_paths)

    async def perform(self, work: Work, output: OutputSink) -> str:
        """See `Performer.perform`."""
        process = work.subject
        assert isinstance(process, ProcessOperation)  # noqa: S101  # by its operation
        if process.action == "list":
            return self._list(work.namespace, output)
        name = process.name or ""
        folder = self._root / work.namespace / name
        if process.action == "start":
            state = await self._start(work, process, folder)
            _put(output, state)
            began = f"process {name} runs" if state["phase"] == "Running" else f"process {name} began: {state['phase']}"
            return f"{began}, as it did already" if state.get("same") else began
        if not folder.is_dir():
            raise OperationFailed("NotFound", f"there is no process {name} in {work.namespace}", retryable=False)
        match process.action:
            case "stop":
                if not supervised(folder):
                    return f"process {name} was not running"
                _put(output, await _ask(folder, {"do": "stop"}))
                return f"process {name} is stopped, and everything it had started"
            case "signal":
                await self._signal(folder, name, process.signal or "")
                return f"sent {process.signal} to process {name}"
            case "usage":
                if not supervised(folder):
                    raise _not_running(name)
                _put(output, await _ask(folder, {"do": "usage"}))
                return f"usage of process {name}"
        state = _known(folder)
        _put(
            output,
            {
                **state,
                "stdoutTail": tail(folder, "stdout", _TAIL_BYTES),
                "stderrTail": tail(folder, "stderr", _TAIL_BYTES),
            },
        )
        return f"process {name} is {state.get('phase')}"

    async def close(self) -> None:
        """Supervisors stay."""

    async def _start(self, work: Work, process: ProcessOperation, folder: Path) -> dict[str, Any]:
        request = work.run
        if request is None:
            raise OperationFailed("Invalid", "there is nothing to execute", retryable=False)
        if request.confinement.network == "restricted":
            message = "a supervised process cannot have network: restricted yet; use none or host"
            raise OperationFailed("NotSupported", message, retryable=False)
        plan(request.confinement, self._host)  # refused here and now, where the task shows it
        digest = _digest(request, process.restart_policy)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder)
        if lock is None:
            state = await _ask(folder, {"do": "same", "digest": digest})
            if state.get("same"):
                return state
            raise OperationFailed(
                "AlreadyExists",
                f"process {process.name} runs already, with another specification; stop it first, or take another name",
                retryable=False,
            )
        specification = Specification(
            namespace=work.namespace,
            name=process.name or "",
            task=work.task,
            request=request,
            restart_policy=process.restart_policy,
            digest=digest,
            max_output_bytes=min(work.limits.output_bytes or DEFAULT_OUTPUT_BYTES, MAX_OUTPUT_BYTES),
            host=self._host,
            read_only_paths=self._read_only_paths,
            secrets=work.secrets,
        )
        try:
            state = await _launch(folder, lock, specification)
        except asyncio.CancelledError:
            os.close(lock)
            lock = -1
            with contextlib.suppress(OperationFailed):
                await _ask(folder, {"do": "stop"})
            raise
        finally:
            if lock >= 0:
                os.close(lock)
        if state["phase"] == "Failed":
            ended = state.get("lastExit", {})
            message = f"process {process.name} ended at once: {ended.get('message') or ended.get('reason')}"
            raise OperationFailed("StartFailed", message)
        return state

    async def _signal(self, folder: Path, name: str, word: str) -> None:
        try:
            number = signal.Signals[word]
        except KeyError:
            raise OperationFailed("Invalid", f"{word} is no signal of this system", retryable=False) from None
        if not supervised(folder) or not (await _ask(folder, {"do": "signal", "number": int(number)})).get("sent"):
            raise _not_running(name)

    def _list(self, namespace: str, output: OutputSink) -> str:
        folder = self._root / namespace
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        for each in found:
            _put(output, {"name": each.name, **_known(each)})
        return f"{len(found)} processes"


def _known(folder: Path) -> dict[str, Any]:
    """What is known of a process. One whose supervisor died with the machine or by force is `Lost`, and dead."""
    state = read_state(folder)
    if not supervised(folder):
        _reap(state)
        state = read_state(folder)  # it may have ended just now
        if state.get("phase") in _ALIVE or not state:
            return {**{key: value for key, value in state.items() if key != "process"}, "phase": "Lost"}
    return state


def _reap(state: Mapping[str, Any]) -> None:
    identity = Identity.parse(state.get("supervisor"))
    if identity and (handle := identity.open()):
        with handle:
            handle.reap()


async def _launch(folder: Path, lock: int, specification: Specification) -> dict[str, Any]:
    label = f"{specification.namespace}/{specification.name}"
    log = os.open(folder / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", str(_PROGRAM), _PACKAGES, label),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            cwd=folder,
            env={},
            pass_fds=[lock],
            start_new_session=True,
            limit=_LINE_BYTES,
        )
    finally:
        os.close(log)
    assert child.stdin is not None  # noqa: S101  # asked for
    assert child.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        child.stdin.write(pickle.dumps(specification))
        await child.stdin.drain()
        child.stdin.close()
    line = await child.stdout.readline()
    await child.wait()
    if not line:
        raise OperationFailed("SupervisorFailed", f"the supervisor of {label} ended; see supervisor.log in {folder}")
    state: dict[str, Any] = orjson.loads(line)
    return state


async def _ask(folder: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the supervisor. One that only begins gets the time to listen."""
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        while True:
            try:
                # Through the descriptor: a socket's path may only have 107 bytes.
                reader, writer = await asyncio.open_unix_connection(
                    f"/proc/self/fd/{directory}/{SOCKET}", limit=_LINE_BYTES
                )
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if not supervised(folder):
                    raise OperationFailed("NotRunning", f"process {folder.name} ended meanwhile") from None
                await asyncio.sleep(0.05)
    finally:
        os.close(directory)
    try:
        writer.write(orjson.dumps(request) + b"\n")
        line = await reader.readline()
    except ConnectionError:
        line = b""
    finally:
        writer.close()
    if not line:
        raise OperationFailed("NotRunning", f"process {folder.name} ended meanwhile")
    answer: dict[str, Any] = orjson.loads(line)
    return answer


def _digest(request: AttemptRequest, restart_policy: str) -> str:
    """Of all that makes two starts the same; which task asks is not part of it."""
    command, confinement = request.command, request.confinement
    env = sorted((name, value) for name, value in command.env.items() if not name.startswith("REMIT_"))
    what = (
        *(command.argv, command.executable, env, command.stdin, sorted(request.files.items())),
        *(confinement.limits, confinement.network, sorted(confinement.require), confinement.working_dir),
        *(request.grace_seconds, restart_policy),
    )
    return hashlib.sha256(repr(what).encode()).hexdigest()


def _not_running(name: str) -> OperationFailed:
    return OperationFailed("NotRunning", f"process {name} is not running", retryable=False)


def _put(output: OutputSink, value: Mapping[str, Any]) -> None:
    output.write("stdout", orjson.dumps(value) + b"\n")
