"""Small helpers that several test folders use."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Kubectl:
    """Runs kubectl as one user of one cluster. `given` is its standard input: text unchanged, anything else as JSON.

    Its discovery cache is beside the kubeconfig, because another server may have had the same port.
    """

    binary: str
    kubeconfig: Path

    def __call__(self, *arguments: str, given: object = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [
                *(self.binary, "--kubeconfig", str(self.kubeconfig)),
                *("--cache-dir", f"{self.kubeconfig}.cache", *arguments),
            ],
            input=given if given is None or isinstance(given, str) else json.dumps(given),
            capture_output=True,
            text=True,
            timeout=90,
        )

    def ok(self, *arguments: str, given: object = None) -> str:
        """Returns the output of a command that must succeed."""
        done = self(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, given: object = None) -> str:
        """Returns the error output of a command that must fail."""
        done = self(*arguments, given=given)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stderr


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Waits until `condition` holds. Fails with a message that names `what` if it does not hold in time."""
    deadline, pause = time.monotonic() + seconds, pauses()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(next(pause))


def pauses() -> Iterator[float]:
    """Yields the seconds between polls: short at first, longer if a poll itself takes long, because it may be a kubectl
    process, or keep the operator from the work that is awaited."""
    pause = least = 0.02
    while True:
        begun = time.monotonic()
        yield pause
        look = time.monotonic() - begun - pause
        least = min(least * 1.5, 0.1)
        pause = min(max(least, 3 * look), 0.3)


def soaking() -> bool:
    """Returns whether tests are repeated extensively (`make soak`)."""
    return os.environ.get("REMIT_SOAK") == "1"


def repetitions(usual: int, soak: int) -> int:
    """Returns how often a test repeats its work: `usual` times, or `soak` times with REMIT_SOAK=1 (`make soak`)."""
    return soak if soaking() else usual


@contextmanager
def unmeasured(config: pytest.Config) -> Iterator[None]:
    """Suspends coverage measurement inside the block. It may be nested."""
    measuring = config.pluginmanager.getplugin("_cov")
    controller = measuring and measuring.cov_controller
    if not controller or not controller.started:
        yield
        return
    controller.pause()
    try:
        yield
    finally:
        controller.resume()
