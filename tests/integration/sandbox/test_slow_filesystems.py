"""Tests that mounts are opened on the event loop only where no filesystem has to be asked, which may never answer."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hangingfs import hanging_filesystem
from remit.backends import hostmounts
from remit.backends.hostmounts import open_mounts
from remit.errors import BackendError, InvalidInput
from remit.policy.hostpaths import FORBIDDEN
from remit.sandbox import Confinement, HostMount, Identities, Mounts
from remit.sandbox.exposing import mount
from remit.sandbox.mounttable import is_local, mount_table

IDENTITIES = Identities(2_000_000, 100) if os.geteuid() == 0 else None


@pytest.fixture
def src() -> Iterator[Path]:
    """Provides a folder whose name the kernel has in its cache."""
    with tempfile.TemporaryDirectory(prefix="remit-slow-") as name:
        folder = Path(name).resolve() / "src"
        folder.mkdir()
        yield folder


def host(path: Path, at: str = "/src", root: Path | None = None, sub_path: str = "") -> HostMount:
    return HostMount(at, str(root or path), str(path), sub_path=sub_path)


def opened_at_once(*mounts: HostMount, protected: tuple[str, ...] = ()) -> bool:
    try:
        Mounts(mounts, IDENTITIES, (*FORBIDDEN, *protected), stages=True, disk_bytes=1 << 20, may_wait=False).close()
    except BlockingIOError:
        return False
    return True


def test_folders_on_a_local_filesystem_are_opened_at_once(src: Path) -> None:
    (src / "inner").mkdir()

    assert opened_at_once(host(src))
    assert opened_at_once(host(src, root=src.parent), host(src, "/other", sub_path="inner"))
    assert opened_at_once(host(src), host(src / "inner", "/src/inner"))


def test_what_must_not_be_mounted_is_refused_at_once(src: Path) -> None:
    with pytest.raises(InvalidInput, match="never mounted"):
        opened_at_once(host(Path("/")))


def test_names_that_are_not_in_memory_are_not_looked_up_at_once(src: Path) -> None:
    assert not opened_at_once(host(src / "absent"))
    assert not opened_at_once(host(src, sub_path="absent"))


def test_files_and_links_are_not_opened_at_once(src: Path) -> None:
    (src / "file").write_text("text")
    (src.parent / "link").symlink_to(src)

    assert not opened_at_once(host(src / "file", root=src))
    assert not opened_at_once(host(src.parent / "link"))


def test_a_filesystem_that_hangs_is_not_asked_at_once(src: Path) -> None:
    (src / "hanging").mkdir()
    (src / "other").mkdir()
    with hanging_filesystem(src / "hanging") as freed:
        assert not opened_at_once(host(src / "hanging"))
        assert not opened_at_once(host(src / "hanging/inner"))
        assert not opened_at_once(host(src, sub_path="hanging"))
        assert not opened_at_once(host(src)), "a filesystem beneath it was asked"
        assert not opened_at_once(host(src / "other"), protected=(f"{src}/hanging/state",))
        mount("none", str(src / "hanging"), "tmpfs", 0, "size=64k")
        try:
            assert not opened_at_once(host(src / "hanging")), "a filesystem above it was asked"
        finally:
            os.system(f"umount {src}/hanging")
        assert not freed.is_set()


async def test_the_event_loop_goes_on_while_a_filesystem_hangs(src: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostmounts, "MOUNT_SECONDS", 0.2)
    with hanging_filesystem(src) as freed:
        with pytest.raises(BackendError, match="did not answer within"):
            await open_mounts(Confinement(mounts=(host(src),)), None, (), stages=True)
        assert not freed.is_set(), "the loop waited for it"


def test_each_filesystem_on_the_way_to_the_root_counts() -> None:
    def table(*lines: str) -> bytes:
        return "\n".join(["", *lines, ""]).encode()

    root = "1 0 8:1 / / rw - overlay overlay rw"
    local, remote = "2 1 8:2 / /data rw shared:1 - ext4 /dev/sda2 rw", "2 1 0:9 / /data rw - nfs4 server:/data rw"
    within = "3 2 0:7 / /data/memory rw - tmpfs none rw"

    assert is_local(table(root), b"1")
    assert is_local(table(root, local, within), b"2")
    assert is_local(table(root, local, within), b"3")
    assert not is_local(table(root, remote, within), b"2")
    assert not is_local(table(root, remote, within), b"3")
    assert not is_local(table(local), b"2"), "what it is mounted in is not visible"
    assert not is_local(table(root), b"4")
    assert not is_local(table("5 6 0:1 / /a rw - ext4 a rw", "6 5 0:1 / /b rw - ext4 b rw"), b"5"), "a loop"
    assert mount_table().startswith(b"\n")
