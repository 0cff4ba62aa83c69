from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.execution import output
from remit.execution.output import RAW, OutputWriter, kept_files, recovered, text_tail
from remit.execution.store import RunStore
from remit.telemetry.redact import Redactor


def kept(directory: Path, stream: str = "stdout") -> bytes:
    files, _ = kept_files(directory, stream)  # type: ignore[arg-type]
    return b"".join(path.read_bytes() for path in files)


def test_short_output_is_kept_whole(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=100, tail_bytes=5)
    writer.write("stdout", b"hello ")
    writer.write("stdout", b"world")
    writer.write("stderr", b"oh")
    status = writer.close()
    assert kept(tmp_path) == b"hello world"
    assert (status.stdout_tail, status.stderr_tail) == ("world", "oh")
    assert (status.stdout_bytes, status.stderr_bytes, status.truncated) == (11, 2, False)


def test_of_long_output_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=10)
    data = b"".join(b"%06d\n" % number for number in range(10_000))
    for start in range(0, len(data), 777):
        writer.write("stdout", data[start : start + 777])
    status = writer.close()
    found = kept(tmp_path)
    assert len(found) <= 1000
    assert found[:500] == data[:500]
    assert data.endswith(found[500:])
    assert len(found) > 800
    assert kept_files(tmp_path, "stdout")[1]
    assert status.truncated
    assert status.stdout_bytes == len(data)
    assert status.stdout_tail == data[-10:].decode()


def test_files_are_private(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=100, tail_bytes=5)
    writer.write("stdout", b"x")
    writer.close()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_full_disk_stops_the_keeping_and_not_the_run(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path / "missing", max_bytes=100, tail_bytes=5)
    writer.write("stdout", b"hello")
    status = writer.close()
    assert status.truncated
    assert status.stdout_tail == "hello"


def test_a_full_disk_that_is_told_on_closing_is_no_failure(tmp_path: Path) -> None:
    """NFS and some quotas report it like this."""
    writer = OutputWriter(tmp_path, max_bytes=100, tail_bytes=5)
    writer.write("stdout", b"hello")
    kept = writer._kept["stdout"]
    assert kept.file is not None
    os.close(kept.file.fileno())  # so that closing it raises OSError
    status = writer.close()
    assert status.truncated
    assert status.stdout_tail == "hello"


@pytest.mark.parametrize("limit", [0, 1, 2, 3])
def test_tiny_limits(tmp_path: Path, limit: int) -> None:
    writer = OutputWriter(tmp_path, max_bytes=limit, tail_bytes=0)
    writer.write("stdout", b"abcdefgh")
    status = writer.close()
    assert status.truncated
    assert status.stdout_tail == ""


def test_what_the_audit_trail_needs_of_the_disk_is_left_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = os.statvfs(tmp_path)
    blocks = (1 << 40) // disk.f_frsize

    def left(free: int) -> None:
        numbers = [*disk]
        numbers[2], numbers[4] = blocks, free // disk.f_frsize
        monkeypatch.setattr(output.os, "statvfs", lambda _: os.statvfs_result(numbers))

    left(300 << 20)
    writer = OutputWriter(tmp_path, max_bytes=64 << 20, tail_bytes=5)
    writer.write("stdout", b"x" * (1 << 20))
    left(200 << 20)
    writer.write("stdout", b"y" * (10 << 20) + b"the end")
    status = writer.close()
    assert (status.truncated, status.stdout_bytes, status.stdout_tail) == (True, (11 << 20) + 7, "e end")
    assert len(kept(tmp_path)) == 1 << 20


def test_secrets_are_taken_out_even_when_cut_in_two(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=100, redactor=Redactor(["hunter2!"]))
    writer.write("stdout", b"the word is hunt")
    writer.write("stdout", b"er2! indeed")
    status = writer.close()
    assert "hunter2" not in status.stdout_tail
    assert b"hunter2" not in kept(tmp_path)
    assert status.stdout_tail.endswith("indeed")


def test_what_a_killed_operator_left_behind_is_found(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=4)
    writer.write("stdout", b"left behind")
    status = recovered(tmp_path, 4)
    assert status.stdout_tail == "hind"
    assert status.stdout_bytes == 11
    writer.close()


@given(st.binary(max_size=64), st.integers(0, 32))
def test_tails_are_valid_text_of_bounded_size(data: bytes, limit: int) -> None:
    text = text_tail(data[-limit:] if limit else b"", limit)
    assert len(text.encode()) <= limit
    assert "\0" not in text


def test_a_character_cut_in_half_is_dropped() -> None:
    data = "aé".encode() * 10
    assert text_tail(data[-3:], 3) == "aé"
    assert text_tail(data[-4:], 4) == "aé"


def raw_writer(directory: Path, heard: list[bytes] | None = None) -> OutputWriter:
    def hear(_: str, data: bytes) -> None:
        if heard is not None:
            heard.append(data)

    redactor = Redactor(["hunter2!"])
    return OutputWriter(directory, max_bytes=1000, tail_bytes=100, redactor=redactor, listener=hear, raw=True)


def test_raw_output_is_kept_as_written_and_shown_redacted(tmp_path: Path) -> None:
    heard: list[bytes] = []
    writer = raw_writer(tmp_path, heard)
    writer.write("stdout", b"row hunt")
    assert kept(tmp_path / RAW) == b"row hunt"  # nothing is held back from the file
    writer.write("stdout", b"er2!\n\xff")
    status = writer.close()
    assert kept(tmp_path / RAW) == b"row hunter2!\n\xff"
    assert kept(tmp_path) == b""
    assert b"".join(heard) == b"row [redacted]\n\xff"
    assert (status.stdout_tail, status.stdout_bytes) == ("row [redacted]\n\ufffd", 14)
    assert (status.raw, status.redactions, status.altered) == (True, 1, False)
    assert status.ref == str(tmp_path / RAW)
    modes = {path.relative_to(tmp_path).as_posix(): path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"raw": 0o700, "raw/stdout.head": 0o600, "raw/stdout.times": 0o600}


def test_no_digest_of_raw_output_lets_a_secret_be_guessed(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    raw = raw_writer(tmp_path)
    redacted = OutputWriter(tmp_path / "other", max_bytes=1000, tail_bytes=100, redactor=Redactor(["hunter2!"]))
    for writer in (raw, redacted):
        writer.write("stdout", b"hunter2!")
        writer.close()
    assert raw.digest == redacted.digest


def test_of_raw_output_that_a_killed_operator_left_nothing_is_shown(tmp_path: Path) -> None:
    writer = raw_writer(tmp_path)
    writer.write("stdout", b"row hunter2!\n")
    status = recovered(tmp_path, 100)
    writer.close()
    assert (status.raw, status.stdout_tail, status.stderr_tail, status.stdout_bytes) == (True, "", "", 13)
    assert status.ref == str(tmp_path / RAW)


def test_a_full_disk_stops_the_keeping_of_raw_output_too(tmp_path: Path) -> None:
    writer = raw_writer(tmp_path / "missing")
    writer.write("stdout", b"hello")
    status = writer.close()
    assert (status.truncated, status.stdout_tail) == (True, "hello")


def test_what_redaction_changed_is_known_after_a_killed_operator(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=100, redactor=Redactor(["hunter2!"]))
    writer.write("stdout", b"[redacted]\n")
    assert recovered(tmp_path, 100).redactions == 0
    for _ in range(6):
        writer.write("stdout", b"hunter2! hunter2!\n")
        writer.write("stderr", b"[redacted]\n")
    assert recovered(tmp_path, 100).redactions == 12
    writer.close()
    assert recovered(tmp_path, 100).redactions == 12


@pytest.mark.parametrize("raw", [True, False])
def test_of_a_run_that_tells_its_output_again_nothing_is_kept_twice(tmp_path: Path, *, raw: bool) -> None:
    run = RunStore(tmp_path).open("ns", "u", "u-1")
    for text in (b"hunter2! hunter2! before", b"hunter2! after"):
        writer = OutputWriter(run.path, max_bytes=1000, tail_bytes=100, redactor=Redactor(["hunter2!"]), raw=raw)
        run.resumed({"pid": 1})
        writer.write("stdout", text)
        writer.close()
    assert kept(run.path / RAW if raw else run.path) == (b"hunter2! after" if raw else b"[redacted] after")
    assert recovered(run.path, 100).redactions == (0 if raw else 1)


@pytest.mark.parametrize(
    ("written", "binary"),
    [
        (b"", False),
        (b"plain\n", False),
        ("déjà \x1b[31mvu\x1b[0m".encode(), False),
        (b"a" * 7999 + "é".encode(), False),
        (b"a" * 9000 + b"\0", False),
        (b"PGDMP\0", True),
        (b"\x1f\x8b\x08", True),
        (b"caf\xe9 au lait", True),
        (b"a" * 7998 + b"\xff\n", True),
    ],
)
def test_what_looks_binary(tmp_path: Path, written: bytes, binary: bool) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1 << 20, tail_bytes=16)
    for at in range(0, len(written), 1000):
        writer.write("stderr", written[at : at + 1000])
    assert writer.close().binary_streams == (["stderr"] if binary else [])
    assert recovered(tmp_path, 16).binary_streams == (["stderr"] if binary else [])
