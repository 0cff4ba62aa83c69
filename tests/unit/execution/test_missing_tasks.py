"""Tests how long a task has been missing, measured by this machine's running time and not by the time of day, which can
be set."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.backends import elapsed
from remit.execution.store import RunStore

HOUR = 3600.0


class Machine:
    """A machine's clock, and successive operators on it."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.up, self.boots = root, 1000.0, 1
        monkeypatch.setattr(elapsed, "boot_id", lambda: f"boot-{self.boots}")

    def store(self) -> RunStore:
        return RunStore(self.root, lambda: self.up)

    def restart(self) -> RunStore:
        self.up, self.boots = 10.0, self.boots + 1
        return self.store()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path, monkeypatch)
    machine.store().open("ns", "u", "u-1")
    return machine


@pytest.mark.parametrize("set_by", [HOUR * 48, -HOUR * 48])
def test_a_clock_that_is_set_changes_nothing(machine: Machine, set_by: float) -> None:
    store = machine.store()
    store.mark_missing("ns", "u")
    machine.up += 600
    path = machine.root / "ns" / "u" / "missing"
    os.utime(path, (path.stat().st_mtime - set_by,) * 2)  # the modification time by the clock after it was set
    assert store.missing_for("ns", "u") == 600


def test_it_counts_on_after_a_restart_of_the_operator_and_of_the_machine(machine: Machine) -> None:
    store = machine.store()
    assert store.missing_for("ns", "u") is None
    store.mark_missing("ns", "u")
    for hours in range(1, 5):
        machine.up += HOUR
        assert store.missing_for("ns", "u") == hours * HOUR
    machine.up += 60
    assert machine.store().missing_for("ns", "u") == 4 * HOUR + 60
    store = machine.restart()
    assert store.missing_for("ns", "u") == 4 * HOUR, "up to the hour"
    machine.up += 60
    assert store.missing_for("ns", "u") == 4 * HOUR + 60
    store.unmark_missing("ns", "u")
    assert store.missing_for("ns", "u") is None


@pytest.mark.parametrize("written", ["", "[]", '{"boot": "boot-1", "at": "noon", "seconds": null}'])
def test_what_cannot_be_read_begins_anew(machine: Machine, written: str) -> None:
    """An earlier version has written an empty file."""
    (machine.root / "ns" / "u" / "missing").write_text(written)
    store = machine.store()
    assert store.missing_for("ns", "u") == 0
    machine.up += 60
    assert store.missing_for("ns", "u") == 60
