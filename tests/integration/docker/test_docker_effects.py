"""Tests that a command in a container that may have run is not run again: with faults at each await of an attempt and
at each call of its engine, and with an operator that stops at each await. The effect is a line in a folder of the host.
Nothing may remain on the engine or in the operator."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import gc
import os
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
import structlog.testing

from dockers import OwnEngine, docker
from faultpoints import Fault, Tally, disturbed
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.backends import blocking
from remit.backends.base import AttemptRequest, Command
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import Engine
from remit.backends.docker.folders import Staging
from remit.backends.filetree import FileTree
from remit.backends.outcome import ExitReason, Outcome
from remit.execution import progress
from remit.execution.lifecycle import RetryAt, after_attempt
from remit.execution.runner import Attempt, Runner
from remit.execution.store import RunStore
from remit.sandbox import Confinement, HostMount, Identities, Limits, Network, fork_server
from remit.telemetry.redact import Redactor
from support import soaking

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount"),
    pytest.mark.timeout(3600 if soaking() else 300),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"),
]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ATTEMPTS = 4
PATIENCE = 60
SCRIPT = (
    "read line; touch kept; echo $line >> /effects/{number}; until test -e /effects/{number}.end; do sleep 0.01; done"
)
OWNER = 71_234
MOST_POINTS = 1000
Fault_ = TypeVar("Fault_")
Running = Coroutine[Any, Any, Outcome]


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Suppresses tracebacks, which take most of the time."""
    with structlog.testing.capture_logs():
        yield


class Disturbed(Runner):
    """A runner whose next attempt has a fault."""

    disturb: Callable[[Running], Running] | None = None

    async def _kept(self, *args: Any) -> Outcome:
        disturb, self.disturb = self.disturb, None
        running = super()._kept(*args)
        return await (disturb(running) if disturb else running)


class FaultyEngine(Engine):
    """An engine that fails in its `point`-th call after that is set, before or after (`asked`) the call reached the
    engine."""

    point = 0
    asked = False

    async def _in_thread(self, ask: Any) -> Any:
        self.point -= 1
        if self.point:
            return await super()._in_thread(ask)
        if self.asked:
            await super()._in_thread(ask)
        raise requests.ConnectionError("a fault")


def collected(tree: FileTree, outcome: Outcome) -> Outcome:
    assert [found.path for found in tree.find("/workspace/*")] == ["kept"]
    return outcome


@dataclass
class Bench:
    engine: FaultyEngine
    image: str
    top: Path
    network: Network
    backend: DockerBackend = field(init=False)
    faults: dict[int, str] = field(default_factory=dict)
    """Faults by number."""

    def __post_init__(self) -> None:
        self.backend = DockerBackend(
            self.engine, staging=Staging(self.top / "mounts", identities=Identities(2_000_000, 9))
        )

    def count(self, number: int) -> int:
        path = self.top / "effects" / str(number)
        return path.read_text().count("x") if path.exists() else 0

    def may_end(self, number: int) -> None:
        """Lets the operation of this number end."""
        (self.top / "effects" / f"{number}.end").touch()

    def request(self, id_: str, number: int) -> AttemptRequest:
        """Returns a request that needs every kind of call to the engine."""
        effects = str(self.top / "effects")
        return AttemptRequest(
            id_,
            Command(("sh", "/run/remit/script"), "", stdin=b"x\n"),
            Confinement(
                Limits(),
                network=self.network,
                require=frozenset(),
                mounts=(HostMount("/effects", str(self.top), effects, read_only=False),),
            ),
            timeout_seconds=PATIENCE,
            grace_seconds=0.2,
            files={"/run/remit/script": SCRIPT.format(number=number).encode()},
            image=self.image,
            collector=collected,
        )

    def runner(self, ended: asyncio.Event) -> Disturbed:
        return Disturbed({"docker": self.backend}, RunStore(self.top / "runs"), Redactor(), lambda _: ended.set())

    async def attempts(
        self,
        number: int,
        first: Callable[[Disturbed, Callable[[], None], Callable[[], None]], None],
        then: Callable[[Disturbed, Callable[[], None], Callable[[], None]], None] = lambda *_: None,
        on_interruption: str = "Fail",
    ) -> list[Outcome]:
        """Runs the attempts of one task with `maxRetries: 3`. `first` disturbs the first attempt, with functions that
        interrupt it and that release it as a stopping operator does; `then` disturbs the attempt of the next operator,
        which adopts it."""
        ended, outcomes = asyncio.Event(), list[Outcome]()
        retry = {"maxRetries": ATTEMPTS - 1, "onInterruption": on_interruption}
        task = ExecutionTask.parse(
            {"metadata": {"name": "t", "namespace": "ns"}, "spec": {"command": {"argv": ["x"]}, "retry": retry}}
        )
        disturbing = [first, then]
        while True:
            id_, adopt = f"u-{number}.{len(outcomes)}", False
            recorded = AttemptStatus(number=1, id=id_, started_at=NOW, backend="docker")
            while True:
                ended.clear()
                runner = self.runner(ended)
                attempt = Attempt("ns/t", "ns", "u", "docker", self.request(id_, number), 1000, 100)
                runner.start(attempt, adopt=adopt)
                doing = runner._going["u"].task
                if disturbing:
                    disturbing.pop(0)(runner, functools.partial(runner.stop, "u", ExitReason.INTERRUPTED), doing.cancel)
                async with asyncio.timeout(PATIENCE):
                    await asyncio.wait({doing})
                if ended.is_set() or runner.has_ended("ns", "u", recorded):
                    break
                assert runner.adoptable("ns", "u", recorded)
                adopt = True
            disturbing.clear()
            task = task.model_copy(update={"status": progress.begun(task, id_, None, NOW)})
            outcomes.append(await runner.collect("ns", "u", recorded, 100))
            task = task.model_copy(update={"status": progress.attempt_ended(task, outcomes[-1])})
            step = after_attempt(task, outcomes[-1], now=datetime.now(UTC), draw=0.5)
            if not isinstance(step, RetryAt) or len(outcomes) == ATTEMPTS:
                return outcomes

    def judge(self, number: int, outcomes: list[Outcome], where: str, tally: Tally) -> None:
        tally.injected += 1
        self.faults[number] = where
        first = outcomes[0]
        if tally.was_refused(outcomes, self.count(number), where) and first.reason != "Interrupted":
            assert not first.retryable, where
            assert "; it may have run" in first.message, f"{where}: {first} does not tell what may have taken place"


@contextlib.asynccontextmanager
async def opened(own: OwnEngine, own_image: str, network: Network) -> AsyncIterator[Bench]:
    top = Path(tempfile.mkdtemp(prefix="remit-effects-"))
    top.chmod(0o755)
    (top / "effects").mkdir()
    os.chown(top / "effects", OWNER, OWNER)
    fork_server()  # the fork server is started here, because it remains
    before, engine = left_here(), FaultyEngine(own.host)
    try:
        yield (bench := Bench(engine, own_image, top, network))
        names = docker("ps", "-a", "--format", "{{.Names}} {{.State}}", host=own.host).stdout.decode().splitlines()
        left = [f"{name} ({bench.faults[int(name.split('-')[2].split('.')[0])]})" for name in names]
        assert left == [], "containers were left"
        assert docker("volume", "ls", "-q", host=own.host).stdout == b"", "volumes were left"
        assert list((top / "mounts").iterdir()) == [], "mounts were left"
        await engine.close()
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while more := left_here() - before:
            assert asyncio.get_running_loop().time() < deadline, f"descriptors or threads were left: {more}"
            gc.collect()
            await asyncio.sleep(0.05)
    finally:
        for id_ in docker("ps", "-aq", host=own.host).stdout.decode().split():
            docker("rm", "-fv", id_, host=own.host)
        await engine.close()
        shutil.rmtree(top)


def left_here() -> Counter[str]:
    """Counts descriptors and threads, except those of the event loop's own pool and some that wait for blocking
    work."""
    found = Counter(thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_"))
    found["blocking"] -= len(blocking._idle)
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor that lists the folder
            target = str(path.readlink())
            found[target.partition(":")[0] if target.startswith("socket:") else target] += 1
    return found


FAULTS: dict[str, Callable[[int], Fault]] = {
    "unexpected": lambda point: Fault(point, RuntimeError("a fault")),
    "interrupted": lambda point: Fault(point, None, "meanwhile"),
    "cancelled by itself": lambda point: Fault(point, asyncio.CancelledError("a fault")),
    "connection": lambda point: Fault(point, ConnectionResetError(errno.ECONNRESET, "a fault")),
    "stopped": lambda point: Fault(point, None, "meanwhile"),
}
NETWORKS = ["none", pytest.param("restricted", marks=pytest.mark.soak)]


def points(*some: int) -> Sequence[int]:
    """Returns the points to test: usually `some`, which are before and after the effect, and all of them in soak runs
    until one is not reached."""
    return range(1, MOST_POINTS) if soaking() else some


def at(names: Sequence[Fault_], index: int) -> Sequence[Fault_]:
    """Returns the faults for the point with that index: usually one of them."""
    return names if soaking() else [names[index % len(names)]]


def disturbing(name: str, fault: Fault) -> Callable[..., None]:
    def disturb(runner: Disturbed, interrupt: Callable[[], None], let_go: Callable[[], None]) -> None:
        overdue = let_go if name == "stopped" else interrupt
        runner.disturb = functools.partial(disturbed, fault=fault, overdue=overdue)

    return disturb


def letting_go_once_it_took_place(bench: Bench, number: int) -> Callable[..., None]:
    """Stops the first operator after the effect took place, so that the next one finds the container running."""

    def disturb(runner: Disturbed, interrupt: Callable[[], None], let_go: Callable[[], None]) -> None:
        async def wait_and_go(running: Running) -> Outcome:
            doing = asyncio.ensure_future(running)
            try:
                async with asyncio.timeout(PATIENCE):
                    while not bench.count(number):
                        assert not doing.done(), f"it ended before it took place: {doing}"
                        await asyncio.sleep(0.01)
            finally:
                doing.cancel()
                await asyncio.gather(doing, return_exceptions=True)
            bench.may_end(number)
            let_go()
            await asyncio.sleep(0)
            raise AssertionError("it was let go of")

        runner.disturb = wait_and_go

    return disturb


async def at_each_wait(
    bench: Bench, attempts: Callable[..., Any], chosen: Sequence[int], faults: Sequence[str]
) -> Tally:
    """Injects faults at each await. `attempts` takes a number and the function that disturbs."""
    tally, number = Tally(), 0
    for index, point in enumerate(chosen):
        met = False
        for name in at(faults, index):
            number += 1
            fault = FAULTS[name](point)
            outcomes = await attempts(number, disturbing(name, fault))
            if fault.met:
                met = True
                bench.judge(number, outcomes, f"{name} at wait {point}", tally)
        if not met:
            assert [outcome.reason for outcome in outcomes] == ["Completed"], outcomes
            return tally
    assert not soaking(), "it never ends"
    return tally


@pytest.mark.parametrize("network", NETWORKS)
async def test_no_fault_at_any_wait_runs_it_again(own: OwnEngine, own_image: str, network: Network) -> None:
    async with opened(own, own_image, network) as bench:

        async def attempts(number: int, disturb: Callable[..., None]) -> list[Outcome]:
            bench.may_end(number)
            return await bench.attempts(number, disturb)

        tally = await at_each_wait(bench, attempts, points(1, 9, 17), list(FAULTS))
    print(tally)
    assert tally.took_place, "no fault came after the effect"
    assert tally.retried, "no fault came before the effect"


@pytest.mark.parametrize("network", NETWORKS)
async def test_no_fault_at_any_wait_of_taking_it_up_runs_it_again(
    own: OwnEngine, own_image: str, network: Network
) -> None:
    async with opened(own, own_image, network) as bench:

        async def attempts(number: int, disturb: Callable[..., None]) -> list[Outcome]:
            return await bench.attempts(number, letting_go_once_it_took_place(bench, number), disturb)

        # Only an unexpected error ends an attempt at each of its waits, whose number depends on the machine's load.
        names = ["stopped", "unexpected", "connection", "interrupted", "cancelled by itself"]
        tally = await at_each_wait(bench, attempts, points(1, 5, 9), names)
    print(tally)
    assert tally.took_place, "no fault came after the effect"


@pytest.mark.parametrize("taken_up", [False, True], ids=["run", "taken up"])
@pytest.mark.parametrize("network", NETWORKS)
async def test_no_call_that_fails_runs_it_again(
    own: OwnEngine, own_image: str, network: Network, taken_up: bool
) -> None:
    tally, number = Tally(), 0
    async with opened(own, own_image, network) as bench:
        engine = bench.engine
        for index, point in enumerate(points(1, 6, 11) if taken_up else points(2, 6, 8, 11)):
            for asked in at([False, True], index):
                number += 1

                def fail(*_: Any, point: int = point, asked: bool = asked) -> None:
                    engine.point, engine.asked = point, asked

                if taken_up:
                    outcomes = await bench.attempts(number, letting_go_once_it_took_place(bench, number), fail)
                else:
                    bench.may_end(number)
                    outcomes = await bench.attempts(number, fail)
                # A fault that was not reached must not affect the next attempt.
                met, engine.point = engine.point <= 0, 0
                bench.judge(number, outcomes, f"call {point}, {asked=}", tally)
            if not met:
                assert [outcome.reason for outcome in outcomes] == ["Completed"], outcomes
                break
    print(tally)
    if not taken_up:
        assert tally.took_place, "no fault came after the effect"
        assert tally.retried, "no fault came before the effect"
