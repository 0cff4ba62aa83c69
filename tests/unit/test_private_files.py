"""Tests directories and files that another user has prepared, and those that this user creates."""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.privatefiles import open_private, private_directory, read_private, replace_private, untrusted_owner

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")
STRANGER = 54321


@pytest.fixture
def no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("no_umask")
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path) -> None:
    private_directory(tmp_path / "a" / "b" / "c")
    assert [mode(tmp_path / path) for path in ("a", "a/b", "a/b/c")] == [0o700] * 3
    replace_private(tmp_path / "file", b"content")
    os.close(open_private(tmp_path / "lock"))
    assert (mode(tmp_path / "file"), mode(tmp_path / "lock")) == (0o600, 0o600)


def test_an_open_directory_is_closed(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    private_directory(tmp_path)
    assert mode(tmp_path) == 0o700
    tmp_path.chmod(0o711)
    private_directory(tmp_path)
    assert mode(tmp_path) == 0o711  # other users can neither list it nor create files in it


@as_root
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir(mode=0o700)
    os.chown(theirs, STRANGER, STRANGER)
    with pytest.raises(InvalidInput, match=f"theirs belongs to user {STRANGER}"):
        private_directory(theirs)
    assert untrusted_owner(theirs)
    assert list(theirs.iterdir()) == []


@as_root
def test_a_directory_in_which_another_user_put_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to("/etc/passwd")
    os.chown(tmp_path / "token", STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(InvalidInput, match=f"token belongs to user {STRANGER}"):
        private_directory(tmp_path)


@as_root
def test_a_directory_that_is_refused_keeps_its_mode(tmp_path: Path) -> None:
    """`--state-dir /tmp` of root would close /tmp to all other users."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o755)
    (shared / "theirs").touch()
    os.chown(shared / "theirs", STRANGER, STRANGER)
    with pytest.raises(InvalidInput):
        private_directory(shared)
    assert mode(shared) == 0o755


def test_a_sticky_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    private_directory(tmp_path)
    assert mode(tmp_path) == 0o1777


@as_root
def test_a_link_that_another_user_made_to_a_directory_of_ours_is_refused(tmp_path: Path) -> None:
    ours, link = tmp_path / "ours", tmp_path / "link"
    ours.mkdir()
    ours.chmod(0o755)
    link.symlink_to(ours)
    private_directory(link)
    ours.chmod(0o755)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    with pytest.raises(InvalidInput, match=f"link belongs to user {STRANGER}"):
        private_directory(link)
    assert mode(ours) == 0o755


@as_root
def test_a_file_of_another_user_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("planted")
    os.chown(tmp_path / "token", STRANGER, STRANGER)
    for use in (read_private, open_private):
        with pytest.raises(InvalidInput, match="belongs to user"):
            use(tmp_path / "token")


def test_links_and_what_is_no_file_are_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("before")
    (tmp_path / "link").symlink_to(victim)
    (tmp_path / ".file.new").symlink_to(victim)
    os.mkfifo(tmp_path / "pipe")
    for use in (read_private, open_private):
        with pytest.raises(InvalidInput, match="is a symbolic link; remove it"):
            use(tmp_path / "link")
        with pytest.raises(InvalidInput, match="is not a file"):
            use(tmp_path / "pipe")
    replace_private(tmp_path / "file", b"content")
    assert (victim.read_text(), read_private(tmp_path / "file")) == ("before", b"content")
    (tmp_path / "large").write_bytes(bytes((1 << 20) + 1))
    with pytest.raises(InvalidInput, match="larger than 1 MiB"):
        read_private(tmp_path / "large")


def test_a_write_that_fails_names_the_place(tmp_path: Path) -> None:
    """This happens on a full disk. Nothing is replaced."""
    path = tmp_path / "key"
    replace_private(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as failed:
            replace_private(path, b"new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failed.value.filename == str(path) and path.read_bytes() == b"old"
