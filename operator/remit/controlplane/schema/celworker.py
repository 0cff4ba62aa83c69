"""A process that evaluates CEL rules which might take long, and that can be killed.

The expression library holds the interpreter's lock and cannot be interrupted, so a limit on its time and memory needs a
process. It is started when a rule is first too costly for the server's own process, and lives as long as the server.

Requests and answers are pickled and follow their length. Requests come from the server alone.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any, Final, NamedTuple

from remit.controlplane.schema.celfunctions import FUNCTIONS
from remit.controlplane.schema.cellibrary import cel

CPU_SECONDS: Final = 1.0
"""What kube-apiserver's limit on the cost of a call comes to."""
WALL_SECONDS: Final = 5.0
"""How long a call may take in all, on a host that gives the worker little CPU time."""
_START_SECONDS: Final = 30.0
_DEATH_SECONDS: Final = 5.0
_PIECE: Final = 1 << 16
_MEMORY: Final = 1 << 30
_LENGTH: Final = struct.Struct(">Q")
_PROGRAM: Final = "import sys; sys.path[:] = sys.argv[1:]; from remit.controlplane.schema.celworker import main; main()"


class Evaluation(NamedTuple):
    """A rule and what it is asked about. `old` is read by transition rules only."""

    source: str
    message_source: str | None
    value: Any
    transition: bool = False
    optional_old: bool = False
    known_old: bool = False
    old: Any = None


class Outcome(NamedTuple):
    """Whether the rule holds, and if not, the message of its expression. `error`: it could not be evaluated."""

    holds: bool = False
    message: str = ""
    error: str = ""
    cpu_seconds: float = 0.0
    """What it took in the worker."""


class Expression(NamedTuple):
    """A compiled expression, made by `compile_expression`. `functions` are those of ours that it calls."""

    program: cel.Program
    functions: dict[str, Callable[..., Any]]


def compile_expression(source: str) -> Expression:
    """Raises ValueError. Only the functions that it calls: a context costs as much as it is given."""
    program = cel.compile(source)
    return Expression(program, {name: FUNCTIONS[name] for name in program.functions() if name in FUNCTIONS})


def evaluate(evaluation: Evaluation, expression: Expression, message: Expression | None) -> Outcome:
    """Evaluate in this process."""
    try:
        variables = {"self": evaluation.value}
        if evaluation.transition:
            variables["oldSelf"] = _old(evaluation)
        if expression.program.execute(cel.Context(variables=variables, functions=expression.functions)) is True:
            return Outcome(holds=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is not a subclass of Exception
        return Outcome(error=str(error) or type(error).__name__)
    return Outcome(message=_message(message, variables))


def _old(evaluation: Evaluation) -> Any:
    if not evaluation.optional_old:
        return evaluation.old
    return cel.OptionalValue.of(evaluation.old) if evaluation.known_old else cel.OptionalValue.none()


def _message(expression: Expression | None, variables: dict[str, Any]) -> str:
    if expression is None:
        return ""
    try:
        message = expression.program.execute(cel.Context(variables=variables, functions=expression.functions))
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException:
        return ""
    return message if isinstance(message, str) and message.strip() and "\n" not in message else ""


class Worker:
    """The server's side. Safe for threads; one evaluation at a time."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def evaluate(self, evaluation: Evaluation) -> Outcome | None:
        """None when the worker was killed: it took more than CPU_SECONDS, WALL_SECONDS or its memory."""
        request = pickle.dumps(evaluation)
        with self._lock:
            try:
                process = self._process
                if process is None or process.poll() is not None:
                    self._stop()
                    process = self._start()
                assert process.stdin is not None and process.stdout is not None  # noqa: S101 - both are pipes
                deadline = time.monotonic() + WALL_SECONDS
                _write(process.stdin, _LENGTH.pack(len(request)) + request, deadline)
                answer = pickle.loads(_receive(process.stdout, deadline))  # noqa: S301 - from our own process
            except (OSError, EOFError, TimeoutError):
                self._stop()
                return None
        return Outcome(*answer)

    def close(self) -> None:
        """May be called twice; the worker is started again when it is needed."""
        with self._lock:
            self._stop()

    def _start(self) -> subprocess.Popen[bytes]:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - both are pipes
        os.set_blocking(self._process.stdin.fileno(), False)
        _receive(self._process.stdout, time.monotonic() + _START_SECONDS)
        return self._process

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for pipe in (process.stdin, process.stdout):
                assert pipe is not None  # noqa: S101 - both are pipes
                with contextlib.suppress(OSError):
                    pipe.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_DEATH_SECONDS)


def _write(pipe: IO[bytes], message: bytes, deadline: float) -> None:
    """Write all of it to a pipe that does not block. Raises OSError and TimeoutError."""
    left = memoryview(message)
    while left:
        if not select.select([], [pipe], [], max(0.0, deadline - time.monotonic()))[1]:
            raise TimeoutError
        left = left[os.write(pipe.fileno(), left[:_PIECE]) :]


def _receive(pipe: IO[bytes], deadline: float) -> bytes:
    """One message. Raises EOFError at the end, and TimeoutError."""
    received = b""
    wanted = _LENGTH.size
    while len(received) < wanted:
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError
        chunk = pipe.read1(wanted - len(received))  # type: ignore[attr-defined]
        if not chunk:
            raise EOFError
        received += chunk
        if len(received) == wanted == _LENGTH.size:
            wanted += _LENGTH.unpack(received)[0]
    return received[_LENGTH.size :]


WORKER: Final = Worker()
atexit.register(WORKER.close)


_compiled: Final = functools.lru_cache(maxsize=200)(compile_expression)


def main() -> None:
    """Answer requests until the server closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches only the server, which ends this process
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    _send(answers, b"")
    while head := requests.read(_LENGTH.size):
        evaluation = Evaluation(*pickle.loads(requests.read(_LENGTH.unpack(head)[0])))  # noqa: S301 - from the server
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)  # the timer's signal ends the process
        started = time.process_time()
        message = evaluation.message_source
        outcome = evaluate(evaluation, _compiled(evaluation.source), _compiled(message) if message else None)
        signal.setitimer(signal.ITIMER_PROF, 0)
        _send(answers, pickle.dumps(tuple(outcome._replace(cpu_seconds=time.process_time() - started))))


def _send(pipe: IO[bytes], message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()
