"""Tests file operations on a real file system: their effects, and that nothing leads out of what policies allow."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.api.operations import FileOperation
from remit.backends.failure import OperationFailed
from remit.errors import InvalidInput, PolicyDenied
from remit.operations.base import Effect
from remit.operations.file.access import Access
from remit.operations.file.actions import append
from remit.operations.file.executor import FileExecutor
from remit.operations.file.job import Job
from remit.operations.file.writing import Limit
from remit.policy.limits import Limits
from remit.sandbox import beneath

from .conftest import Desk

EVERYTHING = [
    "create", "read", "write", "append", "copy", "move", "delete",
    "list", "stat", "chmod", "chown", "checksum", "mkdir",
]  # fmt: skip


@pytest.fixture(params=["openat2", "by component"])
def desk(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Provides an executor with the kernel's path resolution, and one without it."""
    if request.param == "by component":
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    allow = [{"paths": [f"{folder}/**"], "operations": EVERYTHING}]
    deny = [{"paths": [f"{folder}/closed/**"], "operations": EVERYTHING}]
    return Desk(FileExecutor([folder / "state"]), [{"files": {"allow": allow, "deny": deny}}])


async def do(desk: Desk, operation: str, path: Path, **rest: Any) -> str:
    return await desk.do(file={"operation": operation, "path": str(path), **rest})


async def reason(desk: Desk, operation: str, path: Path, **rest: Any) -> str:
    with pytest.raises(OperationFailed) as caught:
        await do(desk, operation, path, **rest)
    return caught.value.reason


async def test_from_creation_to_deletion(desk: Desk, folder: Path) -> None:
    path = folder / "a.txt"
    assert await do(desk, "create", path, content="one\n", mode="0640") == f"wrote 4 bytes to {path}"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    await do(desk, "append", path, content="two\n")
    await do(desk, "read", path)
    assert desk.output.stdout == b"one\ntwo\n"
    await do(desk, "write", path, content="three\n")
    assert (path.read_text(), stat.S_IMODE(path.stat().st_mode)) == ("three\n", 0o640)
    await do(desk, "checksum", path)
    digest = hashlib.sha256(b"three\n").hexdigest()
    assert desk.output.stdout.decode() == f"{digest}  {path}\n"
    await do(desk, "chmod", path, mode="0600")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await do(desk, "stat", path)
    assert orjson.loads(desk.output.stdout)["size"] == 6
    await do(desk, "move", path, destination=str(folder / "b.txt"))
    await do(desk, "copy", folder / "b.txt", destination=str(path))
    assert sorted(item.name for item in folder.iterdir()) == ["a.txt", "b.txt"]
    await do(desk, "delete", path)
    assert [item.name for item in folder.iterdir()] == ["b.txt"]


async def test_trees(desk: Desk, folder: Path) -> None:
    await do(desk, "mkdir", folder / "x" / "y" / "z", recursive=True, mode="0750")
    assert stat.S_IMODE((folder / "x/y/z").stat().st_mode) == 0o750
    await do(desk, "mkdir", folder / "x" / "y" / "z", recursive=True)
    for name in ("one", "two"):
        (folder / "x/y" / name).write_text(name)
    (folder / "x/link").symlink_to("/etc/passwd")
    await do(desk, "copy", folder / "x", destination=str(folder / "copy"), recursive=True)
    assert (folder / "copy/y/one").read_text() == "one"
    assert (folder / "copy/link").readlink() == Path("/etc/passwd")
    await do(desk, "list", folder / "copy", recursive=True)
    listed = {orjson.loads(line)["path"].removeprefix(f"{folder}/copy/") for line in desk.output.stdout.splitlines()}
    assert listed == {"link", "y", "y/one", "y/two", "y/z"}
    await do(desk, "chmod", folder / "copy", mode="0700", recursive=True)
    assert stat.S_IMODE((folder / "copy/y/one").stat().st_mode) == 0o700
    assert stat.S_IMODE(Path("/etc/passwd").stat().st_mode) != 0o700
    assert await reason(desk, "delete", folder / "copy") == "NotEmpty"
    await do(desk, "delete", folder / "copy", recursive=True)
    assert not (folder / "copy").exists()
    assert (
        await reason(desk, "copy", folder / "x", destination=str(folder / "x/inside"), recursive=True) == "IntoItself"
    )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
async def test_chown(desk: Desk, folder: Path) -> None:
    (folder / "a").write_text("")
    await do(desk, "chown", folder / "a", owner="nobody", group="0")
    assert (folder / "a").stat().st_uid == 65534
    assert await reason(desk, "chown", folder / "a", owner="no-such-user") == "Invalid"


@pytest.mark.parametrize(
    ("operation", "rest", "expected"),
    [
        ("create", {"content": "x"}, "AlreadyExists"),
        ("mkdir", {}, "AlreadyExists"),
        ("list", {}, None),
        ("copy", {"destination": "{folder}/sub"}, "IsADirectory"),
    ],
)
async def test_what_is_there_already(
    desk: Desk, folder: Path, operation: str, rest: dict[str, str], expected: str | None
) -> None:
    (folder / "a").write_text("before")
    (folder / "sub").mkdir()
    rest = {key: value.format(folder=folder) for key, value in rest.items()}
    if expected:
        assert await reason(desk, operation, folder / "a", **rest) == expected
    else:
        await do(desk, operation, folder / "a", **rest)
    assert (folder / "a").read_text() == "before"


async def test_what_does_not_exist(desk: Desk, folder: Path) -> None:
    for operation, rest in {"read": {}, "append": {"content": "x"}, "delete": {}, "stat": {}, "checksum": {}}.items():
        assert await reason(desk, operation, folder / "none", **rest) == "NotFound"
    assert await reason(desk, "write", folder / "none" / "a", content="x") == "NotFound"


async def test_a_denial_says_what_would_allow_it(desk: Desk, folder: Path) -> None:
    with pytest.raises(PolicyDenied, match=r"no rule of policy ns/p0 allows read of /etc/shadow; it allows read in"):
        await do(desk, "read", Path("/etc/shadow"))
    with pytest.raises(PolicyDenied, match=r"denied by files.deny\[0\]"):
        await do(desk, "read", folder / "closed" / "x")
    with pytest.raises(PolicyDenied, match=r"no rule of policy ns/p0 allows copy of /etc/passwd"):
        await do(desk, "copy", Path("/etc/passwd"), destination=str(folder / "x"))


@pytest.mark.parametrize(
    "written", ["{0}/../secret", "{0}/./a", "{0}//a", "{0}/a/", "{0}/a\u202e", "{0}/a\nb", "{0}/closed/../a"]
)
async def test_a_path_has_one_spelling(desk: Desk, folder: Path, written: str) -> None:
    with pytest.raises(PolicyDenied, match=r"detour|format character|control character"):
        await desk.do(file={"operation": "read", "path": written.format(folder)})


@pytest.fixture
def secret(folder: Path) -> Path:
    path = folder.parent / "secret"
    path.write_text("canary")
    return path


@pytest.mark.parametrize("target", ["../secret", "{secret}", "/etc/passwd"])
async def test_a_link_leads_nowhere(desk: Desk, folder: Path, secret: Path, target: str) -> None:
    (folder / "a").symlink_to(target.format(secret=secret))
    for operation, rest in {
        "read": {}, "write": {"content": "x"}, "append": {"content": "x"}, "checksum": {}, "chmod": {"mode": "0777"},
        "copy": {"destination": str(folder / "b")},
    }.items():  # fmt: skip
        assert await reason(desk, operation, folder / "a", **rest) in {"SymbolicLink", "NotAFile"}
    assert secret.read_text() == "canary"
    assert b"canary" not in desk.output.stdout
    await do(desk, "delete", folder / "a")  # deletes the link itself
    assert secret.exists()


async def test_a_directory_that_is_a_link_leads_nowhere(desk: Desk, folder: Path, secret: Path) -> None:
    (folder / "out").symlink_to(folder.parent)
    with pytest.raises(OperationFailed, match=r"symbolic link|no directory") as caught:
        await do(desk, "read", folder / "out" / "secret")
    assert caught.value.reason in {"OutsideRoot", "SymbolicLink", "NotADirectory"}
    with pytest.raises(OperationFailed):
        await do(desk, "create", folder / "out" / "new", content="x")
    assert not (folder.parent / "new").exists()


async def test_a_link_within_the_root_is_judged_by_where_it_leads(desk: Desk, folder: Path) -> None:
    (folder / "closed").mkdir()
    (folder / "closed" / "x").write_text("canary")
    (folder / "alias").symlink_to("closed")
    with pytest.raises((PolicyDenied, OperationFailed)):
        await do(desk, "read", folder / "alias" / "x")
    assert b"canary" not in desk.output.stdout


async def test_a_file_with_a_second_name_is_refused(desk: Desk, folder: Path, secret: Path) -> None:
    os.link(secret, folder / "a")
    for operation, rest in {"read": {}, "write": {"content": "x"}, "append": {"content": "x"}}.items():
        assert await reason(desk, operation, folder / "a", **rest) == "HardLink"
    assert secret.read_text() == "canary"


async def test_a_deny_rule_holds_below_a_tree(desk: Desk, folder: Path) -> None:
    (folder / "tree").mkdir()
    (folder / "closed").mkdir()
    (folder / "closed" / "x").write_text("stays")
    with pytest.raises(PolicyDenied, match=r"files.deny\[0\]"):
        await do(desk, "delete", folder / "closed", recursive=True)
    assert (folder / "closed" / "x").exists()


async def test_a_deny_rule_applies_to_the_content_of_a_directory(desk: Desk, folder: Path) -> None:
    desk.policies[0]["files"]["deny"].append({"paths": [f"{folder}/**/keys"], "operations": EVERYTHING})
    (folder / "tree" / "below").mkdir(parents=True)
    (folder / "tree" / "below" / "keys").write_text("stays")
    for operation, rest in {
        "move": {"destination": f"{folder}/moved"},
        "copy": {"destination": f"{folder}/copied", "recursive": True},
        "delete": {"recursive": True},
        "chmod": {"mode": "0777", "recursive": True},
    }.items():
        with pytest.raises(PolicyDenied, match=r"files.deny\[1\]"):
            await do(desk, operation, folder / "tree", **rest)
    assert [item.name for item in folder.iterdir()] == ["tree"]
    assert (folder / "tree" / "below" / "keys").read_text() == "stays"


async def test_a_deny_rule_applies_to_the_destination_of_a_tree(desk: Desk, folder: Path) -> None:
    (folder / "tree" / "x").mkdir(parents=True)
    desk.policies[0]["files"]["deny"].append({"paths": [f"{folder}/other/x"], "operations": ["move", "copy"]})
    for operation, rest in {"move": {}, "copy": {"recursive": True}}.items():
        with pytest.raises(PolicyDenied, match=r"files.deny\[1\]"):
            await do(desk, operation, folder / "tree", destination=f"{folder}/other", **rest)
    assert sorted(item.name for item in folder.iterdir()) == ["tree"]


async def test_the_operators_own_files_are_closed(desk: Desk, folder: Path) -> None:
    (folder / "state").mkdir()
    (folder / "state" / "audit").write_text("trail")
    assert await reason(desk, "read", folder / "state" / "audit") == "Protected"
    (folder / "alias").symlink_to("state")
    with pytest.raises(OperationFailed):
        await do(desk, "read", folder / "alias" / "audit")


async def test_kernel_files_are_no_files(folder: Path) -> None:
    desk = Desk(FileExecutor(), [{"files": {"allow": [{"paths": ["/**"], "operations": EVERYTHING}]}}])
    for path in ("/proc/self/environ", "/sys/kernel/notes", "/dev/zero"):
        assert await reason(desk, "read", Path(path)) == "Protected"


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
async def test_a_pipe_does_not_hang_it(desk: Desk, folder: Path, kind: str) -> None:
    path = folder / kind
    with contextlib.ExitStack() as stack:
        match kind:
            case "pipe":
                os.mkfifo(path)
            case "socket":
                stack.enter_context(socket.socket(socket.AF_UNIX)).bind(str(path))
            case "device":
                try:
                    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # like /dev/zero, which never ends
                except PermissionError:
                    pytest.skip("making a device needs root")
        for operation, rest in {
            "read": {}, "checksum": {}, "append": {"content": "x"}, "write": {"content": "x"},
            "copy": {"destination": str(folder / "b")}, "move": {"destination": str(folder / "b")},
            "chmod": {"mode": "0777"},
        }.items():  # fmt: skip
            async with asyncio.timeout(60):
                assert await reason(desk, operation, path, **rest) == "NotAFile"


@pytest.mark.no_cover
async def test_a_file_that_becomes_a_pipe_does_not_hang_it(desk: Desk, folder: Path) -> None:
    """A hostile process replaces a file by a pipe without a process at its other end."""
    (folder / "file").write_text("x")
    os.mkfifo(folder / "pipe")
    (folder / "d").write_text("x")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for source in ("pipe", "file"):
                with contextlib.suppress(FileNotFoundError):
                    (folder / "t").unlink(missing_ok=True)
                    os.link(folder / source, folder / "t")
                    (folder / "t").rename(folder / "d")

    thread = threading.Thread(target=swap)
    thread.start()
    try:
        for _ in range(100):
            for operation, rest in {"read": {}, "append": {"content": "x"}, "checksum": {}}.items():
                async with asyncio.timeout(60):
                    with contextlib.suppress(OperationFailed, PolicyDenied):
                        await do(desk, operation, folder / "d", **rest)
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("way", ["/proc/self/root", "/proc/self/cwd", "/dev/fd", "/proc/thread-self/fd"])
async def test_a_magic_link_leads_nowhere(folder: Path, way: str, secret: Path) -> None:
    """The link must not be followed even if the policy allows every path."""
    desk = Desk(FileExecutor(), [{"files": {"allow": [{"paths": ["/**"], "operations": EVERYTHING}]}}])
    (folder / "way").symlink_to(way)
    with secret.open() as open_file:
        for path in (f"{way}{secret}", f"{way}/{open_file.fileno()}", f"{folder}/way{secret}"):
            with pytest.raises((OperationFailed, PolicyDenied)):
                await do(desk, "read", Path(path))
            assert b"canary" not in desk.output.stdout


@pytest.mark.parametrize("mode", ["4755", "2755", "1777", "04755", "7777"])
async def test_no_mode_gives_an_owners_rights(desk: Desk, folder: Path, mode: str) -> None:
    (folder / "a").write_text("x")
    for operation, rest in {"chmod": {}, "write": {"content": "x"}, "create": {"content": "x"}, "mkdir": {}}.items():
        with pytest.raises(InvalidInput, match="mode"):
            await do(desk, operation, folder / ("a" if operation in {"chmod", "write"} else "b"), mode=mode, **rest)
    assert stat.S_IMODE((folder / "a").stat().st_mode) & 0o7000 == 0


async def test_a_name_that_is_no_text(desk: Desk, folder: Path) -> None:
    (folder / "tree").mkdir()
    with open(os.fsencode(folder / "tree") + b"/\xff", "w"):  # noqa: PTH123  # a name in bytes
        pass
    await do(desk, "list", folder / "tree")
    assert orjson.loads(desk.output.stdout)["path"] == f"{folder}/tree/\\xff"
    with pytest.raises(PolicyDenied, match=r"\\xff: the path has a byte that is not valid UTF-8") as caught:
        await do(desk, "move", folder / "tree", destination=f"{folder}/moved")
    str(caught.value).encode()  # the message can be written to status


@pytest.mark.parametrize("name", [b"\xff", b"a\nb", b"\x1b[2J", "\u202e".encode()])
@pytest.mark.parametrize("operation", ["list", "chmod", "copy"])
async def test_one_unusual_name_below_a_folder_is_reported_and_the_rest_is_done(
    desk: Desk, folder: Path, name: bytes, operation: str
) -> None:
    (folder / "tree").mkdir()
    odd = os.fsencode(folder / "tree") + b"/" + name
    os.mkdir(odd)  # noqa: PTH102  # a name in bytes
    for plain in ("a", "z"):
        (folder / "tree" / plain).write_text(plain)
    more = {"chmod": {"mode": "0700"}, "copy": {"destination": f"{folder}/copy"}}.get(operation, {})
    told = await do(desk, operation, folder / "tree", recursive=True, **more)
    assert "left out" in told
    assert told.isprintable(), told
    match operation:
        case "list":
            assert len(desk.output.stdout.splitlines()) == 2
        case "chmod":
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (folder / "tree").iterdir()}
            assert modes["a"] == modes["z"] == 0o700
            assert modes[os.fsdecode(name)] != 0o700
        case "copy":
            assert sorted(os.listdir(folder / "copy")) == ["a", "z"]  # noqa: PTH208


@pytest.mark.parametrize("in_a_tree", [False, True])
async def test_a_copy_keeps_holes(desk: Desk, folder: Path, in_a_tree: bool) -> None:
    (folder / "tree").mkdir()
    with (folder / "tree" / "sparse").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"x" * 4096)
        file.seek(8 << 20)
        file.write(b"y")
        file.truncate(64 << 20)
    source = folder / "tree" / "sparse"
    if in_a_tree:
        await do(desk, "copy", folder / "tree", destination=f"{folder}/copy", recursive=True)
    else:
        (folder / "copy").mkdir()
        await do(desk, "copy", source, destination=f"{folder}/copy/sparse")
    copy = folder / "copy" / "sparse"
    assert copy.read_bytes() == source.read_bytes()
    assert copy.stat().st_blocks <= source.stat().st_blocks < 1024


async def test_set_user_id(desk: Desk, folder: Path) -> None:
    (folder / "a").write_text("x")
    (folder / "a").chmod(0o4755)
    assert await reason(desk, "append", folder / "a", content="y") == "SetUserId"


async def test_owners(folder: Path) -> None:
    (folder / "a").write_text("x")
    rule = {"paths": [f"{folder}/**"], "operations": ["read"], "owners": ["daemon"]}
    desk = Desk(FileExecutor(), [{"files": {"allow": [rule]}}])
    assert await reason(desk, "read", folder / "a") == "OwnerNotAllowed"
    desk.policies[0]["files"]["allow"][0]["owners"].append(str(os.geteuid()))
    await do(desk, "read", folder / "a")
    desk.ceilings.append({"files": {"allow": [{**rule, "owners": ["daemon"]}]}})
    assert await reason(desk, "read", folder / "a") == "OwnerNotAllowed"


async def test_the_root_stays(desk: Desk, folder: Path) -> None:
    assert await reason(desk, "delete", folder, recursive=True) in {"Root", "Protected"}
    assert await reason(desk, "move", folder, destination=str(folder / "x")) in {"Root", "Protected"}
    assert folder.exists()


async def test_a_write_is_whole_or_not_at_all(desk: Desk, folder: Path) -> None:
    (folder / "a").write_text("before")
    desk.limits = Limits(file_size=3)
    assert await reason(desk, "write", folder / "a", content="longer") == "FileSizeExceeded"
    assert await reason(desk, "append", folder / "a", content="x") == "FileSizeExceeded"
    assert (folder / "a").read_text() == "before"
    assert [item.name for item in folder.iterdir()] == ["a"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
async def test_a_full_disk_changes_nothing(desk: Desk, folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    mounted = subprocess.run(["/bin/mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)], check=False)
    if mounted.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        (small / "a").write_text("before")
        assert await reason(desk, "write", small / "a", content="x" * 200_000) == "DiskFull"
        assert await reason(desk, "append", small / "a", content="x" * 200_000) == "DiskFull"
        assert (small / "a").read_text() == "before"
        (folder / "big").write_bytes(b"x" * 200_000)
        assert await reason(desk, "copy", folder / "big", destination=str(small / "b")) == "DiskFull"
        assert await reason(desk, "move", folder / "big", destination=str(small / "b")) == "DiskFull"
        assert [item.name for item in small.iterdir()] == ["a"]
        assert (folder / "big").stat().st_size == 200_000
        (folder / "little").write_text("moved")
        await do(desk, "move", folder / "little", destination=str(small / "little"))  # to another file system
        assert (small / "little").read_text() == "moved"
        assert not (folder / "little").exists()
    finally:
        subprocess.run(["/bin/umount", str(small)], check=True)


async def test_content_of_a_secret(desk: Desk, folder: Path) -> None:
    operation = {
        "operation": "create",
        "path": str(folder / "a"),
        "contentFrom": {"secretKeyRef": {"name": "s", "key": "k"}},
    }
    await desk.do({"contentFrom.secretKeyRef": b"value"}, file=operation)
    assert (folder / "a").read_bytes() == b"value"


@pytest.mark.no_cover
async def test_a_swap_between_check_and_use_never_leads_out(desk: Desk, folder: Path, secret: Path) -> None:
    """A hostile process swaps a directory and a link as fast as possible."""
    inside, link = folder / "d", folder / "l"
    inside.mkdir()
    (inside / "secret").write_text("harmless")
    link.symlink_to(folder.parent)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for source, target in (("d", "t"), ("l", "d"), ("d", "l"), ("t", "d")):
                (folder / source).rename(folder / target)

    thread = threading.Thread(target=swap)
    thread.start()
    seen = set()
    try:
        for number in range(300):
            try:
                await do(desk, "read", folder / "d" / "secret")
                seen.add(desk.output.stdout)
            except (OperationFailed, PolicyDenied):
                pass
            with contextlib.suppress(OperationFailed, PolicyDenied):
                await do(desk, "write", folder / "d" / "secret", content=f"{number}")
    finally:
        over.set()
        thread.join()
    assert b"canary" not in seen
    assert secret.read_text() == "canary"


async def test_cancelling_a_long_copy_leaves_nothing(desk: Desk, folder: Path) -> None:
    with (folder / "big").open("wb") as file:
        for extent in range(5000):  # each extent is copied separately, which takes long
            os.pwrite(file.fileno(), b"x", extent << 20)
    work = desk.work(file={"operation": "copy", "path": str(folder / "big"), "destination": str(folder / "b")})
    doing = asyncio.create_task(desk.executor.execute(work, desk.output))
    while not _is_writing_in(folder):
        await asyncio.sleep(0.001)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    assert [item.name for item in folder.iterdir()] == ["big"]


async def test_a_long_list_is_whole(desk: Desk, folder: Path) -> None:
    names = {f"{number:04}" for number in range(1500)}
    for name in names:
        (folder / name).touch()
    await do(desk, "list", folder)
    listed = [orjson.loads(line)["path"] for line in desk.output.stdout.splitlines()]
    assert listed == [f"{folder}/{name}" for name in sorted(names)]


def _is_writing_in(folder: Path) -> bool:
    """Returns whether a file without a name, or with a temporary name, is open there."""
    opened = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            opened.append(str(link.readlink()))
    nameless = any(name.startswith(f"{folder}/") and name.endswith("(deleted)") for name in opened)
    return nameless or any(item.name.startswith(".remit-") for item in folder.iterdir())


@pytest.mark.parametrize("operation", ["create", "write", "copy"])
def test_an_operator_that_is_killed_leaves_nothing_behind(folder: Path, operation: str) -> None:
    """Not even a temporary file may remain, because nothing would ever remove it."""
    (folder / "a").write_text("before")
    action = "exclusive=True" if operation == "create" else "exclusive=False"
    name = "new" if operation == "create" else "a"
    program = f"""
import os, signal
from remit.operations.base import Effect
from remit.sandbox.beneath import place
from remit.operations.file.writing import replacing
with place({str(folder)!r}, {str(folder / name)!r}) as at, replacing(at, 0o644, Effect(), {action}) as descriptor:
    os.write(descriptor, b"half of it")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -signal.SIGKILL
    assert [(item.name, item.read_text()) for item in folder.iterdir()] == [("a", "before")]


async def test_where_a_file_must_have_a_name(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems, such as NFS, do not support files without a name."""
    opening = os.open

    def without_tmpfile(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return opening(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", without_tmpfile)
    await do(desk, "create", folder / "a", content="one")
    assert await reason(desk, "create", folder / "a", content="two") == "AlreadyExists"
    await do(desk, "write", folder / "a", content="three")
    await do(desk, "copy", folder / "a", destination=str(folder / "b"))
    desk.limits = Limits(file_size=3)
    assert await reason(desk, "write", folder / "a", content="longer") == "FileSizeExceeded"
    assert {item.name: item.read_text() for item in folder.iterdir()} == {"a": "three", "b": "three"}


async def test_what_another_appended_meanwhile_stays(desk: Desk, folder: Path) -> None:
    path = folder / "log"
    path.write_text("1")
    desk.limits = Limits(file_size=20)

    def pieces() -> Iterator[bytes]:
        yield b"2" * 4
        with path.open("a") as other:
            other.write("another's")
        yield b"3" * 20

    job = desk.work(file={"operation": "append", "path": str(path), "content": "x"})
    assert isinstance(job.subject, FileOperation)
    access = Access(job.grant, job.subject, (), threading.Event())
    with pytest.raises(OperationFailed, match="4 bytes were appended and then it failed") as caught:
        append(Job(job.subject, access, pieces(), lambda chunk: None, Limit(20), Effect()))
    assert (caught.value.reason, caught.value.retryable) == ("PartlyAppended", False)
    assert path.read_text() == "12222another's"


@pytest.mark.parametrize(
    ("operation", "path", "rest", "told"),
    [
        ("create", "none/a", {"content": ""}, "spec.file.path: {folder}/none/a is in a directory that is not there"),
        ("create", "a", {"content": ""}, "spec.file.path: {folder}/a is there already; write replaces it"),
        ("append", "none", {"content": ""}, "spec.file.path: {folder}/none is not there; create makes it"),
        ("mkdir", "d", {}, "spec.file.path: {folder}/d is there already; with recursive"),
        ("read", "d", {}, "spec.file.path: {folder}/d is a directory; name a file"),
        ("write", "d", {"content": ""}, "spec.file.path: {folder}/d is a directory; name a file"),
        ("delete", "d", {}, "spec.file.path: {folder}/d is a directory that is not empty; set recursive"),
        ("copy", "d", {"destination": "e"}, "spec.file.path: {folder}/d is a directory; set recursive"),
        ("copy", "a", {"destination": "none/b"}, "spec.file.destination: {folder}/none/b is in a directory that is"),
        ("copy", "none", {"destination": "b"}, "spec.file.path: {folder}/none is not there"),
        ("copy", "a", {"destination": "d"}, "spec.file.destination: {folder}/d is a directory; set recursive"),
        ("copy", "d", {"destination": "f", "recursive": True}, "spec.file.destination: {folder}/f is there already"),
        ("move", "f", {"destination": "d"}, "spec.file.destination: {folder}/d is a directory that is not empty"),
        ("move", "a", {"destination": "d"}, "spec.file.destination: {folder}/d is a directory; name the file's new"),
        ("move", "d", {"destination": "a"}, "spec.file.destination: {folder}/a is a file, whose place"),
        ("move", "d", {"destination": "d/x/y"}, "{folder}/d/x/y is inside {folder}/d; name a place outside"),
        ("read", "a/b", {}, "spec.file.path: {folder}/a/b goes through something that is no directory"),
        ("read", "l", {}, "spec.file.path: {folder}/l is a symbolic link"),
        ("create", "n" * 300, {}, "has a name in it that is too long"),
    ],
)
async def test_what_goes_wrong_names_the_field_and_the_remedy(
    desk: Desk, folder: Path, operation: str, path: str, rest: dict[str, Any], told: str
) -> None:
    (folder / "a").write_text("")
    (folder / "d/x").mkdir(parents=True)
    (folder / "f").mkdir()
    (folder / "l").symlink_to("a")
    if "destination" in rest:
        rest = {**rest, "destination": f"{folder}/{rest['destination']}"}
    with pytest.raises(OperationFailed) as caught:
        await do(desk, operation, folder / path, **rest)
    assert told.format(folder=folder) in str(caught.value)


LEVELS = 300
LONG = "n" * 255


@pytest.fixture
def hazards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provides a tree with paths that cannot be processed and paths that can, including the names `a` and `z` of each
    kind. An entry vanishes while the tree is walked."""
    (tree := folder / "tree").mkdir()
    for name in ("a", "z", LONG):
        (tree / name).write_text(name[0])
        (tree / name).chmod(0o600)
    os.mkfifo(tree / "pipe")
    (folder.parent / "elsewhere").write_text("canary")
    os.link(folder.parent / "elsewhere", tree / "hardlink")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tree / "socket"))
    with open(os.fsencode(tree) + b"/odd\xff", "w"):  # noqa: PTH123  # a name in bytes
        pass
    _nest(tree, "deep", LEVELS)
    _nest(tree, LONG[1:], 20)  # the path is longer than PATH_MAX
    listed = os.listdir

    def with_ghost(where: Any) -> list[str]:
        names = listed(where)
        return [*names, "ghost"] if "pipe" in names else names

    with monkeypatch.context() as patched:
        patched.setattr(os, "listdir", with_ghost)
        yield tree
    subprocess.run(["rm", "-rf", *folder.iterdir()], check=True)


def _nest(top: Path, name: str, levels: int) -> None:
    descriptor = os.open(top, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("bottom", os.O_CREAT, 0o600, dir_fd=descriptor))
    os.close(descriptor)


async def told_of(desk: Desk, operation: str, tree: Path, **rest: Any) -> str:
    told = await do(desk, operation, tree, recursive=True, **rest)
    assert told.isprintable()
    assert len(told) < 2000
    return told


async def test_a_list_has_all_that_it_can_tell(desk: Desk, hazards: Path) -> None:
    told = await told_of(desk, "list", hazards)
    lines = [orjson.loads(line) for line in desk.output.stdout.splitlines()]
    types = {line["path"].removeprefix(f"{hazards}/"): line["type"] for line in lines}
    assert types["a"] == types["z"] == types[LONG] == types["hardlink"] == "file"
    assert types["pipe"] == types["socket"] == "other"
    assert sum(path.endswith("/bottom") for path in types) == 1
    assert max(map(len, types)) > os.pathconf(hazards, "PC_PATH_MAX")
    assert "ghost (it was" in await do(desk, "list", hazards)
    ghost = "ghost (it was removed or replaced meanwhile)"
    for left_out in (r"odd\xff (characters in its name)", ghost, "(nested deeper than"):
        assert left_out in told


async def test_a_copy_has_all_that_can_be_copied(desk: Desk, hazards: Path, folder: Path) -> None:
    told = await told_of(desk, "copy", hazards, destination=f"{folder}/copy")
    names = {path.name for path in (folder / "copy").iterdir()}
    assert names == {"a", "z", LONG, "deep", LONG[1:]}
    for left_out in (r"odd\xff", "pipe (a pipe)", "hardlink (2 names)", "and 1 more"):
        assert left_out in told


async def test_a_mode_is_given_to_all_that_can_have_it(desk: Desk, hazards: Path, folder: Path) -> None:
    told = await told_of(desk, "chmod", hazards, mode="0700")
    modes = {name: stat.S_IMODE((hazards / name).stat().st_mode) for name in ("a", "z", LONG, "hardlink", "pipe")}
    assert modes["a"] == modes["z"] == modes[LONG] == 0o700
    assert 0o700 not in {modes["hardlink"], modes["pipe"]}
    for left_out in (r"odd\xff", "pipe (a pipe)", "hardlink (2 names)", "and 1 more"):
        assert left_out in told


async def test_a_deletion_removes_all_that_it_can_and_names_the_rest(desk: Desk, hazards: Path) -> None:
    with pytest.raises(OperationFailed, match=r"left out: .*odd\\xff \(characters in its name\)") as caught:
        await do(desk, "delete", hazards, recursive=True)
    assert (caught.value.reason, caught.value.retryable) == ("PartlyDeleted", False)
    assert sorted(path.name for path in hazards.iterdir() if path.name != "ghost") == ["deep", "odd\udcff"]
    assert (hazards.parent.parent / "elsewhere").read_text() == "canary"


async def test_a_deletion_of_pipes_and_sockets(desk: Desk, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    await do(desk, "delete", folder / "pipe")
    (folder / "tree").mkdir()
    os.mkfifo(folder / "tree" / "pipe")
    await do(desk, "delete", folder / "tree", recursive=True)
    assert list(folder.iterdir()) == []


async def test_a_move_takes_all_or_nothing(desk: Desk, hazards: Path, folder: Path) -> None:
    before = sorted(os.listdir(hazards))  # noqa: PTH208
    with pytest.raises((OperationFailed, PolicyDenied)):
        await do(desk, "move", hazards, destination=f"{folder}/moved")
    assert sorted(os.listdir(hazards)) == before  # noqa: PTH208
    assert not (folder / "moved").exists()


@pytest.mark.parametrize(("operation", "more"), [("copy", {"destination": "{0}/copy"}), ("chmod", {"mode": "0700"})])
async def test_what_vanishes_once_it_was_looked_at_is_left_out(
    desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch, operation: str, more: dict[str, str]
) -> None:
    (folder / "tree").mkdir()
    for name in ("a", "b", "z"):
        (folder / "tree" / name).write_text(name)
    opened = beneath.Place.open

    def vanishing(place: beneath.Place, *flags: int) -> int:
        if place.path == f"{folder}/tree/b":
            Path(place.path).unlink()
        return opened(place, *flags)

    monkeypatch.setattr(beneath.Place, "open", vanishing)
    rest = {name: value.format(folder) for name, value in more.items()}
    told = await do(desk, operation, folder / "tree", recursive=True, **rest)
    assert "tree/b (it was removed or replaced meanwhile)" in told
    done = folder / ("copy" if operation == "copy" else "tree")
    assert sorted(path.name for path in done.iterdir()) == ["a", "z"]
    assert operation == "copy" or stat.S_IMODE((done / "z").stat().st_mode) == 0o700
