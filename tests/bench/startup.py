"""Measures how long it takes to start a program, observe its end, and know its outcome."""

from __future__ import annotations

import asyncio
import itertools
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.figures import Figures, milliseconds, percentile, ratio
from remit.backends.base import AttemptRequest, Command, Stream
from remit.backends.process import ProcessBackend
from remit.sandbox import (
    CgroupSpec,
    CgroupTree,
    Confinement,
    Execute,
    Host,
    HostMount,
    Layer,
    Limits,
    fork_server,
    probe_host,
    rlimits,
    shared_memory,
)
from remit.sandbox.bubblewrap import namespace_arguments, released
from remit.sandbox.filesystem import private_mounts
from remit.sandbox.rlimits import RESOURCES
from remit.sandbox.seccomp import compile_filter

LIMITS = Limits(memory_bytes=256 << 20, pids=64, disk_bytes=64 << 20)
ALL = frozenset({"memory", "pids"})
RUNS = 300
REST_SECONDS = 0.005
AT_ONCE = 8
DOCKER_RUNS = 20
TRUE = shutil.which("true", path="/usr/bin:/bin") or "/bin/true"
COLUMNS = ("", "p50 ms", "p95 ms", "p50 to bare", "CPU ms")
BARE = "bare bubblewrap, every namespace"
RUNNER = "all, and the rest of Remit's runner"
MOUNTED = "the same, and one hostPath mount"
_ids = itertools.count()


class Silence:
    """A sink for programs without output."""

    def write(self, stream: Stream, chunk: bytes) -> None:
        pass


async def measure() -> Figures:
    host = probe_host()
    backend = ProcessBackend(host)
    bare = bare_bubblewrap(host)
    added = layers(host, bare)
    contestants: dict[str, Callable[[], Awaitable[None]]] = {
        "posix_spawn": lambda: spawn([TRUE]),
        BARE: lambda: spawn(bare),
        **added,
        RUNNER: lambda: attempt(backend),
    }
    note = "In turns, each from rest, so that a busy machine is unfair to none of them; the last rows one by one."
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        if host.bubblewrap and (by := host.bubblewrap.mounts_by):
            note += f" A hostPath is mounted by {by}."
            mount = HostMount("/src", folder, folder)
            contestants[MOUNTED] = lambda: attempt(backend, mount)
        samples = await in_turns(contestants, RUNS)
    for name in (BARE, list(added)[-1]):
        samples[f"{name.removeprefix('+ ')}, one right after the other"] = await together(contestants[name], RUNS, 1)
    samples[f"Remit's runner, {AT_ONCE} at once"] = await together(lambda: attempt(backend), RUNS, AT_ONCE)
    if image := docker_image():
        run = ["docker", "run", "--rm", image]
        samples |= await in_turns({"docker run --rm": lambda: spawn(run)}, DOCKER_RUNS)
    else:
        note += " No docker run: no Docker engine answers here."
    base = percentile([sample.seconds for sample in samples[BARE]], 50)
    rows = [_row(name, taken, base) for name, taken in samples.items()]
    if MOUNTED in samples:
        rows.append(_pairs(samples[RUNNER], samples[MOUNTED], base))
    return Figures("Start-up: /bin/true from start to known end", COLUMNS, rows, note)


@dataclass(frozen=True)
class Sample:
    """One run: wall-clock time, and CPU time of this process and its children (not of a daemon)."""

    seconds: float
    cpu: float


def _row(name: str, samples: Sequence[Sample], base: float) -> tuple[str, ...]:
    seconds = [sample.seconds for sample in samples]
    middle, cpu = percentile(seconds, 50), sum(sample.cpu for sample in samples) / len(samples)
    return name, milliseconds(middle), milliseconds(percentile(seconds, 95)), ratio(middle, base), milliseconds(cpu)


def _pairs(without: Sequence[Sample], with_mount: Sequence[Sample], base: float) -> tuple[str, ...]:
    """Returns the cost of the mount, from the turns in which both were measured."""
    pairs = zip(with_mount, without, strict=True)
    more = [Sample(one.seconds - other.seconds, one.cpu - other.cpu) for one, other in pairs]
    return _row("what the hostPath mount costs, of pairs", more, base)


async def in_turns(contestants: Mapping[str, Callable[[], Awaitable[None]]], runs: int) -> dict[str, list[Sample]]:
    """Runs the contestants in turns, each from an idle state, so that deferred work of one (forking ahead, cgroups)
    does not affect the next one."""
    samples: dict[str, list[Sample]] = {name: [] for name in contestants}
    for _ in range(runs):
        for name, work in contestants.items():
            await asyncio.sleep(REST_SECONDS)
            start, cpu = time.perf_counter(), _cpu()
            await work()
            samples[name].append(Sample(time.perf_counter() - start, _cpu() - cpu))
    return samples


async def together(work: Callable[[], Awaitable[None]], runs: int, at_once: int) -> list[Sample]:
    """Runs `work` `runs` times in total with `at_once` workers. CPU time is divided evenly."""
    times: list[float] = []

    async def worker() -> None:
        for _ in range(runs // at_once):
            start = time.perf_counter()
            await work()
            times.append(time.perf_counter() - start)

    cpu = _cpu()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    share = (_cpu() - cpu) / len(times)
    return [Sample(seconds, share) for seconds in times]


def _cpu() -> float:
    """Returns the CPU time of this process and its children, and of the fork server and its children."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    server = psutil.Process(fork_server().pid).cpu_times()
    forked = server.user + server.system + server.children_user + server.children_system
    return forked + sum(each.ru_utime + each.ru_stime for each in used)


async def spawn(argv: Sequence[str]) -> None:
    """Starts a program with the least overhead in Python: posix_spawn and waitpid."""
    quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    pid = os.posix_spawnp(argv[0], list(argv), os.environ if argv[0] == "docker" else {}, file_actions=quiet)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"{argv[0]} failed with status {status}")


def bare_bubblewrap(host: Host) -> list[str]:
    """Returns the command for the same namespaces with bubblewrap alone: no cgroup, no limits, no seccomp, no output
    read."""
    if host.bubblewrap is None:
        raise RuntimeError("bubblewrap confines nothing on this host; see `remit doctor`")
    arguments = [
        *namespace_arguments("none"),
        *private_mounts(256 << 20),
        *released(network="none", read_only_paths=()),
    ]
    return [host.bubblewrap.path, *arguments, "--", TRUE]


def layers(host: Host, bare: Sequence[str]) -> dict[str, Callable[[], Awaitable[None]]]:
    """Returns bare bubblewrap with one layer after the other added."""
    named: dict[str, Callable[[], Awaitable[None]]] = {}
    steps: list[tuple[object, ...]] = [("no_new_privileges",)]
    if host.bubblewrap and (identities := host.bubblewrap.identities):
        steps.append(("become", identities.uid(0), identities.uid(0)))
    forked = tuple(steps)
    named["+ fork server, and a user of its own"] = lambda: fork(bare, forked)
    limited = (*forked, ("limit", {RESOURCES[name]: value for name, value in rlimits(LIMITS, controllers=ALL).items()}))
    named["+ rlimits"] = lambda: fork(bare, limited)
    scoped = (*limited, ("restrict", host.landlock_scopes)) if host.landlock_scopes else limited
    if host.landlock_scopes:
        named["+ landlock"] = lambda: fork(bare, scoped)
    tree = host.cgroups
    if tree:
        named["+ cgroup"] = lambda: fork(bare, scoped, tree)
    if host.abilities[Layer.SECCOMP].available:
        program = compile_filter(host.machine, "none")
        named["+ seccomp: every layer"] = lambda: fork(bare, scoped, tree, program)
    return named


async def fork(
    argv: Sequence[str],
    steps: Sequence[tuple[object, ...]],
    tree: CgroupTree | None = None,
    system_call_filter: bytes | None = None,
) -> None:
    """Starts a program with the fork server, in a cgroup if `tree` is given, with a filter if one is given."""
    held = [shared_memory(system_call_filter)] if system_call_filter else []
    argv = [argv[0], *(word for fd in held for word in ("--seccomp", str(fd))), *argv[1:]]
    cgroup = CgroupSpec(tree, LIMITS) if tree else None
    quiet = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    process = fork_server().begin(Execute(argv, (quiet, quiet, quiet), held, steps, cgroup))
    for descriptor in (quiet, *held):
        os.close(descriptor)
    process.wait(60)
    if process.cgroup:
        process.cgroup.usage()
    process.close()
    if process.returncode:
        raise RuntimeError(f"{argv[0]} failed with exit code {process.returncode}")


async def attempt(backend: ProcessBackend, *mounts: HostMount) -> None:
    request = AttemptRequest(
        id=f"bench-{next(_ids)}",
        command=Command((TRUE,), TRUE),
        confinement=Confinement(limits=LIMITS, mounts=mounts),
        timeout_seconds=60,
    )
    outcome = await backend.run(request, Silence(), cancel=asyncio.Event())
    if outcome.exit_code:
        raise RuntimeError(f"{TRUE} failed: {outcome.message}")


def docker_image() -> str | None:
    """Builds an image that contains only a program that ends immediately. Returns None if no engine answers."""
    docker, compiler = shutil.which("docker"), shutil.which("cc")
    if docker is None or subprocess.run([docker, "info"], capture_output=True, check=False).returncode:
        return None
    busybox = shutil.which("busybox")
    name = "remit-bench:true"
    with tempfile.TemporaryDirectory() as folder:
        binary = Path(folder, "true")
        if compiler:
            Path(folder, "true.c").write_text("int main(void) { return 0; }")
            subprocess.run([compiler, "-static", "-o", binary, f"{folder}/true.c"], check=True)
        elif busybox:
            shutil.copy(busybox, binary)
        else:
            sys.stderr.write("docker run is left out: a C compiler or busybox is needed to make an image offline\n")
            return None
        Path(folder, "Dockerfile").write_text('FROM scratch\nCOPY true /true\nCMD ["/true"]\n')
        subprocess.run([docker, "build", "--quiet", "--tag", name, folder], check=True, capture_output=True)
    return name
