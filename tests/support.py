"""Small tools that several test folders use."""

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
    """kubectl as one user of one cluster. `given` goes to its standard input: a text as it is, anything else as JSON.

    What it remembers of a server's kinds stays beside the kubeconfig: another server may have had the same port.
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
        """What it printed; it must have succeeded."""
        done = self(*arguments, given=given)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, given: object = None) -> str:
        """What it complained of; it must have failed."""
        done = self(*arguments, given=given)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)}: {done.stdout}"
        return done.stderr


def wait_until(condition: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Come back when `condition` holds; fail, naming `what` was awaited, when it does not in time."""
    deadline, pause = time.monotonic() + seconds, pauses()
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {seconds} s"
        time.sleep(next(pause))


def pauses() -> Iterator[float]:
    """Seconds between looks at what is awaited, short ones first, and longer ones where a look takes long: it may be a
    kubectl, or keep the operator from its work that is looked for."""
    pause = least = 0.02
    while True:
        begun = time.monotonic()
        yield pause
        look = time.monotonic() - begun - pause
        least = min(least * 1.5, 0.1)
        pause = min(max(least, 3 * look), 0.3)


def soaking() -> bool:
    """Whether everything is repeated for as long as it takes (`make soak`)."""
    return os.environ.get("REMIT_SOAK") == "1"


def repetitions(usual: int, soak: int) -> int:
    """How often a test repeats what it does: `usual` times, or `soak` times where REMIT_SOAK=1 (`make soak`)."""
    return soak if soaking() else usual


@contextmanager
def unmeasured(config: pytest.Config) -> Iterator[None]:
    """What goes on meanwhile is not measured for coverage. It may be nested."""
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
