"""Tasks for `remit up`, their trees of processes, and the processes that `remit up` itself has."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import psutil

from remitup import RemitUp, until

TREE = "setsid sleep 70001 & exec sleep 70002"
"""Two processes, one in a session of its own."""


def submit(up: RemitUp, name: str, script: str, **spec: Any) -> None:
    task = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name},
        "spec": {"command": {"argv": ["sh", "-c", script]}, **spec},
    }
    up.kubectl("create", "-f", "-", stdin=json.dumps(task))


def below(up: RemitUp, *programs: str) -> list[psutil.Process]:
    """Processes of tasks, by their whole command lines."""
    found = []
    for process in psutil.Process(up.process.pid).children(recursive=True):
        try:
            if " ".join(process.cmdline()) in programs:
                found.append(process)
        except psutil.Error:
            continue
    return found


def dead(processes: Iterable[psutil.Process]) -> bool:
    return not any(process.is_running() for process in processes)


def worker(up: RemitUp, role: str, other_than: psutil.Process | None = None) -> psutil.Process:
    """The process of that role; a new one, if asked."""
    found: psutil.Process = until(lambda: (now := up.worker(role)) != other_than and now, f"the {role}", 60)
    return found


def ended(up: RemitUp, name: str) -> tuple[str, list[str]]:
    """Phase and reasons of the attempts, once it has ended."""
    up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=50s")
    status = up.task(name)["status"]
    return status["phase"], [attempt["reason"] for attempt in status["attempts"]]
