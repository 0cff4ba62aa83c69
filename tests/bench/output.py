"""Measures what a task with a gigabyte of output costs the operator in time and memory."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import psutil

from bench.figures import Figures, ratio
from remit.backends.base import AttemptRequest, Command
from remit.backends.process import ProcessBackend
from remit.execution.output import OutputWriter
from remit.sandbox import Confinement, Limits
from remit.telemetry.redact import Redactor

SIZE = 1 << 30
HEAD = shutil.which("head", path="/usr/bin:/bin") or "/usr/bin/head"
TALK = (HEAD, "-c", str(SIZE), "/dev/zero")
KEPT = 10 << 20
TAIL = 4096


class Peak:
    """This process's peak resident set size, sampled a hundred times a second."""

    def __enter__(self) -> Peak:
        self._process = psutil.Process()
        self._over = threading.Event()
        self.start = self.highest = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            self.highest = max(self.highest, self._process.memory_info().rss)

    @property
    def growth(self) -> int:
        return self.highest - self.start


async def measure() -> Figures:
    pipe = through_a_pipe()
    backend = ProcessBackend()
    rows = [("head | wc -c, nothing kept", f"{pipe / 1e6:,.0f}", ratio(pipe, pipe), "–")]
    for name, secrets in (
        ("a task, its output kept", frozenset[str]()),
        ("the same, a secret looked for", frozenset({"hunter2-hunter2"})),
    ):
        with Peak() as peak:
            rate = await through_a_task(backend, secrets)
        rows.append((name, f"{rate / 1e6:,.0f}", ratio(rate, pipe), f"{peak.growth / 2**20:.1f}"))
    note = f"Kept: {KEPT >> 20} MiB, its beginning and its end; a SHA-256 over everything."
    return Figures("Output: 1 GiB on stdout", ("", "MB/s", "to the pipe", "memory growth MiB"), rows, note)


def through_a_pipe() -> float:
    """Returns the bytes per second between two programs that do nothing with them."""
    start = time.perf_counter()
    with subprocess.Popen(TALK, stdout=subprocess.PIPE) as head:
        subprocess.run(["wc", "-c"], stdin=head.stdout, stdout=subprocess.DEVNULL, check=True)
    return SIZE / (time.perf_counter() - start)


async def through_a_task(backend: ProcessBackend, secrets: frozenset[str]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        writer = OutputWriter(Path(folder), max_bytes=KEPT, tail_bytes=TAIL, redactor=Redactor(secrets))
        request = AttemptRequest(
            id="bench-output",
            command=Command(TALK, HEAD),
            confinement=Confinement(limits=Limits(memory_bytes=256 << 20, pids=64, disk_bytes=64 << 20)),
            timeout_seconds=300,
        )
        start = time.perf_counter()
        await backend.run(request, writer, cancel=asyncio.Event())
        seconds = time.perf_counter() - start
        said = writer.close().stdout_bytes
    if said != SIZE:
        raise RuntimeError(f"{SIZE} bytes were said and {said} came through")
    return SIZE / seconds
