"""Tests a trail of several files: closing a file keeps the chain, and tampering with any of them is detected."""

import errno
import os
import shutil
import tempfile
import time
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import AuditUnavailable
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import MAX_ARGV, AuditEvent
from remit.telemetry.redact import Redactor
from remit.telemetry.segments import segments
from remit.telemetry.verifying import verify

SMALL = 900


def event(number=1, **fields):
    return AuditEvent(kind="decision", namespace="data", task=f"task-{number}", verdict="Allowed", **fields)


def write(path, count, max_bytes=SMALL):
    with AuditLog(path, max_bytes=max_bytes) as log:
        return [log.append(event(number)) for number in range(count)]


def files(path):
    return [*segments(path), path]


def first(path):
    return orjson.loads(path.read_bytes().splitlines()[0])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit.jsonl"


def test_a_large_file_is_closed_and_the_next_names_it(path):
    write(path, 12)
    names = [file.name for file in files(path)]
    assert names[:2] == ["audit-000001.jsonl", "audit-000002.jsonl"]
    assert [first(file).get("follows") for file in files(path)] == [None, *names[:-1]]
    report = verify(path)
    assert (report.ok, report.files) == (True, len(names))
    assert report.records == 12 + len(names) - 1


def test_numbers_and_chain_go_on_after_a_restart_and_after_old_files_were_moved_away(path, tmp_path):
    write(path, 12)
    moved = segments(path)[0]
    last = orjson.loads(moved.read_bytes().splitlines()[-1])
    moved.rename(tmp_path / "archive")
    highest = segments(path)[-1].name
    write(path, 12)
    assert segments(path)[-1].name > highest
    assert [problem.kind for problem in verify(path).problems] == ["gap"]
    assert verify(path, after=type(verify(path).head)(last["seq"], last["hash"])).ok


def test_killed_while_closing_a_file(path):
    write(path, 3, max_bytes=10**6)
    os.link(path, path.with_name("audit-000001.jsonl"))
    path.with_name(".audit.jsonl.next").write_bytes(b"half")
    assert verify(path).ok
    write(path, 12)
    assert verify(path).ok
    assert path.stat().st_nlink == 1


def test_a_file_that_cannot_be_closed_fails_closed_until_it_can(path, monkeypatch):
    def refuse(*_args, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    with AuditLog(path, max_bytes=1) as log:
        log.append(event(1))
        with monkeypatch.context() as patch:
            patch.setattr(os, "link", refuse)
            with pytest.raises(AuditUnavailable, match="No space left"):
                log.append(event(2))
            assert "No space left" in (log.check() or "")
        log.append(event(3))
        assert log.check() is None
    assert verify(path).ok


def test_a_name_that_is_taken_is_not_overwritten(path):
    foreign = path.with_name("audit-000001.jsonl")
    with AuditLog(path, max_bytes=1) as log:
        log.append(event(1))
        foreign.write_bytes(b"somebody's\n")
        with pytest.raises(AuditUnavailable, match="File exists"):
            log.append(event(2))
    assert foreign.read_bytes() == b"somebody's\n"


@pytest.mark.parametrize("lose", ["unlink", "empty"])
def test_a_trail_without_its_newest_file_is_refused(path, lose):
    write(path, 12)
    path.unlink() if lose == "unlink" else path.write_bytes(b"")
    assert "missing" in [problem.kind for problem in verify(path).problems]
    with pytest.raises(AuditUnavailable, match="move all of"):
        AuditLog(path)


def test_it_recovers_by_itself(path, monkeypatch):
    monkeypatch.setattr("remit.telemetry.audit.RETRY_SECONDS", 0.01)
    real = os.write

    def full(descriptor, data):
        if os.fstat(descriptor).st_ino == path.stat().st_ino:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data)

    with AuditLog(path) as log:
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", full)
            with pytest.raises(AuditUnavailable):
                log.append(event())
        limit = time.monotonic() + 30
        while log.check() is not None and time.monotonic() < limit:
            time.sleep(0.005)
        assert log.append(event()).seq == 2
    assert first(path)["kind"] == "recovery"


def test_a_huge_argv_is_bounded_and_its_secrets_are_not_cut_out_of_their_mask(path):
    with AuditLog(path, redactor=Redactor(["hunter22"])) as log:
        log.append(event(argv=["x" * (MAX_ARGV - 4) + "hunter22", "y" * 10**5], message="m" * 10**5))
        log.append(event(argv=[""] * 10**5))
    for line in path.read_bytes().splitlines():
        assert len(line) < 100_000
        assert b"hunt" not in line
        assert orjson.loads(line)["argv_digest"].startswith("sha256:")
    assert verify(path).ok


@pytest.fixture(scope="module")
def sound():
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "audit.jsonl", 14)
        yield Path(folder)


@settings(deadline=None)
@given(data=st.data())
def test_any_single_tampering_is_found(sound, data):
    """Except for the end of the newest file, which only the head protects."""
    head = verify(sound / "audit.jsonl").head
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(sound, folder, dirs_exist_ok=True)
        path = Path(folder) / "audit.jsonl"
        victim = data.draw(st.sampled_from(files(path)))
        lines = victim.read_bytes().splitlines(keepends=True)
        at = data.draw(st.integers(0, len(lines) - 1))
        what = data.draw(st.sampled_from(["byte", "drop", "double", "swap", "remove", "rename", "exchange", "cut"]))
        if what == "byte":
            raw = bytearray(b"".join(lines))
            raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
            victim.write_bytes(raw)
        elif what == "drop":
            victim.write_bytes(b"".join(lines[:at] + lines[at + 1 :]))
        elif what == "double":
            victim.write_bytes(b"".join([*lines[: at + 1], *lines[at:]]))
        elif what == "swap":
            other = (at + 1) % len(lines)
            if other == at:
                return
            lines[at], lines[other] = lines[other], lines[at]
            victim.write_bytes(b"".join(lines))
        elif what == "remove":
            victim.unlink()
        elif what == "rename":
            victim.rename(victim.with_name("audit-000099.jsonl"))
        elif what == "exchange":
            other = data.draw(st.sampled_from([file for file in files(path) if file != victim]))
            mine = victim.read_bytes()
            victim.write_bytes(other.read_bytes())
            other.write_bytes(mine)
        else:
            whole = b"".join(lines)
            victim.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
        assert not verify(path, head=head).ok, what
