"""Kills operators while they start tasks, and looks for processes of the tasks that remain.

    python tests/killloop.py [--rounds N] [--kill operator|both|any] [--user nobody|root]

Each round runs one operator: as nobody without cgroups, or as root with the host's cgroups. It starts twelve tasks and
gets SIGKILL 20 to 250 ms later: `operator` alone, `both` together with its fork server, `any` either way. `running` are
processes of tasks that do not end by themselves then, and `left` those that remain after another operator has recovered
the run store. Run it as root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from uuid import uuid4

if TYPE_CHECKING:
    from portable import Portable

STARTS = 12
User = Literal["nobody", "root"]
_IDS: dict[User, int] = {"nobody": 65_534, "root": 0}
_SETTLED_SECONDS = 15.0
_UNSWEPT_SECONDS = 1.0  # after this time, no more processes end by themselves without a fork server
_PATIENCE_SECONDS = 30.0
_EARLIEST, _LATEST = 0.02, 0.25


@dataclass(frozen=True)
class Round:
    """Observations after the death of one operator: pid and name of each process of a task."""

    running: tuple[tuple[int, str], ...]
    left: tuple[tuple[int, str], ...]


class Operators:
    """Successive operators, each forked from one process that has imported all modules."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self._process = process
        self._folder = folder

    def dies(self, kill: str, after: float) -> Round:
        """Starts an operator that starts its tasks, kills it after `after` seconds, and lets another operator
        recover."""
        mark = f"mark-{uuid4()}"
        store = self._folder / mark
        try:
            pid = int(self._ask(f"start {mark} {store}"))
            time.sleep(after)
            servers = _children(pid)
            for each in (pid, *(servers if kill == "both" else ())):
                os.kill(each, signal.SIGKILL)
            _wait_until(lambda: not any(Path(f"/proc/{each}").exists() for each in servers), _SETTLED_SECONDS)
            running = _settled(mark, _SETTLED_SECONDS if kill == "operator" else _UNSWEPT_SECONDS)
            assert self._ask(f"recover {store}") == "recovered"
            return Round(running, _settled(mark, _SETTLED_SECONDS))
        finally:
            for each, _ in marked(mark):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    def _ask(self, order: str) -> str:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{order}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextlib.contextmanager
def operators(portable: Portable, folder: Path, user: User) -> Iterator[Operators]:
    """Yields operators that run as `user`, from the files of `portable`, with their state in `folder`."""
    shutil.chown(folder, _IDS[user], _IDS[user])
    repository = portable.folder / "repository"
    path = os.pathsep.join([portable.environment["PYTHONPATH"], str(repository / "operator")])
    process = subprocess.Popen(
        [portable.python, str(repository / "tests" / Path(__file__).name), "--serve"],
        env={**portable.environment, "PYTHONPATH": path, "TMPDIR": str(folder)},
        cwd=folder,
        user=_IDS[user],
        group=_IDS[user],
        extra_groups=[],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield Operators(process, folder)
        finally:
            process.stdin.close()  # type: ignore[union-attr]
            process.wait(_PATIENCE_SECONDS)


def delay() -> float:
    return random.uniform(_EARLIEST, _LATEST)


def marked(mark: str) -> tuple[tuple[int, str], ...]:
    """Returns the processes that have `mark` among their arguments."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes():
                found.append((int(path.parent.name), (path.parent / "comm").read_text().strip()))
    return tuple(found)


def _settled(mark: str, seconds: float) -> tuple[tuple[int, str], ...]:
    _wait_until(lambda: not marked(mark), seconds)
    return marked(mark)


def _wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Waits until the condition holds, for at most `seconds`. The caller evaluates what does not hold then."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.1)  # reading all of /proc costs as much as starting a task


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def serve() -> None:
    """Serves the process that operators are forked from: it reads orders from stdin and writes answers to stdout."""
    from remit.backends.process import ProcessBackend  # noqa: F401  # before the forks, each of which would import it
    from remit.execution.store import RunStore  # noqa: F401
    from remit.sandbox import Ability, Layer, probe_host

    host = probe_host()
    if os.geteuid() != 0:
        none = Ability(Layer.CGROUP, False, "left out", "leave it in")
        host = dataclasses.replace(host, cgroups=None, abilities={**host.abilities, Layer.CGROUP: none})
    for line in sys.stdin:
        order, *words = line.split()
        reading, writing = os.pipe()
        if not (child := os.fork()):
            os.close(reading)
            work = (
                _start(host, words[0], Path(words[1]), writing) if order == "start" else _recover(host, Path(words[0]))
            )
            asyncio.run(work)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as told:
            told.read()  # until it is about to start its tasks, or has recovered everything
        if order == "start":
            print(child, flush=True)
        _, status = os.waitpid(child, 0)
        if order == "recover":
            print("recovered" if status == 0 else f"status {status}", flush=True)


async def _start(host: object, mark: str, root: Path, writing: int) -> None:
    from remit.backends.base import AttemptRequest, Command
    from remit.backends.process import ProcessBackend
    from remit.execution.store import RunStore
    from remit.sandbox import Confinement, Limits

    class Sink:
        def write(self, stream: str, chunk: bytes) -> None: ...

    store, backend = RunStore(root), ProcessBackend(host)  # type: ignore[arg-type]
    os.close(writing)

    async def start(number: int) -> None:
        run = store.open("default", str(number), str(number))
        command = Command(("tail", "-f", "/dev/null", mark), "/usr/bin/tail")
        request = AttemptRequest(f"{mark}-{number}", command, Confinement(Limits(disk_bytes=1 << 20)), 600)
        await backend.run(
            request,
            Sink(),
            cancel=asyncio.Event(),
            on_started=lambda handle: run.started(dataclasses.asdict(handle)),
        )

    await asyncio.gather(*(start(number) for number in range(STARTS)))


async def _recover(host: object, root: Path) -> None:
    from remit.backends.base import Handle
    from remit.backends.process import ProcessBackend
    from remit.execution.store import RunStore

    store, backend = RunStore(root), ProcessBackend(host)  # type: ignore[arg-type]
    for namespace, uid in store.tasks():
        for run in store.runs(namespace, uid):
            if run.process is not None:
                await backend.recover(Handle(**run.process | {"cgroups": tuple(run.process["cgroups"])}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--kill", choices=["operator", "both", "any"], default="operator")
    parser.add_argument("--user", choices=list(_IDS), default="nobody")
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    from portable import carry

    with contextlib.ExitStack() as stack:
        code, work = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-killloop-", dir="/var/tmp")))
            for _ in range(2)
        )
        run = stack.enter_context(operators(carry(code), work, options.user))
        kills = ["operator", "both"] if options.kill == "any" else [options.kill]
        rounds = []
        for number in range(1, options.rounds + 1):
            rounds.append((kill := random.choice(kills), run.dies(kill, delay())))
            if number % 50 == 0 or number == options.rounds:
                _tell(rounds)


def _tell(rounds: list[tuple[str, Round]]) -> None:
    swept = [each for kill, each in rounds if kill == "operator"]
    for name, considered in (("running", swept), ("left", [each for _, each in rounds])):
        seen = [getattr(each, name) for each in considered if getattr(each, name)]
        kinds = sorted({comm for processes in seen for _, comm in processes})
        print(f"{name}: {sum(map(len, seen))} processes in {len(seen)} of {len(considered)} rounds {kinds}", flush=True)


if __name__ == "__main__":
    main()
