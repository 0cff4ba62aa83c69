"""The run store: what must be found again after the operator was killed, and the output that outlives a run.

    <root>/<namespace>/<task uid>/<attempt id>/
        run.json        the process, from just after it started
        secrets.json    which versions of which Secrets it was given, where it outlives the operator
        outcome.json    how it ended; written before status is, so that a restart in between loses nothing
        audited         there once the audit trail tells how it ended; a restart in between tells it no second time
        stdout.*  stderr.*   what was kept of the output (see `output.py`); below raw/ where that has secrets in it
    <root>/<namespace>/<task uid>/missing
        there while the API server does not have the task any more, though nobody saw its deletion; for how long

Files are readable by the operator's user only.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import orjson
from pydantic import ValidationError

from remit.backends.elapsed import ElapsedTime
from remit.backends.outcome import Outcome
from remit.execution.attemptstatus import AttemptRecord
from remit.privatefiles import replace_private
from remit.sandbox.fencing import now as boot_time

_MISSING = "missing"
_UNREADABLE: Final = (
    "how it ended was recorded by another version of Remit, which this one cannot read; it may have taken place"
)


class RunStore:
    """Runs under `root`, which is made if need be."""

    def __init__(self, root: Path, boot: Callable[[], float] = boot_time) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self._elapsed = ElapsedTime(boot)

    def open(self, namespace: str, uid: str, attempt_id: str) -> Run:
        """The run's directory, made if need be."""
        path = self.root / namespace / uid / attempt_id
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Run(path)

    def find(self, namespace: str, uid: str, attempt_id: str) -> Run | None:
        path = self.root / namespace / uid / attempt_id
        return Run(path) if path.is_dir() else None

    def runs(self, namespace: str, uid: str) -> list[Run]:
        """The runs of one task, in no particular order."""
        return [Run(path) for path in (self.root / namespace / uid).glob("*") if path.name != _MISSING]

    def forget(self, namespace: str, uid: str) -> None:
        """Remove everything that is kept of a task."""
        shutil.rmtree(self.root / namespace / uid, ignore_errors=True)

    def missing_for(self, namespace: str, uid: str) -> float | None:
        """The number of seconds for which the task has been missing. None: `mark_missing` was not called.

        By how long this machine ran, up to the hour where that started anew.
        """
        path = self.root / namespace / uid / _MISSING
        if not path.exists():
            return None
        seconds, stale = self._elapsed.seconds(_read(path))
        if stale:
            with contextlib.suppress(OSError):
                self._mark_missing(path, seconds)
        return seconds

    def mark_missing(self, namespace: str, uid: str) -> None:
        """Remember that the task is not there, from now on. Raises OSError."""
        self._mark_missing(self.root / namespace / uid / _MISSING, 0.0)

    def _mark_missing(self, path: Path, seconds: float) -> None:
        _write(path, self._elapsed.mark(seconds), sync=False)

    def unmark_missing(self, namespace: str, uid: str) -> None:
        """The task is there again."""
        (self.root / namespace / uid / _MISSING).unlink(missing_ok=True)

    def tasks(self) -> Iterator[tuple[str, str]]:
        """Namespace and uid of every task of which something is kept."""
        for path in self.root.glob("*/*"):
            yield path.parent.name, path.name


class Run:
    """One attempt's directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def process(self) -> dict[str, Any] | None:
        """The handle that `started` was given, or None if the run never came so far."""
        return _read(self.path / "run.json")

    @property
    def outcome(self) -> Outcome | None:
        """The outcome that `ended` was given, or None if the run was lost."""
        document = _read(self.path / "outcome.json")
        if document is None:
            return None
        try:
            return AttemptRecord.model_validate(document).outcome()
        except ValidationError:
            return Outcome("OutcomeUnreadable", _UNREADABLE, category="Infrastructure", retryable=False)

    def started(self, process: dict[str, Any]) -> None:
        # Not synced: if the machine crashes, the process is gone too.
        _write(self.path / "run.json", process, sync=False)

    def resumed(self, process: dict[str, Any]) -> None:
        """It was found again, and tells all that it said from the beginning."""
        for pattern in ("stdout.*", "stderr.*", "raw/stdout.*", "raw/stderr.*", "redactions"):
            for path in self.path.glob(pattern):
                path.unlink(missing_ok=True)
        self.started(process)

    @property
    def secret_versions(self) -> dict[str, Any] | None:
        """The versions that `keep_secret_versions` was given; None if it was not called."""
        return _read(self.path / "secrets.json")

    def keep_secret_versions(self, versions: Mapping[str, str]) -> None:
        _write(self.path / "secrets.json", dict(versions), sync=False)

    @property
    def audited(self) -> bool:
        """Whether the audit trail tells how it ended."""
        return (self.path / "audited").exists()

    def mark_audited(self) -> None:
        (self.path / "audited").touch(mode=0o600)

    def ended(self, outcome: Outcome) -> None:
        _write(self.path / "outcome.json", AttemptRecord.of(outcome).model_dump(mode="json"), sync=True)


def _read(path: Path) -> dict[str, Any] | None:
    try:
        document = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return document if isinstance(document, dict) else None


def _write(path: Path, document: dict[str, Any], *, sync: bool) -> None:
    """Whole or not at all: a reader never sees half a document."""
    replace_private(path, orjson.dumps(document), sync=sync)
