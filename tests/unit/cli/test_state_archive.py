"""Tests backups of the state directory: their content, and which archives are refused when one is restored."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import socket
import sqlite3
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.cli.statearchive import FORMAT, MANIFEST, restore_archive, write_archive
from remit.errors import InvalidInput


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """Provides a state directory whose database is open, with a commit that is in its log only."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t (n int)")
        database.execute("INSERT INTO t VALUES (7)")
        database.commit()
        (folder / "token").write_text("secret")
        (folder / "token").chmod(0o600)
        yield folder


def archived(state: Path) -> bytes:
    out = io.BytesIO()
    write_archive(state, out)
    return out.getvalue()


def restored(archive: bytes, to: Path) -> Path:
    restore_archive(io.BytesIO(archive), "b.tar.gz", to)
    return to


def listed(folder: Path) -> dict[str, tuple[str, bytes | str]]:
    found: dict[str, tuple[str, bytes | str]] = {}
    for path in sorted(folder.rglob("*")):
        info = path.lstat()
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else ""
        found[str(path.relative_to(folder))] = stat.filemode(info.st_mode), content if content else ""  # type: ignore[assignment]
    return found


def test_what_logs_in_to_the_page_that_runs_now_is_left_out(state: Path, tmp_path: Path) -> None:
    (state / "page.json").write_text('{"url": "http://127.0.0.1:6480", "key": "00"}')
    assert "page.json" not in listed(restored(archived(state), tmp_path / "there"))


def test_everything_comes_back_with_its_mode(state: Path, tmp_path: Path) -> None:
    kept = state / "workspaces" / "default" / "cache"
    kept.mkdir(parents=True)
    kept.chmod(0o750)
    (kept / "tool").write_bytes(os.urandom(100_000))
    (kept / "tool").chmod(0o755)
    (kept / "link").symlink_to("/etc/passwd")
    (kept / "folder").symlink_to("/etc")
    (state / "artifacts").mkdir(mode=0o711)
    os.mkfifo(kept / "pipe")
    (state / "state.lock").touch()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(state / "s"))
        made = restored(archived(state), tmp_path / "again")
    expected = listed(state)
    for gone in ("workspaces/default/cache/pipe", "s", "state.lock", "state.db", "state.db-wal", "state.db-shm"):
        del expected[gone]
    found = listed(made)
    assert found.pop("state.db")[0] == "-rw-------"
    assert found == expected
    assert stat.S_IMODE(made.stat().st_mode) == 0o700
    with contextlib.closing(sqlite3.connect(made / "state.db")) as database:
        assert database.execute("SELECT n FROM t").fetchall() == [(7,)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_come_back(state: Path, tmp_path: Path) -> None:
    (state / "of-a-task").write_text("x")
    os.chown(state / "of-a-task", 12345, 54321)
    info = (restored(archived(state), tmp_path / "again") / "of-a-task").stat()
    assert (info.st_uid, info.st_gid) == (12345, 54321)


def test_a_file_that_shrinks_meanwhile_is_told(state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (state / "output").write_bytes(b"0123456789")
    real = os.fstat

    def larger(descriptor: int) -> os.stat_result:
        info = real(descriptor)
        if info.st_ino == (state / "output").stat().st_ino:
            return os.stat_result((*info[:6], 15, *info[7:]))
        return info

    monkeypatch.setattr("remit.cli.statearchive.os.fstat", larger)
    out = io.BytesIO()
    assert write_archive(state, out).cut == ("output",)
    monkeypatch.undo()
    assert (restored(out.getvalue(), tmp_path / "again") / "output").read_bytes() == b"0123456789" + bytes(5)


def test_no_task_can_keep_its_workspace_from_being_backed_up(
    state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task creates folders without end, and replaces a file with a link to a secret right after it was examined."""
    deep = state
    for _ in range(300):
        deep /= "d"
        deep.mkdir()
    (state / "swapped").write_text("mine")
    secret = tmp_path / "secret"
    secret.write_text("canary")
    real = os.stat

    def swapping(path: str, **options: Any) -> os.stat_result:
        info = real(path, **options)
        if path == "swapped":
            os.unlink(path, dir_fd=options["dir_fd"])
            os.symlink(secret, path, dir_fd=options["dir_fd"])
        return info

    monkeypatch.setattr("remit.cli.statearchive.os.stat", swapping)
    out = io.BytesIO()
    contents = write_archive(state, out)
    monkeypatch.undo()
    assert contents.left_out == ("/".join("d" * 201),)
    made = restored(out.getvalue(), tmp_path / "again")
    assert not (made / "swapped").exists()
    assert (made / "/".join("d" * 200)).is_dir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_left_out_and_told(state: Path) -> None:
    (state / "closed").touch(mode=0o000)
    (state / "folder").mkdir(mode=0o000)
    try:
        assert set(write_archive(state, io.BytesIO()).left_out) == {"closed", "folder"}
    finally:
        (state / "folder").chmod(0o700)


def test_only_a_directory_with_state_is_backed_up(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"holds no state of remit up; .* --state-dir"):
        write_archive(tmp_path, io.BytesIO())


@pytest.mark.parametrize("what", ["file", "folder", "link"])
def test_nothing_is_restored_over_something(state: Path, tmp_path: Path, what: str) -> None:
    to = tmp_path / "again"
    if what == "file":
        to.write_text("mine")
    elif what == "link":
        to.symlink_to(tmp_path / "elsewhere")
    else:
        to.mkdir()
        (to / "mine").touch()
    with pytest.raises(InvalidInput, match="is not empty; move it away"):
        restored(archived(state), to)


def archive(*members: tuple[str, bytes, bytes | str], manifest: dict[str, object] | None = None) -> bytes:
    """Returns an archive with a manifest and `members`: name, type, content or link target."""
    out = io.BytesIO()
    about = {"format": FORMAT, "version": "1", "made": "now", "stateDir": "/s"} | (manifest or {})
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, kind, content in [(MANIFEST, tarfile.REGTYPE, orjson.dumps(about)), *members]:
            header = tarfile.TarInfo(name)
            header.type = kind
            if isinstance(content, str):
                header.linkname = content
                tar.addfile(header)
            else:
                header.size = len(content)
                tar.addfile(header, io.BytesIO(content))
    return out.getvalue()


OUTSIDE, OTHER, TWICE = "outside of its directory", "neither a file nor a directory nor a link", "twice"
HOSTILE = {
    "above": (OUTSIDE, [("../evil", tarfile.REGTYPE, b"x")]),
    "above, further in": (OUTSIDE, [("a/../../evil", tarfile.REGTYPE, b"x")]),
    "absolute": (OUTSIDE, [("/evil", tarfile.REGTYPE, b"x")]),
    "through a link": (TWICE, [("a", tarfile.SYMTYPE, ".."), ("a/evil", tarfile.REGTYPE, b"x")]),
    "a hard link": (OTHER, [("a", tarfile.LNKTYPE, "/etc/passwd")]),
    "a device": (OTHER, [("a", tarfile.CHRTYPE, b"")]),
    "twice": (TWICE, [("a", tarfile.REGTYPE, b"x"), ("a", tarfile.REGTYPE, b"y")]),
    "a link twice": (TWICE, [("a", tarfile.REGTYPE, b"x"), ("a", tarfile.SYMTYPE, "/etc")]),
    "a file in a file": (TWICE, [("a", tarfile.REGTYPE, b"x"), ("a/b", tarfile.REGTYPE, b"y")]),
    "without a database": ("database is damaged", [("a", tarfile.REGTYPE, b"x")]),
    "with a damaged database": ("database is damaged", [("state.db", tarfile.REGTYPE, b"no database at all" * 100)]),
}


@pytest.mark.parametrize(("why", "members"), HOSTILE.values(), ids=HOSTILE.keys())
def test_an_archive_that_was_tampered_with_leaves_nothing(
    why: str, members: list[tuple[str, bytes, bytes | str]], tmp_path: Path
) -> None:
    to = tmp_path / "place" / "again"
    with pytest.raises(InvalidInput, match=rf"^b\.tar\.gz is no whole backup: .*{why}"):
        restored(archive(*members), to)
    assert list(tmp_path.rglob("*")) == [tmp_path / "place", to]


def test_a_backup_that_is_cut_off_leaves_nothing(state: Path, tmp_path: Path) -> None:
    (state / "output").write_bytes(os.urandom(50_000))
    whole = archived(state)
    to = tmp_path / "again"
    for length in (0, 1, 100, len(whole) // 2, len(whole) - 8):
        with pytest.raises(InvalidInput, match=r"no whole backup|not made by remit backup"):
            restored(whole[:length], to)
        assert list(to.iterdir()) == []


def test_what_is_no_backup_or_a_later_one_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"made by Remit 99, which this version .* cannot read; restore it with"):
        restored(archive(manifest={"format": FORMAT + 1, "version": "99"}), tmp_path / "again")
    other = io.BytesIO()
    with tarfile.open(fileobj=other, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("readme"))
    for content in (other.getvalue(), gzip.compress(b""), archive(manifest={"format": "x"})):
        with pytest.raises(InvalidInput, match=r"was not made by remit backup|no whole backup"):
            restored(content, tmp_path / "again")
