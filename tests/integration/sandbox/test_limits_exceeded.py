"""Tests that every limit, exceeded by a real program, is enforced, reported with its own reason, and measured."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest

from parts import require
from remit.backends.base import Handle
from remit.backends.exceeded import Exceeded
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.process import ProcessBackend
from remit.errors import SandboxUnavailable
from remit.sandbox import Host, Layer

from .conftest import DEFAULTS, Runner, without_cgroups


@pytest.fixture
def counted(host: Host) -> Runner:
    require("cgroup", host.cgroups, host.abilities[Layer.CGROUP].remedy)
    return Runner(ProcessBackend(host))


def told(outcome: Outcome, reason: ExitReason, limit: Exceeded, field: str) -> None:
    assert (outcome.reason, limit in outcome.exceeded) == (reason, True), outcome
    assert f"set spec.resources.{field} higher" in outcome.message


async def test_memory(counted: Runner) -> None:
    source = "a = bytearray(512 << 20)\nfor i in range(0, len(a), 4096): a[i] = 1"
    outcome, _ = await counted.python(source, limits=replace(DEFAULTS, memory_bytes=256 << 20))
    told(outcome, ExitReason.OOM_KILLED, Exceeded.MEMORY, "memory")
    assert outcome.exit_code == 137
    assert 200 << 20 < outcome.usage.max_memory_bytes <= 256 << 20
    assert "memory" in outcome.enforced_by["memory_bytes"]


async def test_memory_of_a_child(counted: Runner) -> None:
    source = (
        "import subprocess, sys\n"
        "bomb = 'a = bytearray(512 << 20)\\nfor i in range(0, len(a), 4096): a[i] = 1'\n"
        "sys.exit(subprocess.run([sys.executable, '-c', bomb]).returncode != 0)"
    )
    outcome, _ = await counted.python(source, limits=replace(DEFAULTS, memory_bytes=256 << 20))
    told(outcome, ExitReason.OOM_KILLED, Exceeded.MEMORY, "memory")


async def test_memory_where_nothing_counts_the_tree(host: Host) -> None:
    outcome, collected = await Runner(ProcessBackend(without_cgroups(host))).python("a = bytearray(512 << 20)")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE, 1)
    assert b"MemoryError" in collected.stderr
    assert outcome.enforced_by["memory_bytes"] == "not enforced for the task; rlimit AS, of each process"


async def test_processes(run: Runner) -> None:
    source = "import os, time\nfor _ in range(64):\n    if not os.fork(): time.sleep(60)"
    outcome, _ = await run.python(source, limits=replace(DEFAULTS, pids=16))
    told(outcome, ExitReason.PIDS_EXCEEDED, Exceeded.PIDS, "pids")


async def test_processor_time(counted: Runner) -> None:
    """Four busy processes share a fifth of a core until they are throttled, which may take long on a busy machine."""
    cancel, watching = asyncio.Event(), []

    async def until_throttled(handle: Handle) -> None:
        counts = [Path(folder, "cpu.stat") for folder in handle.cgroups]
        while not any(
            re.search(r"^throttled_(usec|time) [1-9]", path.read_text(), re.M) for path in counts if path.exists()
        ):
            await asyncio.sleep(0.05)
        cancel.set()

    outcome, _ = await counted.python(
        "import os\nfor _ in range(2): os.fork()\nwhile True: pass",
        limits=replace(DEFAULTS, cpu_cores=0.2),
        timeout=100,
        cancel=cancel,
        on_started=lambda handle: watching.append(asyncio.create_task(until_throttled(handle))),
    )
    assert outcome.reason is ExitReason.CANCELLED
    assert outcome.usage.throttled_seconds > 0
    periods = outcome.usage.wall_seconds / 0.1 + 2  # it may have begun and ended within one period
    slack = 0.005 * len(os.sched_getaffinity(0))  # a processor takes its share in slices of this size
    assert 0 < outcome.usage.cpu_seconds <= periods * (0.2 * 0.1 + slack)
    assert outcome.enforced_by["cpu_cores"].endswith("cpu")


async def test_wall_time(run: Runner) -> None:
    outcome, _ = await run("/bin/sleep", "600", timeout=0.2)
    assert (outcome.reason, outcome.exceeded) == (ExitReason.TIMED_OUT, (Exceeded.TIME,))


async def test_open_files(run: Runner) -> None:
    source = "files = [open('/dev/null') for _ in range(1000)]"
    outcome, _ = await run.python(source, limits=replace(DEFAULTS, open_files=64))
    told(outcome, ExitReason.OPEN_FILES_EXCEEDED, Exceeded.OPEN_FILES, "openFiles")


@pytest.mark.parametrize("heard", [True, False])
async def test_file_size(run: Runner, heard: bool) -> None:
    """The limit works by the signal, and by the error if a program ignores the signal."""
    ignoring = "" if heard else "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    default = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n" if heard else ""
    source = f"{ignoring}{default}open('/workspace/x', 'wb').write(bytes(2 << 20))"
    outcome, _ = await run.python(source, limits=replace(DEFAULTS, file_bytes=1 << 20))
    told(outcome, ExitReason.FILE_SIZE_EXCEEDED, Exceeded.FILE_SIZE, "fileSize")
    assert outcome.exit_code == (128 + signal.SIGXFSZ if heard else 1)


@pytest.mark.parametrize("folder", ["/workspace", "/tmp", "/dev/shm"])
async def test_private_disk(run: Runner, folder: str) -> None:
    source = f"open('{folder}/x', 'wb').write(bytes(8 << 20))"
    outcome, _ = await run.python(source, limits=replace(DEFAULTS, disk_bytes=4 << 20))
    told(outcome, ExitReason.DISK_EXCEEDED, Exceeded.DISK, "disk")


async def test_disk_bandwidth(counted: Runner, host: Host) -> None:
    """Reading 3 MB past the page cache at 1 MB/s takes at least two seconds."""
    require("cgroup", host.cgroups and "blkio" in host.cgroups.controllers and host.disks, "a writable blkio cgroup")
    source = (
        "import os, mmap\n"
        "path = max((os.path.join('/usr/bin', n) for n in os.listdir('/usr/bin')), key=lambda p: os.stat(p).st_size"
        " if os.path.isfile(p) else 0)\n"
        "try: fd = os.open(path, os.O_RDONLY | os.O_DIRECT)\n"
        "except OSError: raise SystemExit(42)\n"
        "buffer, left = mmap.mmap(-1, 1 << 18), 3 << 20\n"
        "while left > 0:\n"
        "    count = os.readv(fd, [buffer])\n"
        "    left -= count\n"
        "    if count < 1 << 18: os.lseek(fd, 0, 0)\n"
    )
    outcome, _ = await counted.python(source, limits=replace(DEFAULTS, disk_bytes_per_second=1 << 20))
    if outcome.exit_code == 42:
        pytest.skip("the file system of /usr takes no direct reads, so the page cache would answer")
    assert outcome.reason is ExitReason.COMPLETED, outcome
    assert outcome.usage.wall_seconds > 2
    assert outcome.usage.read_bytes >= 3 << 20
    assert "blkio" in outcome.enforced_by["disk_bytes_per_second"]


async def test_bandwidth_that_cannot_be_held_is_refused(host: Host) -> None:
    bare = Runner(ProcessBackend(without_cgroups(host)))
    with pytest.raises(SandboxUnavailable, match=r"spec\.resources\.diskBytesPerSecond: no blkio"):
        await bare("/bin/true", limits=replace(DEFAULTS, disk_bytes_per_second=1 << 20))
    with pytest.raises(SandboxUnavailable, match=r"networkBytesPerSecond cannot be held with network: host"):
        await bare("/bin/true", limits=replace(DEFAULTS, network_bytes_per_second=1 << 20), network="host")
    outcome, _ = await bare("/bin/true", limits=replace(DEFAULTS, network_bytes_per_second=1 << 20))
    assert outcome.enforced_by["network_bytes_per_second"] == "no network"


async def test_usage_is_measured(counted: Runner) -> None:
    source = (
        "import threading, time\nall_run = threading.Barrier(9)\n"
        "threads = [threading.Thread(target=all_run.wait) for _ in range(8)]\n"
        "[thread.start() for thread in threads]; all_run.wait(); [thread.join() for thread in threads]\n"
        "start = time.process_time()\nwhile time.process_time() - start < 0.2: pass"
    )
    before = time.monotonic()
    outcome, _ = await counted.python(source)
    used = outcome.usage
    assert used.source == "cgroup"
    assert used.cpu_seconds >= 0.2
    assert 0 < used.wall_seconds <= time.monotonic() - before
    assert used.max_tasks in {0, *range(9, 32)}  # zero if the kernel keeps no peak
