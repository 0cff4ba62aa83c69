"""Starts servers to measure, each as a separate process, as a user would."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "operator"
START_SECONDS = 60.0


def environment() -> dict[str, str]:
    """Returns the environment without variables that select another API server."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "REMIT_"))}
    return kept | {"PYTHONPATH": os.pathsep.join((str(SOURCE), str(SOURCE.parent / "tests")))}


@contextmanager
def running(
    *arguments: str, log: Path, ready: Callable[[str], object], env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `python -m ARGUMENTS` until the end of the block, which is entered when `ready` is true of the output. `env`
    is added to its environment."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment() | dict(env or {}),
        )
    try:
        end = time.monotonic() + START_SECONDS
        while not ready(log.read_text()):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"python -m {arguments[0]} did not start:\n{log.read_text()[-4000:]}")
            time.sleep(0.05)
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
