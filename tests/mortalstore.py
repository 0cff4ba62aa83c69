"""Processes that are killed at a chosen request to an object store: `python mortalstore.py STATE-DIR`.

Reads lines such as `attempt 3 ID` and `commit 3 ID` from stdin. For each line, a separate process stores the files `a`
and `b` of STATE-DIR as artifacts of the attempt ID of a task, or records its end, and is killed right before the third
request. It prints `killed`, or `done` if there were fewer requests.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from remit.execution.artifacts.opening import open_store
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.location import written_down
from remit.execution.artifacts.stored import StoredArtifact

UID, NAMESPACE, TASK, ARTIFACT = "uid", "data", "build", "files"


def _attempt(state_dir: Path, attempt_id: str) -> None:
    store = open_store(state_dir, written_down(state_dir))
    with store.collecting() as collecting:
        files = []
        for name in ("a", "b"):
            with (state_dir / name).open("rb") as source:
                files.append(collecting.put(name, source, executable=False, most=1 << 30))
        collecting.sync()
        store.stage(NAMESPACE, TASK, attempt_id, [StoredArtifact(ARTIFACT, tuple(files))])


def _commit(state_dir: Path, attempt_id: str) -> None:
    open_store(state_dir, written_down(state_dir)).commit(UID, attempt_id)


def _killed_at(number: int, do: Callable[[], None]) -> bool:
    if child := os.fork():
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    asked, left, guard = Bucket._asked, number, threading.Lock()

    def counted(bucket: Bucket, *arguments: Any, **more: Any) -> Any:
        nonlocal left
        with guard:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return asked(bucket, *arguments, **more)

    Bucket._asked = counted  # type: ignore[method-assign]
    try:
        do()
        os._exit(0)
    finally:
        os._exit(1)


def main() -> None:
    state_dir = Path(sys.argv[1])
    for line in sys.stdin:
        what, number, attempt_id = line.split()
        act = _attempt if what == "attempt" else _commit
        killed = _killed_at(int(number), partial(act, state_dir, attempt_id))
        print("killed" if killed else "done", flush=True)


if __name__ == "__main__":
    main()
