"""Tests that a command or script that may have run is not run again: with faults at each await of its attempt, in a
real sandbox, with the real decision about retries. The effect is a byte that is read from a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import functools
import gc
import os
import shutil
import struct
import tempfile
import termios
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from faultpoints import Fault, Tally, disturbed
from parts import require
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.backends.base import AttemptRequest, Command
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.process import ProcessBackend
from remit.execution import progress
from remit.execution.lifecycle import RetryAt, after_attempt
from remit.execution.runner import Attempt, Runner
from remit.execution.store import RunStore
from remit.sandbox import Ability, Confinement, Layer, Limits, probe_host
from remit.telemetry.redact import Redactor

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPTS = 4
SCRIPT = "/run/remit/script"
_BARE = frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS})


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Suppresses tracebacks, which take most of the time."""
    with structlog.testing.capture_logs():
        yield


@dataclass
class Effects:
    """Bytes that were read from pipes, one pipe for each task. Both kinds of sandbox may read the folder of the pipes,
    and neither may write to it."""

    folder: Path
    _pipes: dict[int, int] = field(default_factory=dict)

    def path(self, number: int) -> Path:
        path = self.folder / str(number)
        if number not in self._pipes:
            os.mkfifo(path)
            path.chmod(0o644)
            self._pipes[number] = os.open(path, os.O_RDWR | os.O_NONBLOCK)
            os.write(self._pipes[number], b"\n" * ATTEMPTS)
        return path

    def count(self, number: int) -> int:
        left = struct.unpack("i", fcntl.ioctl(self._pipes[number], termios.FIONREAD, bytes(4)))[0]
        return ATTEMPTS - int(left)

    def close(self) -> None:
        for pipe in self._pipes.values():
            os.close(pipe)


class Disturbed(Runner):
    """A runner whose first attempt has a fault."""

    disturb: Callable[[Coroutine[Any, Any, Outcome]], Coroutine[Any, Any, Outcome]] | None = None

    async def _kept(self, *args: Any) -> Outcome:
        disturb, self.disturb = self.disturb, None
        running = super()._kept(*args)
        return await (disturb(running) if disturb else running)


@dataclass
class Bench:
    backend: ProcessBackend
    effects: Effects
    runs: Path
    form: str
    require: frozenset[Layer] = frozenset()

    def request(self, id_: str, number: int, then: str = "") -> AttemptRequest:
        source = f"read line < {self.effects.path(number)}{then}"
        argv = ("sh", "-c", source) if self.form == "command" else ("sh", SCRIPT)
        return AttemptRequest(
            id=id_,
            command=Command(argv, "/bin/sh"),
            confinement=Confinement(limits=Limits(), network="none", require=self.require),
            timeout_seconds=30,
            grace_seconds=0.2,
            files={} if self.form == "command" else {SCRIPT: source.encode()},
        )

    async def attempts(
        self, number: int, fault: Fault, on_interruption: str, *, interrupted_after: bool = False
    ) -> list[Outcome]:
        """Runs the attempts of one task with `maxRetries: 3`. The first one is disturbed. `interrupted_after`: its
        program continues after the effect, and is interrupted once the effect is observed."""
        ended, outcomes = asyncio.Event(), list[Outcome]()
        runner = Disturbed({"process": self.backend}, RunStore(self.runs), Redactor(), lambda _: ended.set())
        interrupt = functools.partial(runner.stop, "u", ExitReason.INTERRUPTED)
        runner.disturb = functools.partial(disturbed, fault=fault, overdue=interrupt)
        retry = {"maxRetries": ATTEMPTS - 1, "onInterruption": on_interruption}
        task = ExecutionTask.parse(
            {"metadata": {"name": "t", "namespace": "ns"}, "spec": {"command": {"argv": ["x"]}, "retry": retry}}
        )
        while True:
            id_ = f"u-{number}.{len(outcomes)}"
            ended.clear()
            request = self.request(id_, number, then="; exec sleep 60" if interrupted_after else "")
            runner.start(Attempt("ns/t", "ns", "u", "process", request, 1000, 100))
            async with asyncio.timeout(30):
                if interrupted_after:
                    await self._when_it_took_place(number, interrupt)
                await ended.wait()
            task = task.model_copy(update={"status": progress.begun(task, id_, None, NOW)})
            recorded = AttemptStatus(number=1, id=id_, started_at=NOW)
            outcomes.append(await runner.collect("ns", "u", recorded, 100))
            task = task.model_copy(update={"status": progress.attempt_ended(task, outcomes[-1])})
            step = after_attempt(task, outcomes[-1], now=datetime.now(UTC), draw=0.5)
            if not isinstance(step, RetryAt) or len(outcomes) == ATTEMPTS:
                return outcomes

    async def _when_it_took_place(self, number: int, then: Callable[[], None]) -> None:
        while not self.effects.count(number):
            await asyncio.sleep(0.01)
        then()


@contextlib.asynccontextmanager
async def opened(folder: Path, form: str, walls: str) -> AsyncIterator[Bench]:
    outside = Path(tempfile.mkdtemp(prefix="remit-effects-"))
    outside.chmod(0o755)  # without namespaces, another user needs access to it
    effects, host = Effects(outside), probe_host()
    backend = functools.partial(ProcessBackend, read_only_paths=[str(outside)])
    bench = Bench(backend(host), effects, folder / "runs", form)
    if walls == "landlock":
        require("landlock", host.bare, host.abilities[Layer.LANDLOCK].detail)
        lacking = Ability(Layer.NAMESPACES, False, "left out by the test", "leave it in")
        bare = replace(host, bubblewrap=None, abilities={**host.abilities, Layer.NAMESPACES: lacking})
        bench = replace(bench, backend=backend(bare), require=_BARE)
    try:
        yield bench
    finally:
        effects.close()
        shutil.rmtree(outside)


FAULTS: dict[str, Callable[[int], Fault]] = {
    "connection": lambda point: Fault(point, ConnectionResetError(errno.ECONNRESET, "a fault")),
    "timeout": lambda point: Fault(point, TimeoutError("a fault")),
    "unexpected": lambda point: Fault(point, RuntimeError("a fault")),
    "cancelled by itself": lambda point: Fault(point, asyncio.CancelledError("a fault")),
    "interrupted": lambda point: Fault(point, None, "meanwhile"),
}
USUAL = {
    ("namespaces", "command", "Fail"): ("connection", "unexpected", "interrupted"),
    ("namespaces", "command", "Retry"): ("interrupted",),
    ("namespaces", "script", "Fail"): ("timeout", "cancelled by itself"),
    ("namespaces", "script", "Retry"): (),
    ("landlock", "command", "Fail"): ("unexpected",),
    ("landlock", "command", "Retry"): ("interrupted",),
    ("landlock", "script", "Fail"): (),
    ("landlock", "script", "Retry"): (),
}
SOAKED = [pytest.mark.soak, pytest.mark.timeout(3600)]
CASES = [
    pytest.param(walls, form, on_interruption, fault, marks=() if fault in usual else SOAKED)
    for (walls, form, on_interruption), usual in USUAL.items()
    for fault in FAULTS
]


def judge(bench: Bench, number: int, outcomes: list[Outcome], where: str, tally: Tally, on_interruption: str) -> None:
    first, last, count = outcomes[0], outcomes[-1], bench.effects.count(number)
    tally.injected += 1
    if first.reason == "Interrupted" and on_interruption == "Retry":
        assert last.reason == "Completed", f"{where}: {outcomes}"
        assert 1 <= count <= 2, where
        tally.retried += 1
        return
    if tally.was_refused(outcomes, count, where) and first.reason != "Interrupted":
        assert not first.retryable, where
        assert "; it may have run" in first.message, f"{where}: {first} does not tell what may have taken place"


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize(("walls", "form", "on_interruption", "fault"), CASES)
async def test_no_fault_at_any_wait_runs_it_again(
    tmp_path: Path, walls: str, form: str, on_interruption: str, fault: str
) -> None:
    tally = Tally()
    async with opened(tmp_path, form, walls) as bench:
        for point in range(1, 1000):
            injected = FAULTS[fault](point)
            outcomes = await bench.attempts(point, injected, on_interruption)
            if not injected.met:
                assert [outcome.reason for outcome in outcomes] == ["Completed"], outcomes
                assert bench.effects.count(point) == 1
                break
            judge(bench, point, outcomes, f"{fault} at wait {point}", tally, on_interruption)
        # At an await, the fault may come before or after the effect.
        if (on_interruption, fault) == ("Fail", "interrupted"):
            outcomes = await bench.attempts(0, FAULTS[fault](0), on_interruption, interrupted_after=True)
            judge(bench, 0, outcomes, "interrupted after the effect", tally, on_interruption)
    print(walls, form, fault, on_interruption, tally)
    gc.collect()
    if (on_interruption, fault) != ("Retry", "interrupted"):
        assert tally.took_place, "no fault came after the effect"
    if (on_interruption, fault) != ("Fail", "interrupted"):
        assert tally.retried, "no fault came before the effect"
