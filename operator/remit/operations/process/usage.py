"""Measures the present usage of a process tree by psutil."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import psutil


def measure(pid: int) -> dict[str, Any]:
    """Sums over the command's processes, which are the descendants of bubblewrap's process `pid` but for the
    namespace's init. What the kernel does not show is left out; ended processes are not counted."""
    total: dict[str, float] = dict.fromkeys(("processes", "threads", "memoryBytes", "cpuSeconds"), 0)
    for process in _command_tree(pid):
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():
            times = process.cpu_times()
            total["processes"] += 1
            total["cpuSeconds"] += times.user + times.system
            total["memoryBytes"] += process.memory_info().rss
            total["threads"] += process.num_threads()
            with contextlib.suppress(psutil.AccessDenied):
                counters = process.io_counters()
                total["readBytes"] = total.get("readBytes", 0) + counters.read_bytes
                total["writtenBytes"] = total.get("writtenBytes", 0) + counters.write_bytes
            with contextlib.suppress(psutil.AccessDenied):
                total["descriptors"] = total.get("descriptors", 0) + process.num_fds()
    return {"time": datetime.now(UTC).isoformat(), **total, "cpuSeconds": round(total["cpuSeconds"], 3)}


def main_pid(pid: int, bubblewrap: str) -> int | None:
    """The command below bubblewrap's process `pid`, once it is executed."""
    with contextlib.suppress(psutil.Error, OSError):
        for init in psutil.Process(pid).children():
            for process in sorted(init.children(), key=lambda each: each.create_time()):
                words = process.cmdline()
                return process.pid if words and words[0] != bubblewrap else None
    return None


def _command_tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.Error, OSError):
        return [process for init in psutil.Process(pid).children() for process in init.children(recursive=True)]
    return []
