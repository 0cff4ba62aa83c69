"""Tests what is removed from a state directory, why, and what never is, even with malicious links and names in it."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends.outcome import Outcome
from remit.execution import keptoutput
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.output import RAW, OutputWriter
from remit.execution.pruning import AUDIT_FILE, Pruner
from remit.execution.retention import DAY, Item, Retention, Rule, surplus
from remit.execution.store import RunStore
from remit.operations.process.logs import RotatingOutput
from remit.operations.process.record import write_state
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.verifying import verify

NOW = 2_000_000_000.0
A_DAY = Rule(DAY, None)


def attempt(state: Path, uid: str, *, said: bytes = b"x" * 100, age: float | None = 0.0, raw: bool = False) -> Path:
    """Creates an attempt that ended `age` seconds before `NOW`. None: it still runs."""
    run = RunStore(state / "runs").open("data", uid, f"{uid}-1")
    writer = OutputWriter(run.path, max_bytes=10_000, tail_bytes=0, raw=raw)
    writer.write("stdout", said)
    writer.close()
    run.started({"pid": 1})
    if age is not None:
        run.ended(Outcome("Completed", "ok", 0))
        os.utime(run.path / "outcome.json", (NOW - age, NOW - age))
    return run.path


def pruner(state: Path, output: Rule = A_DAY) -> Pruner:
    return Pruner(state, Retention(output=output), clock=lambda: NOW)


def names(pruned: list[object]) -> list[str]:
    return [each.item.name for each in pruned]  # type: ignore[attr-defined]


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


@given(
    st.lists(st.tuples(st.integers(0, 100), st.integers(0, 50)), max_size=30),
    st.one_of(st.none(), st.integers(0, 100)),
    st.one_of(st.none(), st.integers(0, 600)),
    st.integers(0, 100),
)
def test_what_is_left_obeys_the_rule_and_nothing_newer_goes_for_size(
    items: list[tuple[int, int]], age: int | None, most: int | None, in_use: int
) -> None:
    known = [Item("output", str(number), size, 100.0 - old) for number, (old, size) in enumerate(items)]
    gone = list(surplus(known, Rule(age, most), 100.0, in_use))
    left = [item for item in known if item not in [each.item for each in gone]]
    assert all(age is None or 100.0 - item.time <= age for item in left)
    assert most is None or in_use + sum(item.size for item in left) <= most or not left
    for_size = [each.item for each in gone if each.reason == "size"]
    assert not for_size or all(item.time >= max(each.time for each in for_size) for item in left)
    assert age is not None or most is not None or not gone


def test_old_output_goes_and_what_the_attempt_did_stays_on_record(tmp_path: Path) -> None:
    old = attempt(tmp_path, "old", age=2 * DAY)
    new = attempt(tmp_path, "new", age=DAY / 2)
    before = files(new)
    gone = pruner(tmp_path).prune()
    assert names(gone) == ["runs/data/old/old-1"]
    assert [(each.reason, each.item.size >= 100) for each in gone] == [("age", True)]
    assert files(old) == {"run.json", "outcome.json", "pruned"}
    assert RunStore(tmp_path / "runs").find("data", "old", "old-1").outcome.exit_code == 0  # type: ignore[union-attr]
    assert files(new) == before
    assert keptoutput.is_pruned(old)
    assert pruner(tmp_path).prune() == []


def test_the_oldest_goes_first_until_the_rest_has_room(tmp_path: Path) -> None:
    for number in range(5):
        attempt(tmp_path, f"t{number}", said=b"x" * 1000, age=100.0 - number)
    gone = pruner(tmp_path, Rule(None, 2500)).prune()
    assert names(gone) == [f"runs/data/t{number}/t{number}-1" for number in range(3)]
    assert {each.reason for each in gone} == {"size"}


def test_raw_output_goes_as_well(tmp_path: Path) -> None:
    path = attempt(tmp_path, "raw", age=2 * DAY, raw=True)
    assert (path / RAW / "stdout.head").exists()
    pruner(tmp_path).prune()
    assert files(path) == {"run.json", "outcome.json", "pruned"}


def test_an_attempt_that_runs_keeps_everything_however_old_and_large(tmp_path: Path) -> None:
    path = attempt(tmp_path, "busy", said=b"x" * 9000, age=None)
    for each in path.iterdir():
        os.utime(each, (0, 0))
    before = files(path)
    assert pruner(tmp_path, Rule(1, 1)).prune() == []
    item = Item("output", "runs/data/busy/busy-1", 9000, 0.0)
    assert not keptoutput.remove_output(tmp_path, item)
    assert files(path) == before


def test_links_lead_nowhere(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    theirs = attempt(elsewhere, "theirs", age=9 * DAY)
    ours = attempt(state, "ours", age=9 * DAY)
    precious = tmp_path / "stdout.head"
    precious.write_text("precious")
    (state / "runs" / "data" / "linked-task").symlink_to(theirs.parent)
    (state / "runs" / "linked-namespace").symlink_to(elsewhere / "runs" / "data")
    (ours.parent / "linked-attempt").symlink_to(theirs)
    (ours / "stdout.head").unlink()
    (ours / "stdout.head").symlink_to(precious)
    (ours / RAW).symlink_to(theirs)
    (state / "processes").symlink_to(elsewhere)
    before = files(elsewhere)
    assert names(pruner(state, Rule(1, 1)).prune()) == ["runs/data/ours/ours-1"]
    assert files(elsewhere) == before
    assert precious.read_text() == "precious"
    assert not (ours / "stdout.head").is_symlink()


def test_a_folder_that_becomes_a_link_after_it_was_looked_at(tmp_path: Path) -> None:
    state, elsewhere = tmp_path / "state", tmp_path / "elsewhere"
    theirs, ours = attempt(elsewhere, "t", age=9 * DAY), attempt(state, "t", age=9 * DAY)
    (removal,) = pruner(state).plan()
    shutil.rmtree(ours)
    ours.symlink_to(theirs)
    before = files(elsewhere)
    assert not keptoutput.remove_output(state, removal.item)
    assert files(elsewhere) == before


@pytest.mark.parametrize("name", ["runs/../../elsewhere/t/t-1", "runs/data/..", "runs//t/t-1", "runs/data/./t-1"])
def test_a_name_with_dots_is_no_name(tmp_path: Path, name: str) -> None:
    theirs = attempt(tmp_path / "state" / "elsewhere", "t", age=9 * DAY)
    attempt(tmp_path / "state", "t", age=9 * DAY)
    before = files(theirs)
    assert not keptoutput.remove_output(tmp_path / "state", Item("output", name, 1, 0.0))
    assert files(theirs) == before


def test_names_with_escapes_and_newlines_are_told_and_removed(tmp_path: Path) -> None:
    run = RunStore(tmp_path / "runs").open("data", "\x1b[2J\n", "a\n1")
    run.ended(Outcome("Completed", "ok", 0))
    (run.path / "stdout.head").write_bytes(b"said")
    os.utime(run.path / "outcome.json", (0, 0))
    assert names(pruner(tmp_path).prune()) == ["runs/data/\x1b[2J\n/a\n1"]
    assert not (run.path / "stdout.head").exists()


def test_killed_in_the_middle_the_next_one_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = attempt(tmp_path, "old", age=2 * DAY)
    (path / "stderr.head").write_bytes(b"more")
    real, left = os.unlink, [1]

    def killed(name: str, *, dir_fd: int | None = None) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop()
        real(name, dir_fd=dir_fd)

    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        pruner(tmp_path).prune()
    monkeypatch.undo()
    assert keptoutput.is_pruned(path)
    assert names(pruner(tmp_path).prune()) == ["runs/data/old/old-1"]
    assert files(path) == {"run.json", "outcome.json", "pruned"}


def process(state: Path, name: str, age: float) -> Path:
    folder = state / "processes" / "data" / name
    folder.mkdir(parents=True)
    RotatingOutput(folder, 1000).write("stdout", b"said\n")
    (folder / "lock").touch()
    write_state(folder, {"phase": "Exited"})
    os.utime(folder / "state.json", (NOW - age, NOW - age))
    return folder


def test_a_process_goes_once_it_has_ended_and_not_while_it_is_supervised(tmp_path: Path) -> None:
    over, lives = process(tmp_path, "over", 2 * DAY), process(tmp_path, "lives", 2 * DAY)
    with (lives / "lock").open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert names(pruner(tmp_path).prune()) == ["processes/data/over"]
        assert not keptoutput.remove_process(tmp_path, Item("process", "processes/data/lives", 1, 0.0))
    assert not over.exists()
    assert files(lives) >= {"stdout.log", "state.json"}
    assert [path.name for path in lives.parent.iterdir()] == ["lives"]


def test_who_looks_at_processes_keeps_none_from_starting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A supervisor that starts takes its lock immediately, or else assumes that another one runs."""
    process(tmp_path, "ended", 2 * DAY)

    def lock(*_: object) -> None:
        raise AssertionError("the lock was touched")

    monkeypatch.setattr(fcntl, "flock", lock)
    assert names(list(pruner(tmp_path).plan())) == ["processes/data/ended"]


def test_audit_files_go_by_their_rule_and_the_trail_stays_whole(tmp_path: Path) -> None:
    with AuditLog(tmp_path / AUDIT_FILE, max_bytes=2000) as audit:
        for number in range(100):
            audit.append(AuditEvent(kind="decision", task=f"t{number}"))
        rule = Retention(audit=Rule(None, 10_000))
        one = Pruner(tmp_path, rule, audit=audit, clock=lambda: NOW)
        planned = list(one.plan())
        assert {each.item.what for each in planned} == {"audit"}
        assert one.prune() == planned
        assert verify(tmp_path / AUDIT_FILE).ok
        assert sum(path.stat().st_size for path in (tmp_path / "audit").iterdir()) <= 10_000 + 2 * 2000
    assert list(Pruner(tmp_path, Retention(audit=Rule()), clock=lambda: NOW).plan()) == []


def test_artifacts_go_by_age_unless_they_are_to_be_kept_longer(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "artifacts")
    from remit.execution.artifacts.stored import StoredArtifact

    for name, retain in (("short", 0), ("long", int(10 * DAY))):
        store.stage("data", name, f"{name}-1", [StoredArtifact("a", (), retain)])
        store.commit(name, f"{name}-1")
        record = tmp_path / "artifacts" / "tasks" / "data" / name / f"{name}.json"
        os.utime(record, (NOW - 3 * DAY, NOW - 3 * DAY))
    one = Pruner(tmp_path, Retention(artifacts=Rule(2 * DAY, None)), artifacts=store, clock=lambda: NOW)
    planned = list(one.plan())
    assert names(planned) == ["artifacts/tasks/data/short/short.json"]  # type: ignore[arg-type]
    assert one.prune() == planned
    assert [each.name for each in store.artifacts("data", "long")] == ["a"]
    assert store.artifacts("data", "short") == []


def tasks_in_a_day(soak: int = 50_000, usual: int = 2_000) -> int:
    return soak if os.environ.get("REMIT_SOAK") else usual


@pytest.mark.no_cover
def test_a_day_of_many_tasks_stays_within_its_bounds(tmp_path: Path) -> None:
    """The test controls the clock: the tasks end evenly over 24 hours, and it prunes every half an hour."""
    count, said, oldest = tasks_in_a_day(), 200, 6 * 3600.0
    most = count // 5 * said
    clock = [NOW - DAY]
    one = Pruner(tmp_path, Retention(output=Rule(oldest, most)), clock=lambda: clock[0])
    store, removed, largest = RunStore(tmp_path / "runs"), 0, 0
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    rounds = 48
    for turn in range(rounds):
        for number in range(turn * count // rounds, (turn + 1) * count // rounds):
            run = store.open("data", f"t{number}", "1")
            (run.path / "stdout.head").write_bytes(b"x" * said)
            (run.path / "outcome.json").write_bytes(b"{}")
            os.utime(run.path / "outcome.json", (clock[0], clock[0]))
        clock[0] += DAY / rounds
        removed += len(one.prune())
        # The records of a task are removed when its TTL deletes it.
        for number in range(max(0, (turn - 14) * count // rounds), max(0, (turn - 13) * count // rounds)):
            store.forget("data", f"t{number}")
        if turn % 6 == 5:
            left = list(keptoutput.attempts(tmp_path))
            largest = max(largest, sum(item.size for item in left))
            assert all(clock[0] - item.time <= oldest for item in left)
    files = sum(1 for path in (tmp_path / "runs").rglob("*") if path.is_file())
    assert files <= 2 * (14 * count // rounds + 1), "of tasks that are gone, nothing is left"
    assert most - said <= largest <= most
    assert removed >= count - most // said - 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) << 10
    assert grown < 100 << 20
