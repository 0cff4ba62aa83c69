"""Removes output, artifacts and closed audit files from a state directory according to its retention rules.

Every removal is a separate step that can be repeated, so after an interruption the next run continues.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Final

import structlog

from remit.execution import keptoutput
from remit.execution.artifacts.store import ArtifactStore, Surplus
from remit.execution.retention import Item, Removal, Retention, surplus
from remit.telemetry import auditretention
from remit.telemetry.audit import AuditLog
from remit.telemetry.segments import segments

log = structlog.get_logger(__name__)

AUDIT_FILE: Final = "audit/audit.jsonl"
"""Below a state directory."""


@dataclass
class Pruner:
    """Prunes one state directory. `artifacts` and `audit` belong to the process that works in it; None: not pruned."""

    state_dir: Path
    retention: Retention = field(default_factory=Retention)
    artifacts: ArtifactStore | None = None
    audit: AuditLog | None = None
    clock: Callable[[], float] = time.time

    def plan(self) -> Iterator[Removal]:
        """Plan what would be removed now. Only reads. Raises OSError."""
        yield from self._output()
        if self.artifacts is not None:
            for each in self.artifacts.surplus(self.retention.artifacts.max_bytes, older_than=self._artifacts_since()):
                yield _artifacts_removal(each)
        yield from self._audit()

    def prune(self) -> list[Removal]:
        """Remove it, and give what is gone. A failure of one kind is logged, and the others go on."""
        gone: list[Removal] = []
        for what, remove in (
            ("output", self._remove_output),
            ("artifacts", self._remove_artifacts),
            ("audit files", self._remove_audit),
        ):
            try:
                gone.extend(remove())
            except Exception as error:  # such as an error of a damaged record or of the audit trail
                log.warning(f"{what} could not be pruned", error=str(error))
        if gone:
            log.info("pruned", removed=len(gone), bytes=sum(each.item.size for each in gone))
        return gone

    def _output(self) -> Iterator[Removal]:
        items = chain(keptoutput.attempts(self.state_dir), keptoutput.processes(self.state_dir))
        return surplus(items, self.retention.output, self.clock())

    def _audit(self) -> Iterator[Removal]:
        """Only from the front: an older file that is kept keeps all later ones."""
        path = self.state_dir / AUDIT_FILE
        if not path.parent.is_dir():
            return
        items = [_audit_item(each) for each in auditretention.removable(path)]
        others = {*segments(path), path} - {path.with_name(item.name.rpartition("/")[2]) for item in items}
        in_use = sum(each.lstat().st_size for each in others if each.exists())
        found = {each.item.name: each for each in surplus(items, self.retention.audit, self.clock(), in_use)}
        for item in items:
            if item.name not in found:
                return
            yield found[item.name]

    def _remove_output(self) -> Iterator[Removal]:
        for each in self._output():
            remove = keptoutput.remove_output if each.item.what == "output" else keptoutput.remove_process
            try:
                if remove(self.state_dir, each.item):
                    yield each
            except OSError as error:
                log.warning("output could not be removed", name=each.item.name, error=str(error))

    def _remove_artifacts(self) -> Iterator[Removal]:
        if self.artifacts is None:
            return
        most = self.retention.artifacts.max_bytes
        for each in self.artifacts.prune(most, older_than=self._artifacts_since()):
            yield _artifacts_removal(each)

    def _remove_audit(self) -> Iterator[Removal]:
        if self.audit is None:
            return
        wanted = {self.state_dir / each.item.name: each for each in self._audit()}
        if not wanted:
            return
        rule = self.retention.audit
        why = ", ".join(
            filter(
                None,
                (
                    "" if rule.max_age_seconds is None else f"kept for {rule.max_age_seconds:g} s",
                    "" if rule.max_bytes is None else f"at most {rule.max_bytes} bytes together",
                ),
            )
        )
        for path in auditretention.remove(self.audit.path, list(wanted), f"the rule is: {why}", self.audit.append):
            log.warning("a closed file of the audit trail was removed", file=path.name, rule=why)
            yield wanted[path]

    def _artifacts_since(self) -> float | None:
        age = self.retention.artifacts.max_age_seconds
        return None if age is None else self.clock() - age


def _artifacts_removal(surplus: Surplus) -> Removal:
    return Removal(Item("artifacts", surplus.name, surplus.size, surplus.time), surplus.reason)


def _audit_item(path: Path) -> Item:
    status = path.lstat()
    return Item("audit", f"{path.parent.name}/{path.name}", status.st_size, status.st_mtime)
