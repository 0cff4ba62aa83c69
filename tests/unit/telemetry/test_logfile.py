"""Tests the operator's log file: it is rotated by size, and reopened after other programs rotated it."""

from __future__ import annotations

import json
import os
import signal
import stat
from pathlib import Path
from typing import cast

import pytest

from remit.errors import InvalidInput
from remit.telemetry.logfile import LogFile
from remit.telemetry.logs import configure, get_logger


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_at_most_so_many_files_of_so_many_bytes(tmp_path: Path) -> None:
    path = tmp_path / "remit.log"
    log = LogFile(path, max_bytes=100, backups=2)
    for number in range(60):
        log.write(f"line {number:03}\n")
    log.close()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["remit.log", "remit.log.1", "remit.log.2"]
    assert all(each.stat().st_size <= 100 for each in tmp_path.iterdir())
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in tmp_path.iterdir())
    kept = [line for name in ("remit.log.2", "remit.log.1", "remit.log") for line in lines(tmp_path / name)]
    assert kept == [f"line {number:03}" for number in range(60 - len(kept), 60)]


def test_a_line_is_never_torn(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "remit.log", max_bytes=50, backups=3)
    log.write("x" * 200 + "\n")
    log.write("short\n")
    log.close()
    assert lines(tmp_path / "remit.log.1") == ["x" * 200]
    assert lines(tmp_path / "remit.log") == ["short"]


@pytest.mark.parametrize("remove", [True, False])
def test_after_logrotate_has_moved_or_removed_it_it_is_opened_anew(tmp_path: Path, remove: bool) -> None:
    path = tmp_path / "remit.log"
    log = LogFile(path)
    log.reopen_on_hangup()
    try:
        log.write("before\n")
        if remove:
            path.unlink()
        else:
            path.rename(tmp_path / "remit.log-20260101")
        os.kill(os.getpid(), signal.SIGHUP)
        log.write("after\n")
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        log.close()
    assert lines(path) == ["after"]
    assert remove or lines(tmp_path / "remit.log-20260101") == ["before"]


def test_what_was_logged_before_a_restart_stays(tmp_path: Path) -> None:
    for word in ("first", "second"):
        log = LogFile(tmp_path / "remit.log")
        log.write(word + "\n")
        log.close()
    assert lines(tmp_path / "remit.log") == ["first", "second"]


def test_no_link_no_pipe_and_no_folder(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "none/remit.log", "."):
        with pytest.raises(InvalidInput, match="--log-file"):
            LogFile(tmp_path / name)
    assert not (tmp_path / "target").exists()


def test_a_disk_that_refuses_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogFile(tmp_path / "remit.log")

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    log.write("lost\n")
    monkeypatch.undo()
    log.write("kept\n")
    log.close()
    assert lines(tmp_path / "remit.log") == ["kept"]


def test_events_are_json_there(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "remit.log")
    import logging

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        configure(stream=cast("object", log))  # type: ignore[arg-type]
        get_logger("remit").info("here", number=1)
    finally:
        root.handlers[:], root.level = handlers, level
        log.close()
    (event,) = map(json.loads, lines(tmp_path / "remit.log"))
    assert (event["message"], event["number"]) == ("here", 1)
