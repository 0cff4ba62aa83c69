"""Tasks for `remit up`, their process trees, and the processes of `remit up` itself."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import psutil

from remitup import RemitUp, until

TREE = "setsid sleep 70001 & exec sleep 70002"
"""A shell command that starts two processes, one in a separate session."""


def submit(up: RemitUp, name: str, script: str, **spec: Any) -> None:
    task = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name},
        "spec": {"command": {"argv": ["sh", "-c", script]}, **spec},
    }
    up.kubectl("create", "-f", "-", stdin=json.dumps(task))


def below(up: RemitUp, *programs: str) -> list[psutil.Process]:
    """Returns the processes of tasks, by their complete command lines."""
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
    """Returns the process of that role; with `other_than`, waits for a new one."""
    found: psutil.Process = until(lambda: (now := up.worker(role)) != other_than and now, f"the {role}", 60)
    return found


def ended(up: RemitUp, name: str) -> tuple[str, list[str]]:
    """Waits until the task has ended, and returns its phase and the reasons of its attempts."""
    up.kubectl("wait", "--for=condition=Finished", f"executiontask/{name}", "--timeout=50s")
    status = up.task(name)["status"]
    return status["phase"], [attempt["reason"] for attempt in status["attempts"]]
