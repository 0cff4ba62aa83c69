"""Usage where no cgroup counts it: look at the processes now and then."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from remit.backends.outcome import Usage

_INTERVAL_SECONDS = 0.2


@dataclass(slots=True)
class _Used:
    """The usage of one process so far."""

    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0

    def add(self, other: _Used) -> None:
        self.cpu_seconds += other.cpu_seconds
        self.read_bytes += other.read_bytes
        self.written_bytes += other.written_bytes


@dataclass(frozen=True, slots=True)
class _Sample:
    """After a look: by pid and start what each process used that was alive, and what all others did together."""

    alive: Mapping[tuple[int, float], _Used] = field(default_factory=dict)
    ended: _Used = field(default_factory=_Used)
    memory: int = 0


class Sampler:
    """The sum of what was seen of a tree. CPU and I/O of processes seen once are kept after their end.

    `usage` may be called while another thread samples: it is that of the last complete look then.
    """

    def __init__(self) -> None:
        self._seen = _Sample()

    def __len__(self) -> int:
        """How many processes there were at the last look."""
        return len(self._seen.alive)

    def sample(self, pid: int) -> None:
        """Look at the tree below `pid`."""
        before, memory = self._seen, 0
        alive: dict[tuple[int, float], _Used] = {}
        for each in _descendants(pid):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(each)
                times = process.cpu_times()
                used = alive[process.pid, process.create_time()] = _Used(times.user + times.system)
                memory += process.memory_info().rss
                counters = process.io_counters()
                used.read_bytes, used.written_bytes = counters.read_bytes, counters.write_bytes
        ended = replace(before.ended)
        for key in before.alive.keys() - alive.keys():
            ended.add(before.alive[key])
        self._seen = _Sample(alive, ended, max(before.memory, memory))

    def usage(self) -> Usage:
        seen = self._seen
        total = replace(seen.ended)
        for used in seen.alive.values():
            total.add(used)
        return Usage(
            cpu_seconds=total.cpu_seconds,
            max_memory_bytes=seen.memory,
            read_bytes=total.read_bytes,
            written_bytes=total.written_bytes,
            source="sampled",
        )


class Sampling:
    """Samples the tree below `pid` until `stop`."""

    def __init__(self, pid: int) -> None:
        self._sampler = Sampler()
        self._task = asyncio.create_task(self._watch(pid))

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def usage(self) -> Usage:
        return self._sampler.usage()

    async def _watch(self, pid: int) -> None:
        while True:
            await asyncio.to_thread(self._sampler.sample, pid)
            await asyncio.sleep(_INTERVAL_SECONDS)


def look(pid: int) -> dict[str, float]:
    """The present usage of the process tree below `pid`, summed up: processes, cpu_seconds, memory_bytes."""
    found = {"processes": 0.0, "cpu_seconds": 0.0, "memory_bytes": 0.0}
    for below in _descendants(pid):
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            process = psutil.Process(below)
            times = process.cpu_times()
            found["cpu_seconds"] += times.user + times.system
            found["memory_bytes"] += process.memory_info().rss
            found["processes"] += 1
    return found


def _descendants(pid: int) -> list[int]:
    """Every process below `pid`, of any depth. The kernel is asked for children; psutil would read all processes."""
    found = [pid]
    for each in found:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # the process ended during the read
            for thread in Path(f"/proc/{each}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
    return found[1:]
