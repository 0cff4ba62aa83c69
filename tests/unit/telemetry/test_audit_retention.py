"""Tests that closed files of the audit trail are removed from the front with a record, and that the rest can be
verified."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import AuditUnavailable
from remit.telemetry.audit import AuditLog
from remit.telemetry.auditretention import removable, remove
from remit.telemetry.chain import AuditEvent
from remit.telemetry.segments import segments
from remit.telemetry.trail import read
from remit.telemetry.verifying import verify


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit" / "audit.jsonl"


def filled(path: Path, records: int = 12) -> AuditLog:
    """Writes a trail of several files with at least two records each."""
    log = AuditLog(path, max_bytes=400)
    for number in range(records):
        log.append(AuditEvent(kind="decision", task=f"t{number}"))
    return log


def test_what_is_left_is_whole_from_its_first_record(path: Path) -> None:
    with filled(path) as log:
        before = segments(path)
        assert len(before) > 3
        gone = remove(path, before[:2], "older than 90 days", log.append)
        assert gone == before[:2]
        assert segments(path)[:1] == before[2:3]
        head = log.head
    report = verify(path, head=head)
    assert report.ok, report.problems
    told = [line.record for line in read(path) if line.record and line.record["kind"] == "retention"]
    assert [each.split(" ")[0] for each in told[0]["removed"]] == [file.name for file in before[:2]]
    assert told[0]["message"] == "older than 90 days"


def test_removals_can_follow_each_other(path: Path) -> None:
    with filled(path) as log:
        for _ in range(4):
            assert remove(path, removable(path)[:1], "too much", log.append)
            assert verify(path).ok


def test_files_that_another_user_removed_are_missing(path: Path) -> None:
    with filled(path) as log:
        remove(path, segments(path)[:1], "too much", log.append)
        segments(path)[0].unlink()
    report = verify(path)
    assert [problem.kind for problem in report.problems] == ["gap"]
    assert "records 1 to" in report.problems[0].message


def test_a_record_of_a_removal_does_not_hide_an_edit(path: Path) -> None:
    with filled(path) as log:
        remove(path, segments(path)[:1], "too much", log.append)
    first = segments(path)[0]
    first.write_bytes(first.read_bytes().replace(b'"task":"t', b'"task":"x', 1))
    assert "edited" in {problem.kind for problem in verify(path).problems}


def test_a_crash_between_record_and_removal_is_made_good_by_the_next(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(path) as log:
        files = segments(path)[:3]
        real = Path.unlink

        def killed(self: Path, missing_ok: bool = False) -> None:
            if self == files[1]:
                raise KeyboardInterrupt
            real(self, missing_ok)

        monkeypatch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            remove(path, files, "too much", log.append)
        monkeypatch.undo()
        assert segments(path)[0] == files[1]
        assert verify(path).ok
        assert remove(path, files[1:], "too much", log.append) == files[1:]
        assert verify(path).ok


def test_nothing_is_removed_that_could_not_be_recorded(path: Path) -> None:
    with filled(path) as log:
        before = segments(path)

    def refuse(_: AuditEvent) -> None:
        raise AuditUnavailable("full")

    with pytest.raises(AuditUnavailable):
        remove(path, before[:1], "too much", refuse)  # type: ignore[arg-type]
    assert segments(path) == before
    del log


def test_only_the_front_is_removed_and_no_link(path: Path, tmp_path: Path) -> None:
    with filled(path) as log:
        before = segments(path)
        assert remove(path, before[1:2], "too much", log.append) == []
        elsewhere = tmp_path / "elsewhere.jsonl"
        before[0].rename(elsewhere)
        before[0].symlink_to(elsewhere)
        assert removable(path) == []
        assert remove(path, before[:1], "too much", log.append) == []
        assert elsewhere.exists()
