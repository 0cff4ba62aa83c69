import asyncio
import errno
import hashlib
import os
import stat
import subprocess
import sys
import threading

import orjson
import pytest
from structlog.testing import capture_logs

from remit.errors import AuditUnavailable, InvalidInput
from remit.telemetry import audit
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import GENESIS, Anchor, AuditEvent
from remit.telemetry.redact import Redactor
from remit.telemetry.verifying import verify


@pytest.fixture
def path(tmp_path):
    return tmp_path / "audit" / "audit.jsonl"


def event(number=1, **fields):
    return AuditEvent(kind="decision", namespace="data", task=f"task-{number}", verdict="Allowed", **fields)


def records(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def write(path, count):
    with AuditLog(path) as log:
        return [log.append(event(number)) for number in range(1, count + 1)]


def kinds(path, **options):
    return [problem.kind for problem in verify(path, **options).problems]


def test_records_are_chained_numbered_and_private(path):
    anchors = write(path, 2)
    first, second = records(path)
    assert (first["seq"], first["prev"], first["hash"]) == (1, GENESIS.hash, anchors[0].hash)
    assert (second["seq"], second["prev"]) == (2, anchors[0].hash)
    assert first["task"] == "task-1"
    assert "exit_code" not in first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    report = verify(path)
    assert (report.ok, report.records, report.head) == (True, 2, anchors[1])


def test_an_exit_code_of_zero_is_written_and_secrets_and_odd_bytes_are_not(path):
    with AuditLog(path, redactor=Redactor(["hunter22", "decision"])) as log:
        log.append(event(argv=["mysql", "-phunter22", os.fsdecode(b"\xff")], exit_code=0, usage={"cpu_seconds": 0.5}))
    (record,) = records(path)
    assert record["argv"] == ["mysql", "-p[redacted]", "\\udcff"]
    assert (record["exit_code"], record["kind"], record["usage"]) == (0, "decision", {"cpu_seconds": 0.5})
    assert verify(path).ok


def test_the_chain_goes_on_after_a_restart(path):
    write(path, 2)
    write(path, 2)
    assert [record["seq"] for record in records(path)] == [1, 2, 3, 4]
    assert verify(path).ok


async def test_many_callers_share_the_chain(path):
    with AuditLog(path) as log:
        anchors = await asyncio.gather(*(log.append_async(event(number)) for number in range(200)))
        threads = [threading.Thread(target=log.append, args=(event(number),)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert log.head.seq == 208
        assert log.check() is None
    assert [anchor.seq for anchor in anchors] == list(range(1, 201))
    assert verify(path).ok


async def test_a_cancelled_caller_does_not_stop_the_trail(path):
    with AuditLog(path) as log:
        waiting = asyncio.ensure_future(log.append_async(event(1)))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        assert (await log.append_async(event(2))).seq == 2


def test_a_killed_writer_loses_no_acknowledged_record(path):
    program = (
        "import sys; from pathlib import Path; from remit.telemetry.audit import AuditLog\n"
        "from remit.telemetry.chain import AuditEvent\n"
        f"log = AuditLog(Path({str(path)!r}))\n"
        "while True: print(log.append(AuditEvent(kind='decision')).seq, flush=True)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={"PYTHONPATH": os.pathsep.join(sys.path)}
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 20:
            break
    process.kill()
    acknowledged = [20, *map(int, process.stdout.read().split())]
    process.wait()
    process.stdout.close()
    AuditLog(path).close()
    assert verify(path).ok
    assert verify(path).records >= acknowledged[-1]


def test_closing_does_not_wait_for_a_disk_that_hangs(path, monkeypatch):
    monkeypatch.setattr(audit, "HANG_SECONDS", 0.1)
    log, hanging, over = AuditLog(path), threading.Event(), threading.Event()

    def hang(descriptor: int) -> None:
        hanging.set()
        over.wait(60)

    monkeypatch.setattr(os, "fsync", hang)
    with pytest.raises(AuditUnavailable):
        log.append(event(1))
    assert hanging.is_set()
    with capture_logs() as logs:
        log.close()
    assert [each["log_level"] for each in logs] == ["error"]
    over.set()


class Ending(BaseException):
    """Not an Exception, so it ends a thread."""


@pytest.mark.parametrize("wrong", [RecursionError, MemoryError])
def test_an_event_that_cannot_be_encoded_is_refused_alone(path, monkeypatch, wrong):
    encode = audit.encode

    def failing(event, *rest):
        if event.task == "task-2":
            raise wrong
        return encode(event, *rest)

    monkeypatch.setattr(audit, "encode", failing)
    with AuditLog(path) as log:
        log.append(event(1))
        with pytest.raises(AuditUnavailable, match=wrong.__name__):
            log.append(event(2))
        assert log.append(event(3)).seq == 2
        assert log.check() is None
    assert verify(path).ok


async def test_no_caller_waits_for_an_ended_writer_and_health_reports_it(path, monkeypatch):
    encode, begun, go_on = audit.encode, threading.Event(), threading.Event()

    def failing(event, *rest):
        if event.task == "task-2":
            begun.set()
            go_on.wait()
            raise Ending
        return encode(event, *rest)

    monkeypatch.setattr(audit, "encode", failing)
    with AuditLog(path) as log:
        log.append(event(1))
        appending = [asyncio.create_task(log.append_async(event(2)))]
        await asyncio.to_thread(begun.wait)
        appending += [asyncio.create_task(log.append_async(event(number))) for number in (3, 4)]
        await asyncio.sleep(0)
        go_on.set()
        for each in appending:
            with pytest.raises(AuditUnavailable, match="its writer ended by Ending; restart to recover"):
                await each
        with pytest.raises(AuditUnavailable, match="its writer ended"):
            log.append(event(5))
        assert "its writer ended" in str(log.check())
        assert "its writer ended" in str(log.check_writer())
    assert write(path, 1)[0].seq == 2
    assert verify(path).ok


async def test_a_disk_that_hangs_is_reported_and_not_waited_for(path, monkeypatch):
    sync, go_on = os.fsync, threading.Event()
    with AuditLog(path) as log:
        monkeypatch.setattr(audit, "HANG_SECONDS", 0.05)
        monkeypatch.setattr(audit.os, "fsync", lambda descriptor: (go_on.wait(), sync(descriptor)))
        with pytest.raises(AuditUnavailable, match="the disk has not answered"):
            await log.append_async(event(1))
        with pytest.raises(AuditUnavailable, match="the disk has not answered"):
            log.append(event(2))
        assert "the disk has not answered" in str(log.check())
        go_on.set()
    assert verify(path).ok


class TestRecovery:
    def test_a_torn_line_is_dropped_and_said(self, path):
        write(path, 2)
        whole = path.read_bytes()
        path.write_bytes(whole + whole.splitlines()[1][:40])
        AuditLog(path).close()
        last = records(path)[-1]
        assert (last["seq"], last["kind"]) == (3, "recovery")
        assert "dropped 40 bytes" in last["message"]
        assert verify(path).ok

    def test_a_torn_first_line(self, path):
        write(path, 1)
        path.write_bytes(path.read_bytes()[:30])
        AuditLog(path).close()
        assert [record["kind"] for record in records(path)] == ["recovery"]

    def test_a_record_without_its_newline_is_kept(self, path):
        (anchor,) = write(path, 1)
        path.write_bytes(path.read_bytes()[:-1])
        with AuditLog(path) as log:
            assert log.head == anchor
        assert verify(path).ok

    def test_lines_longer_than_a_block(self, path):
        with AuditLog(path) as log:
            anchor = log.append(event(argv=["x" * 200_000]))
        with AuditLog(path) as log:
            assert log.head == anchor

    def test_an_unsound_end_is_refused(self, path):
        write(path, 2)
        path.write_bytes(path.read_bytes().replace(b"task-2", b"task-9"))
        with pytest.raises(AuditUnavailable, match="does not end in a sound record: run `remit audit verify`"):
            AuditLog(path)


class TestFailsClosed:
    def test_two_writers(self, path):
        with AuditLog(path), pytest.raises(AuditUnavailable, match="another process holds it"):
            AuditLog(path)

    def test_a_link_is_not_followed(self, path, tmp_path):
        path.parent.mkdir()
        path.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(AuditUnavailable, match="cannot be opened"):
            AuditLog(path)

    def test_after_close(self, path):
        log = AuditLog(path)
        log.close()
        log.close()
        with pytest.raises(AuditUnavailable, match="closed"):
            log.append(event())

    def test_a_moved_file(self, path):
        with AuditLog(path) as log:
            log.append(event())
            path.rename(path.with_suffix(".1"))
            with pytest.raises(AuditUnavailable, match="moved or removed"):
                log.append(event())
            assert "moved or removed" in (log.check() or "")

    def test_another_writer(self, path):
        with AuditLog(path) as log:
            log.append(event())
            path.write_bytes(path.read_bytes() + b"{}\n")
            with pytest.raises(AuditUnavailable, match="somebody else wrote"):
                log.append(event())

    def test_a_full_disk_can_be_cleared(self, path, monkeypatch):
        real, sizes = os.write, []

        def full_after_ten_bytes(descriptor, data):
            if sizes:
                raise OSError(errno.ENOSPC, "No space left on device")
            sizes.append(10)
            return real(descriptor, data[:10])

        with AuditLog(path) as log:
            log.append(event(1))
            with monkeypatch.context() as patch:
                patch.setattr(audit.os, "write", full_after_ten_bytes)
                with pytest.raises(AuditUnavailable, match="No space left"):
                    log.append(event(2))
            assert log.append(event(3)).seq == 2
        assert verify(path).ok

    def test_a_failed_sync_ends_the_trail_until_a_restart(self, path, monkeypatch):
        def failing(_descriptor):
            raise OSError(errno.EIO, "Input/output error")

        log = AuditLog(path)
        with monkeypatch.context() as patch:
            patch.setattr(audit.os, "fsync", failing)
            with pytest.raises(AuditUnavailable, match="sync failed"):
                log.append(event(1))
        with pytest.raises(AuditUnavailable, match="sync failed"):
            log.append(event(2))
        log.close()
        write(path, 1)
        assert verify(path).ok

    async def test_an_event_that_cannot_be_written_fails_alone(self, path):
        with AuditLog(path) as log:
            bad = log.append_async(event(1, usage={"cpu_seconds": 2**70}))
            results = await asyncio.gather(
                log.append_async(event(0)), bad, log.append_async(event(2)), return_exceptions=True
            )
        assert [type(result) for result in results] == [Anchor, AuditUnavailable, Anchor]
        assert verify(path).ok


class TestVerify:
    @pytest.fixture(autouse=True)
    def _five_records(self, path):
        self.anchors = write(path, 5)
        self.lines = path.read_bytes().splitlines(keepends=True)

    def test_an_edit(self, path):
        path.write_bytes(b"".join(self.lines).replace(b"task-3", b"task-8"))
        assert kinds(path) == ["edited"]
        assert verify(path).problems[0].line == 3

    def test_an_edit_with_a_new_hash(self, path):
        body = self.lines[2].replace(b"task-3", b"task-8").rpartition(b',"hash"')[0]
        forged = body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n'
        path.write_bytes(b"".join([*self.lines[:2], forged, *self.lines[3:]]))
        assert kinds(path) == ["broken"]

    def test_a_gap(self, path):
        path.write_bytes(b"".join(self.lines[:1] + self.lines[3:]))
        assert kinds(path) == ["gap"]
        assert verify(path).problems[0].message == "records 2 to 3 are missing"

    def test_a_cut_beginning(self, path):
        path.write_bytes(b"".join(self.lines[2:]))
        assert kinds(path) == ["gap"]
        assert kinds(path, after=self.anchors[1]) == []

    def test_another_order_or_a_copy(self, path):
        path.write_bytes(b"".join([self.lines[0], self.lines[2], self.lines[1], *self.lines[3:]]))
        assert "reordered" in kinds(path)
        path.write_bytes(b"".join([*self.lines, self.lines[4]]))
        assert kinds(path) == ["reordered"]

    def test_a_cut_end_is_seen_by_who_knows_the_head(self, path):
        path.write_bytes(b"".join(self.lines[:4]))
        assert kinds(path) == []
        assert kinds(path, head=self.anchors[4]) == ["cut"]
        assert kinds(path, head=self.anchors[3]) == []

    def test_a_torn_end(self, path):
        path.write_bytes(b"".join(self.lines)[:-20])
        assert "torn" in kinds(path)

    def test_rubbish(self, path):
        path.write_bytes(b"".join([self.lines[0], b"\xff rubbish\n", b"[]\n", *self.lines[1:]]))
        assert kinds(path) == ["unreadable", "unreadable"]

    def test_a_flood_of_problems_is_bounded(self, path):
        path.write_bytes(b"rubbish\n" * 500)
        assert len(verify(path).problems) == 100

    def test_a_file_that_does_not_exist(self, tmp_path):
        with pytest.raises(InvalidInput, match="cannot be read: No such file"):
            verify(tmp_path / "nothing")

    def test_an_empty_file(self, path):
        path.write_bytes(b"")
        assert verify(path).head == GENESIS
        assert kinds(path, head=Anchor(1, "x")) == ["cut"]
