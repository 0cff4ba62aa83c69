"""Operators that compete for a lease. Each is a process with its own connection to the API server, which tests can
interrupt.

    python leaders.py KUBECONFIG STATE_DIR SETTINGS

runs one operator with these settings, given as JSON. SIGUSR1 makes its wall clock jump an hour ahead, and SIGUSR2 back.
Without arguments the process is the template from which operators are forked, which saves the time for imports.

The programs of the tasks report to a witness, which depends neither on the operators nor on this test's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import itertools
import json
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import yaml

from middleman import Gate, gate
from ports import free_port
from remit.cli import serve
from remit.cli.logsetup import QUIET
from remit.controllers.settings import Settings
from remit.operations import load_drivers
from remit.sandbox import probe_host
from remit.telemetry.logs import configure

SHORT = {"lease_duration": 6, "renew_deadline": 3, "retry_period": 0.5}
"""There are three seconds between the end of work and the next holder, longer than a busy machine delays a process."""
BEATS = (
    "exec 3<>/dev/tcp/127.0.0.1/PORT; "
    'beat() { while read -r up _ </proc/uptime && echo "$REMIT_TASK_NAMESPACE/$REMIT_TASK_NAME $REMIT_ATTEMPT $up" >&3;'
    " do read -rt 0.05 -u 3; (($? > 128 && --left)) || exit 0; done; }; "
    "export -f beat; left=0; setsid bash -c beat & if ((REMIT_ATTEMPT > TIMES)); then left=5; fi; beat"
)
"""A Bash script for a task: it reports the time since boot repeatedly, and so does a background process that it starts.
It ends only after its first TIMES attempts."""
JUMP_SECONDS = 3600
_PATIENCE = 60
_CONTAINED = ("unshare", "--pid", "--mount-proc", "--fork", "--kill-child")
_SOURCE = Path(__file__).parents[1] / "operator"


@dataclass
class Witness:
    """Receives reports. `beats` has the times that each attempt of each task reported."""

    port: int = 0
    beats: dict[str, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def script(self, times: int) -> str:
        return BEATS.replace("PORT", str(self.port)).replace("TIMES", str(times))

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                task, number, uptime = line.split()
                self.beats[task.decode()][int(number)].append(float(uptime))
        writer.close()

    async def sees(self, task: str, attempt: int, after: float = 0) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not any(beat > after for beat in self.beats[task][attempt]):
                await asyncio.sleep(0.05)

    def one_at_a_time(self, task: str) -> None:
        """Asserts that no two attempts of a task ran at the same time. Attempts may be killed before they report
        anything."""
        seen = sorted((number, beats) for number, beats in self.beats[task].items() if beats)
        for (earlier, before), (later, after) in itertools.pairwise(seen):
            assert max(before) < min(after), f"{task}: attempts {earlier} and {later} overlap"


@contextlib.asynccontextmanager
async def witness() -> AsyncIterator[Witness]:
    """Yields a witness that listens."""
    seen = Witness()
    server = await asyncio.start_server(seen.listen, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()


def uptime() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Template:
    """A process that has imported all modules. Operators are forked from it and so start immediately."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._forks: dict[str, Fork] = {}
        self._closing = False
        self._numbers = itertools.count()

    async def fork(self, log: Path, *arguments: str) -> Fork:
        number = str(next(self._numbers))
        fork = self._forks[number] = Fork()
        assert self._process.stdin
        self._process.stdin.write(json.dumps([number, str(log), *arguments]).encode() + b"\n")
        await fork.started.wait()
        return fork

    async def listen(self) -> None:
        assert self._process.stdout
        while line := await self._process.stdout.readline():
            number, what, value = line.decode().split()
            if what == "started":
                self._forks[number].pid = int(value)
                self._forks[number].started.set()
                if self._closing:
                    self._forks[number].kill()
            else:
                self._forks[number].returncode = int(value)
                self._forks[number].ended.set()

    async def close(self) -> None:
        """Ends the process and all forks that remain, including those that no test waits for any more."""
        self._closing = True
        for fork in self._forks.values():
            if fork.pid and fork.returncode is None:
                fork.kill()
        assert self._process.stdin
        self._process.stdin.close()
        await self._process.wait()


@dataclass
class Fork:
    """The part of the interface of a subprocess that tests need."""

    pid: int = 0
    returncode: int | None = None
    started: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait(self) -> int:
        await self.ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


@contextlib.asynccontextmanager
async def template() -> AsyncIterator[Template]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__),
        env={**os.environ, "PYTHONPATH": f"{_SOURCE}:{Path(__file__).parent}"},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    found = Template(process)
    listening = asyncio.create_task(found.listen())
    try:
        yield found
    finally:
        await found.close()
        await listening


def fork_operators() -> None:
    """Runs in the template's process: each operator has a parent that reports when it started and how it ended."""
    probe_host()
    load_drivers()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        number, log, *arguments = json.loads(line)
        if os.fork():
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        if not (operator := os.fork()):
            os.setsid()
            out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            for descriptor in (1, 2):
                os.dup2(out, descriptor)
            main(*arguments)
            os._exit(0)
        os.write(1, f"{number} started {operator}\n".encode())
        _, status = os.waitpid(operator, 0)
        os.write(1, f"{number} ended {os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)


@dataclass
class Leader:
    """An operator process."""

    gate: Gate
    home: Path
    state_dir: Path
    settings: dict[str, Any]
    contained: bool = False
    """Whether the operator is the first process of a pid namespace, as in a container without an init."""
    template: Template | None = None
    """The template that an operator is forked from if it is not contained."""
    metrics_port: int = field(default_factory=free_port)
    process: asyncio.subprocess.Process | Fork = field(init=False)

    async def start(self) -> None:
        """Starts the operator with a new log; the previous process's log is kept beside it."""
        if self.log.exists():
            self.log.rename(self.home / f"log.{self.process.pid}")
        settings = json.dumps({**SHORT, "health_port": self.metrics_port, **self.settings})
        if self.template and not self.contained:
            self.process = await self.template.fork(
                self.log, str(self.home / "kubeconfig"), str(self.state_dir), settings
            )
            return
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(_CONTAINED if self.contained else ()),
                *(sys.executable, __file__, str(self.home / "kubeconfig"), str(self.state_dir), settings),
                env={**os.environ, "PYTHONPATH": f"{_SOURCE}:{Path(__file__).parent}"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the operator itself, unless it has ended."""
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            for each in psutil.Process(self.process.pid).children() if self.contained else (self.process,):
                os.kill(each.pid, number)

    @property
    def log(self) -> Path:
        return self.home / "log"

    def lines(self) -> list[dict[str, Any]]:
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines() if line.startswith("{") and line.endswith("}")]

    def said(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines() if message in str(line.get("message"))]

    async def until(self, reached: Callable[[], Any], what: str) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE):
                while not (found := reached()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never {what}:\n{self.log.read_text()[-3000:]}") from None
        return found

    async def works(self) -> None:
        await self.until(lambda: self.said("the operator is at work"), "at work")

    async def waits(self) -> None:
        await self.until(lambda: self.said("waiting for its lease"), "waiting for the lease")

    async def ended(self) -> int:
        async with asyncio.timeout(_PATIENCE):
            return await self.process.wait()

    async def stop(self) -> None:
        if self.process.returncode is None:
            self.signal(signal.SIGCONT)
            self.signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(10):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


@contextlib.asynccontextmanager
async def leader(
    kubeconfig: Path,
    home: Path,
    *,
    state_dir: Path | None = None,
    contained: bool = False,
    template: Template | None = None,
    **settings: Any,
) -> AsyncIterator[Leader]:
    """Starts an operator, which leads or waits. Its files are in `home`."""
    home.mkdir(parents=True, exist_ok=True)
    login = yaml.safe_load(kubeconfig.read_text())
    cluster = login["clusters"][0]["cluster"]
    async with gate(int(cluster["server"].rpartition(":")[2])) as way:
        cluster["server"] = f"https://127.0.0.1:{way.port}"
        (home / "kubeconfig").write_text(yaml.safe_dump(login))
        running = Leader(way, home, state_dir or home / "state", settings, contained, template)
        await running.start()
        try:
            yield running
        finally:
            way.open.set()
            await running.stop()


def make_clock_jump() -> None:
    """Makes the wall clock that Remit reads in this process jump when a signal arrives."""
    real, ahead = datetime.datetime, 0.0

    class Like(type(real)):  # type: ignore[misc]
        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, real)

    class Jumping(real, metaclass=Like):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            return real.now(tz) + datetime.timedelta(seconds=ahead)

    def jump(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    jumping = SimpleNamespace(**{**vars(datetime), "datetime": Jumping})
    for name, module in list(sys.modules.items()):
        if name.startswith("remit.") and vars(module).get("datetime") is datetime:
            module.datetime = jumping  # type: ignore[attr-defined]
    signal.signal(signal.SIGUSR1, lambda *_: jump(JUMP_SECONDS))
    signal.signal(signal.SIGUSR2, lambda *_: jump(-JUMP_SECONDS))


def main(kubeconfig: str, state_dir: str, settings: str) -> None:
    make_clock_jump()
    redactor = configure(format="json", level="info", levels=QUIET)
    chosen = Settings(state_dir=Path(state_dir), **json.loads(settings))
    asyncio.run(serve.operator(chosen, redactor, Path(kubeconfig), None))


if __name__ == "__main__":
    main(*sys.argv[1:]) if sys.argv[1:] else fork_operators()
