"""Usage where no cgroup counts it: look at the processes now and then."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import psutil

from remit.backends.base import Usage

_INTERVAL_SECONDS = 0.2


class Sampler:
    """Watches the tree below `pid` until `stop`. CPU and I/O of processes seen once are kept after their end."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu: dict[tuple[int, float], float] = {}
        self._io: dict[tuple[int, float], tuple[int, int]] = {}
        self._memory = 0
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    def usage(self) -> Usage:
        return Usage(
            cpu_seconds=sum(self._cpu.values()),
            max_memory_bytes=self._memory,
            read_bytes=sum(read for read, _ in self._io.values()),
            written_bytes=sum(written for _, written in self._io.values()),
            source="sampled",
        )

    async def _watch(self) -> None:
        while True:
            await asyncio.to_thread(self._sample)
            await asyncio.sleep(_INTERVAL_SECONDS)

    def _sample(self) -> None:
        memory = 0
        for pid in _descendants(self._pid):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                process = psutil.Process(pid)
                key = (process.pid, process.create_time())
                times = process.cpu_times()
                self._cpu[key] = times.user + times.system
                memory += process.memory_info().rss
                counters = process.io_counters()
                self._io[key] = (counters.read_bytes, counters.write_bytes)
        self._memory = max(self._memory, memory)


def look(pid: int) -> dict[str, float]:
    """What the tree below `pid` uses at this moment, summed up: processes, cpu_seconds, memory_bytes."""
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
    """Every process below `pid`, asked for from the kernel; psutil would read all processes of the host to know."""
    children: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it ended while it was looked at
        for thread in Path(f"/proc/{pid}/task").iterdir():
            children += map(int, (thread / "children").read_text().split())
    return children + [below for child in children for below in _descendants(child)]
