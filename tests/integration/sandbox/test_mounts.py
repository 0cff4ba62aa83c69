"""Tests hostile folders: exactly what a policy allowed is mounted, whatever happens to its name, and the mount gives no
additional rights.

If the operator is root, attempts run as the owner of what they write to; otherwise they run as the operator's user.
`test_ordinary_user` also runs these tests as an unprivileged user.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import shutil
import socket
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from parts import require
from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Ability, EmptyMount, Host, HostMount, Layer, Limits, mounttable
from remit.sandbox.protected import Protected
from support import repetitions

from .conftest import Runner

IS_ROOT = os.geteuid() == 0
OWNER = 43210 if IS_ROOT else os.geteuid()
"""Owner of the folders: an unassigned user if this process is root."""
root_only = pytest.mark.skipif(not IS_ROOT, reason="only root can make it so")


@pytest.fixture
def run(host: Host) -> Runner:
    return Runner(ProcessBackend(host))


@pytest.fixture
def top() -> Iterator[Path]:
    """Provides a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="remit-mounts-") as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def src(top: Path) -> Path:
    """Provides a user's folder with a file."""
    return folder(top / "src", {"file": "mine"})


def folder(path: Path, files: dict[str, str] | None = None, owner: int = OWNER) -> Path:
    path.mkdir(mode=0o700)
    for name, content in (files or {}).items():
        (path / name).write_text(content)
        own(path / name, owner)
    own(path, owner)
    return path


def own(path: Path, owner: int = OWNER) -> None:
    if IS_ROOT:
        os.chown(path, owner, owner, follow_symlinks=False)


def mount(path: Path | str, at: str = "/src", root: Path | str | None = None, **more: object) -> HostMount:
    return HostMount(at, str(root or path), str(path), **more)


def writable(path: Path | str, at: str = "/src", **more: object) -> HostMount:
    return mount(path, at, read_only=False, **more)


async def said(run: Runner, source: str, *mounts: HostMount | EmptyMount, **more: object) -> list[str]:
    """Returns the output of a program that must succeed."""
    outcome, out = await run.python(source, mounts=mounts, **more)
    assert outcome.exit_code == 0, (outcome, out.stderr)
    return out.stdout.decode().splitlines()


async def refusal(run: Runner, *mounts: HostMount | EmptyMount, **more: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        await run("/usr/bin/true", mounts=mounts, **more)
    return str(caught.value)


async def test_files_are_read_and_written_as_their_owner(run: Runner, src: Path) -> None:
    source = "import os; print(open('file').read(), os.stat('file').st_uid); open('made', 'w')"
    assert await said(run, source, writable(src), working_dir="/src") == ["mine 1000"]
    assert (src / "made").stat().st_uid == OWNER
    assert (src / "made").stat().st_gid == (OWNER if IS_ROOT else os.getegid())


WRITE = """
import os
for path in {paths}:
    try:
        open(os.path.join(path, 'made'), 'w'); print('written', path)
    except OSError as error:
        print(error.strerror)
"""


async def test_what_is_only_to_be_read_is_not_written(run: Runner, src: Path) -> None:
    assert await said(run, WRITE.format(paths=["/src"]), mount(src)) == ["Read-only file system"]
    assert await said(run, "print(open('/src/file').read())", mount(src)) == ["mine"]


@root_only
async def test_what_is_mounted_beneath_is_as_closed(run: Runner, src: Path) -> None:
    """This includes a file system below that allows devices and setuid and is mounted writable."""
    inner = folder(src / "inner")
    assert os.system(f"mount -t tmpfs -o mode=777,suid,dev tmpfs {inner}") == 0
    try:
        shutil.copy("/usr/bin/id", inner / "id")
        (inner / "id").chmod(0o4755)
        os.mknod(inner / "null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        (inner / "null").chmod(0o666)
        assert await said(run, WRITE.format(paths=["/src", "/src/inner"]), mount(src)) == ["Read-only file system"] * 2
        flags = "[print(l.split()[5]) for l in open('/proc/self/mountinfo') if l.split()[4].startswith('/src')]"
        for each, access in ((mount(src), "ro"), (writable(src), "rw")):
            found = await said(run, flags, each)
            assert len(found) == 2
            assert all({access, "nosuid", "nodev"} <= set(line.split(",")) for line in found), found
        source = "import os, subprocess; print(subprocess.run(['/src/inner/id', '-u'], capture_output=True).stdout); "
        source += "print(os.access('/src/inner/null', os.R_OK)); open('/src/inner/null')"
        outcome, out = await run.python(source, mounts=(writable(src),))
        assert out.stdout.splitlines()[0] == b"b'1000\\n'"
        assert outcome.exit_code == 1
        assert b"Permission denied" in out.stderr
    finally:
        os.system(f"umount {inner}")


@root_only
async def test_a_filesystem_that_is_mounted_later_does_not_come_in(run: Runner, src: Path) -> None:
    inner = folder(src / "inner")
    source = """
import os, time
print('up', flush=True)
while not os.path.exists('/src/go'): time.sleep(0.01)
print(os.listdir('/src/inner'))
"""
    sink = run.sink()
    running = asyncio.create_task(run.python(source, mounts=(mount(src),), sink=sink))
    await asyncio.wait_for(sink.seen.wait(), 30)
    assert os.system(f"mount -t tmpfs tmpfs {inner}") == 0
    try:
        (inner / "late").touch()
        (src / "go").touch()
        outcome, _ = await running
        assert outcome.exit_code == 0
        assert sink.stdout.splitlines() == [b"up", b"[]"]
    finally:
        os.system(f"umount {inner}")


async def test_no_descriptor_of_the_host_is_left_to_the_program(run: Runner, src: Path) -> None:
    source = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[3:4])"
    assert await said(run, source, mount(src)) == ["[3]"], "3 is the listing itself"
    assert await said(run, "import os; print(os.path.exists('/sys'))", mount(src)) == ["False"]


async def test_a_link_leads_nowhere_that_was_not_opened(run: Runner, top: Path, src: Path) -> None:
    secret = folder(top / "secret", {"token": "canary"})
    (src / "out").symlink_to(secret)
    (src / "up").symlink_to("../secret")
    (src / "etc").symlink_to("/etc")
    for name in ("out", "up", "etc"):
        own(src / name)
        for each in (mount(src / name, root=src), mount(src, sub_path=name), mount(src, sub_path=f"{name}/token")):
            assert "leads out" in await refusal(run, each)
    for each in (mount(f"{src}/../secret", root=src), mount(src, sub_path="../secret"), mount(secret, root=src)):
        assert "leads out" in await refusal(run, each)
    (top / "alias").symlink_to(src)
    own(top / "alias")
    assert "there is a link in" in await refusal(run, mount(top / "alias")), "also where no policy has opened more"
    (src / "deep").mkdir()
    own(src / "deep")
    (src / "in").symlink_to("deep")
    assert await said(run, "import os; print(os.listdir('/src'))", mount(src / "in", root=src)) == ["[]"]


@root_only
async def test_a_link_of_roots_is_the_hosts_way_to_arrange_its_disks(run: Runner, top: Path, src: Path) -> None:
    (top / "alias").symlink_to(src)
    assert await said(run, "print(open('/src/file').read())", mount(top / "alias")) == ["mine"]


async def test_a_folder_that_is_swapped_meanwhile_is_never_another(run: Runner, top: Path, src: Path) -> None:
    """A path component is in turns a folder, a link to another user's folder, and missing."""
    between = folder(top / "between")
    folder(between / "work", {"whose": "mine"})
    foreign = folder(top / "foreign")
    folder(foreign / "work", {"whose": "canary"})
    link = top / "link"
    link.symlink_to(foreign)
    own(link)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for _ in range(2):
                with contextlib.suppress(OSError):
                    between.rename(top / "aside")
                    link.rename(between)
                with contextlib.suppress(OSError):
                    between.rename(link)
                    (top / "aside").rename(between)

    swapping = threading.Thread(target=swap)
    swapping.start()
    seen = set()
    try:
        for _ in tries(repetitions(30, soak=1000), lambda: "mine" in seen):
            each = mount(between / "work", root=between)
            try:
                seen.add((await said(run, "print(open('/src/whose').read())", each))[0])
            except InvalidInput:
                seen.add("refused")
            except Exception as error:  # bubblewrap's error about a folder that was swapped
                assert "Race condition" in str(error) or "No such file" in str(error), error
                seen.add("failed")
    finally:
        stop.set()
        swapping.join()
    assert "canary" not in seen
    assert "mine" in seen


def tries(least: int, came_through: Callable[[], bool]) -> Iterator[int]:
    """Yields at least `least` tries, and more until one succeeded, because a race may be lost many times in a row."""
    for number in range(50 * least):
        if number >= least and came_through():
            return
        yield number


@root_only
async def test_hard_links_to_the_files_of_others(run: Runner, top: Path, src: Path) -> None:
    """In a folder, the ownership of the linked file remains effective. A file mount of a hard link is refused, because
    its creator could otherwise choose the user that a task runs as."""
    foreign = folder(top / "foreign", {"token": "canary"}, owner=OWNER + 1)
    (foreign / "token").chmod(0o600)
    os.link(foreign / "token", src / "linked")
    source = "print(open('/src/linked').read())"
    outcome, out = await run.python(source, mounts=(mount(src),))
    assert (outcome.exit_code, b"canary" in out.stdout) == (1, False)
    assert "hard links" in await refusal(run, mount(src / "linked"))
    assert "hard links" in await refusal(run, mount(src, sub_path="linked"))


async def test_only_folders_and_files_are_mounted(run: Runner, src: Path) -> None:
    os.mkfifo(src / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(src / "socket"))
        special = ["pipe", "socket"]
        if IS_ROOT:
            os.mknod(src / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            special.append("device")
        for name in special:
            assert "neither a folder nor a file" in await refusal(run, mount(src / name))
    assert await said(run, "print(open('/etc/app.conf').read())", mount(src / "file", "/etc/app.conf")) == ["mine"]
    source = "open('/etc/app.conf', 'w').write('changed')"
    await said(run, source, writable(src / "file", "/etc/app.conf"))
    assert (src / "file").read_text() == "changed"


@pytest.mark.parametrize("path", ["/", "/proc", "/proc/self", "/sys/kernel", "/dev", "/dev/shm", "/run", "/var/run"])
async def test_the_kernel_and_the_hosts_sockets_are_never_mounted(run: Runner, path: str) -> None:
    message = await refusal(run, mount(path))
    assert "never mounted" in message or "there is a link" in message


@root_only
async def test_paths_of_the_operator_are_refused_by_other_names(run: Runner, top: Path, src: Path) -> None:
    for kind, options in (("proc", "-t proc proc"), ("dev", "--bind /dev"), ("run", "--bind /run")):
        place = folder(src / kind)
        assert os.system(f"mount {options} {place}") == 0
        try:
            for each in (mount(src), mount(place), mount(src, sub_path=kind)):
                assert "never mounted" in await refusal(run, each)
        finally:
            os.system(f"umount {place}")


@root_only
def test_paths_of_the_operator_are_refused_while_a_parent_folder_is_renamed(
    top: Path, src: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder(src / "proc")
    assert os.system(f"mount -t proc proc {place}") == 0
    guard = Protected([])
    opened = os.open(src, os.O_PATH)
    renamed = itertools.cycle([(src, top / "moved"), (top / "moved", src)])
    try:
        assert guard.objections([opened])[0]
        src.rename(top / "moved")
        assert guard.objections([opened])[0], "mounts are looked at anew"
        (top / "moved").rename(src)
        read = mounttable._content

        def renaming(name: str) -> bytes:
            if name.endswith("mountinfo"):
                os.rename(*next(renamed))  # noqa: PTH104
            return read(name)

        monkeypatch.setattr(mounttable, "_content", renaming)
        other = os.open(folder(top / "other"), os.O_PATH)
        try:
            judged = guard.objections([other, opened])
        finally:
            os.close(other)
        assert judged[0] is None, "it is not this one that is renamed"
        assert judged[1]
    finally:
        monkeypatch.undo()
        os.system(f"umount {src}/proc || umount {top}/moved/proc")
        os.close(opened)


async def test_the_operators_own_state_is_never_mounted(host: Host, top: Path, src: Path) -> None:
    state = folder(top / "state")
    folder(state / "runs", {"output": "canary"})
    (top / "alias").symlink_to(state)
    run = Runner(ProcessBackend(host, protected=[str(state), "/not/there"]))
    for path in (state, state / "runs", state / "runs" / "output", top):
        message = await refusal(run, mount(path))
        assert "never mounted" in message
        assert str(state) in message
    assert "leads out" in await refusal(run, mount(top / "alias", root=src))
    assert await said(run, "print(open('/src/file').read())", mount(src)) == ["mine"]
    kept = mount(state / "runs", internal=True)
    assert await said(run, "print(open('/src/output').read())", kept, *([mount(src, "/own")] if IS_ROOT else [])) == [
        "canary"
    ]


async def test_the_folder_of_a_missing_socket_is_not_mounted(host: Host, top: Path) -> None:
    """An engine's socket does not exist while the engine restarts."""
    engine = folder(top / "engine", {"file": "nothing"})
    (top / "alias").symlink_to(engine)
    for socket_ in (engine / "docker.sock", top / "alias" / "docker.sock", engine / "new" / "docker.sock"):
        run = Runner(ProcessBackend(host, protected=[str(socket_)]))
        for path in (engine, top):
            assert "never mounted" in await refusal(run, mount(path))


async def test_a_missing_path_is_reported_and_not_created(run: Runner, src: Path) -> None:
    for each in (mount(src / "no" / "such", root=src), mount(src, sub_path="no/such"), mount("/no/such/root")):
        message = await refusal(run, each)
        assert "no/such" in message
        assert "is not there; make it on the host" in message
    assert sorted(path.name for path in src.iterdir()) == ["file"]


@pytest.mark.parametrize(
    "at",
    [
        "/usr",
        "/usr/local",
        "/etc/passwd",
        "/etc",
        "/proc",
        "/workspace",
        "/tmp/../usr",
        "/",
        "/x/",
        "//x",
        "/run/remit",
    ],
)
async def test_nothing_covers_what_is_the_sandboxs_own(run: Runner, src: Path, at: str) -> None:
    assert "the sandbox's own" in await refusal(run, mount(src, at))
    assert "the sandbox's own" in await refusal(run, EmptyMount(at))


async def test_nothing_covers_what_the_operator_gives_to_all(host: Host, top: Path, src: Path) -> None:
    given = folder(top / "given")
    given.chmod(0o755)
    run = Runner(ProcessBackend(host, read_only_paths=[str(given)]))
    for at in (str(given), str(given / "inner"), str(top)):
        assert "gives" in await refusal(run, mount(src, at))


async def test_two_volumes_in_one_place(run: Runner, src: Path) -> None:
    assert "two volumes" in await refusal(run, mount(src), EmptyMount("/src"))


async def test_private_files_are_not_written_to_the_host(run: Runner, src: Path) -> None:
    message = await refusal(run, writable(src), files={"/src/token": b"secret"})
    assert "would be written" in message
    assert sorted(path.name for path in src.iterdir()) == ["file"]
    inside = {"/etc/app/token": b"secret", "/data/conf/token": b"secret", "/workspace/conf/token": b"secret"}
    source = f"print([open(p).read() for p in {list(inside)}])"
    assert await said(run, source, mount(src), EmptyMount("/data"), files=inside) == [str(["secret"] * 3)]
    for path in ("/etc/passwd", "/usr/x", "/etc/../usr/x", "/proc/x", "relative"):
        assert "sandbox's own" in await refusal(run, mount(src), files={path: b""})


async def test_names_are_no_syntax(run: Runner, top: Path) -> None:
    for number, name in enumerate(("new\nline", "\\040oct", "--bind", "a b\t", "ünï", "x (deleted)")):
        path = folder(top / name, {"file": str(number)})
        assert await said(run, "print(open('/src/file').read())", mount(path)) == [str(number)]
        at = f"/{name}"
        assert await said(run, f"print(open({at + '/file'!r}).read())", mount(path, at)) == [str(number)]


async def test_an_empty_folder_has_the_size_that_it_is_given(run: Runner) -> None:
    fill = """
for folder in ('/data', '/workspace/cache'):
    size = 0
    try:
        with open(folder + '/big', 'wb', buffering=0) as file:
            while True: size += file.write(b'x' * 65536)
    except OSError as error:
        print(error.strerror, size)
"""
    mounts = EmptyMount("/data", 1 << 20), EmptyMount("/workspace/cache")
    told = "No space left on device"
    limits = Limits(disk_bytes=2 << 20, memory_bytes=256 << 20)
    assert await said(run, fill, *mounts, limits=limits) == [f"{told} {1 << 20}", f"{told} {2 << 20}"]


async def test_a_program_in_a_mounted_folder_runs(run: Runner, src: Path) -> None:
    program = src / "run.sh"
    program.write_text("#!/bin/sh\necho from the folder\n")
    program.chmod(0o755)
    own(program)
    outcome, out = await run("/src/run.sh", mounts=(mount(src),))
    assert (outcome.exit_code, out.stdout) == (0, b"from the folder\n")
    outcome, _ = await run("/src/none.sh", mounts=(mount(src),))
    assert outcome.reason == ExitReason.START_FAILED


async def test_git_works_in_a_mounted_repository(run: Runner, src: Path) -> None:
    require("git", Path("/usr/bin/git").exists(), "apt install git")
    git = ["/usr/bin/git", "-c", "user.name=a", "-c", "user.email=a@example.com"]
    source = f"""
import subprocess
for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'first'], ['status', '--short'], ['log', '--oneline']):
    done = subprocess.run([*{git!r}, *words], cwd='/src', capture_output=True, text=True)
    print(words[0], done.returncode, done.stderr)
"""
    told = await said(run, source, writable(src))
    assert [line.split()[:2] for line in told] == [[word, "0"] for word in ("init", "add", "commit", "status", "log")]
    told = await said(run, source.replace("'init', '-q'", "'status'"), mount(src), mount(src, "/again"))
    assert told[0].split()[:2] == ["status", "0"], "read-only, too: its owner is who asks"


async def test_without_namespaces_nothing_is_mounted(host: Host, src: Path) -> None:
    require("landlock", host.bare, host.abilities[Layer.LANDLOCK].detail)
    lacking = Ability(Layer.NAMESPACES, False, "left out by the test", "leave it in")
    bare = replace(host, bubblewrap=None, abilities={**host.abilities, Layer.NAMESPACES: lacking})
    layers = frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS})
    for each in (mount(src), EmptyMount("/data")):
        with pytest.raises(SandboxUnavailable, match="without namespaces"):
            await Runner(ProcessBackend(bare))("/usr/bin/true", mounts=(each,), require=layers)


async def test_an_old_bubblewrap_is_not_trusted_with_names(host: Host, src: Path) -> None:
    assert host.bubblewrap
    run = Runner(ProcessBackend(replace(host, bubblewrap=replace(host.bubblewrap, mounts_by=None))))
    with pytest.raises(SandboxUnavailable, match=r"0\.10 or later"):
        await run("/usr/bin/true", mounts=(mount(src),))
    assert await said(run, "import os; print(os.listdir('/data'))", EmptyMount("/data")) == ["[]"]


async def test_by_descriptor_as_root_too(host: Host, src: Path) -> None:
    """For root without CAP_SYS_ADMIN."""
    assert host.bubblewrap
    src.chmod(0o755)
    run = Runner(ProcessBackend(replace(host, bubblewrap=replace(host.bubblewrap, mounts_by="descriptor"))))
    assert await said(run, "print(open('/src/file').read()); open('/src/made', 'w')", writable(src)) == ["mine"]
    assert (src / "made").stat().st_uid == OWNER
    source = "import os; print(sorted(int(n) for n in os.listdir('/proc/self/fd'))[3:4])"
    assert await said(run, source, mount(src)) == ["[3]"]
    assert "takes an operator that is root" in await refusal(run, writable(src), EmptyMount("/src/cache"))


class TestWithin:
    """Mounts inside mounts."""

    pytestmark = root_only

    async def test_the_place_must_be_there(self, run: Runner, src: Path, top: Path) -> None:
        other = folder(top / "other")
        for outer in (mount(src), writable(src)):
            for inner in (EmptyMount("/src/cache"), mount(other, "/src/cache"), mount(src / "file", "/src/cache")):
                message = await refusal(run, outer, inner)
                assert "cache" in message
                assert "mounting makes nothing" in message
        assert "no folder file" in await refusal(run, mount(src), EmptyMount("/src/file"))
        (src / "link").symlink_to("deep")
        folder(src / "deep")
        assert "no folder link" in await refusal(run, mount(src), EmptyMount("/src/link"))
        assert sorted(path.name for path in src.iterdir()) == ["deep", "file", "link"]

    async def test_each_has_its_own_access(self, run: Runner, src: Path, top: Path) -> None:
        folder(folder(src / "deep") / "cache")
        folder(src / "temporary")
        other = folder(folder(top / "other") / "inner").parent
        mounts = (
            mount(src),
            writable(other, "/src/deep/cache"),
            EmptyMount("/src/temporary", 1 << 20),
            mount(src, "/src/deep/cache/inner"),
        )
        paths = ["/src", "/src/deep", "/src/deep/cache", "/src/temporary", "/src/deep/cache/inner"]
        told = await said(run, WRITE.format(paths=paths), *mounts)
        assert told == [
            "Read-only file system",
            "Read-only file system",
            "written /src/deep/cache",
            "written /src/temporary",
            "Read-only file system",
        ]
        assert (other / "made").stat().st_uid == OWNER
        assert list((src / "temporary").iterdir()) == []
        assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(top) in line]

    async def test_one_in_an_empty_folder(self, run: Runner, src: Path) -> None:
        mounts = EmptyMount("/data"), writable(src, "/data/deep/src")
        assert await said(run, "print(open('/data/deep/src/file').read()); open('/data/x', 'w')", *mounts) == ["mine"]

    async def test_the_place_is_swapped_for_a_link_meanwhile(self, run: Runner, src: Path, top: Path) -> None:
        """Nothing is created or mounted at the target of the link."""
        target = folder(top / "target", {"file": "not mine"})
        folder(src / "cache")
        link = top / "link"
        link.symlink_to(target)
        stop = threading.Event()

        def swap() -> None:
            while not stop.is_set():
                with contextlib.suppress(OSError):
                    (src / "cache").rename(top / "aside")
                    link.rename(src / "cache")
                with contextlib.suppress(OSError):
                    (src / "cache").rename(link)
                    (top / "aside").rename(src / "cache")

        swapping = threading.Thread(target=swap)
        swapping.start()
        ended = set()
        try:
            for _ in tries(repetitions(20, soak=500), lambda: bool(ended & {0, 1})):
                try:
                    outcome, _ = await run.python(
                        "open('/src/cache/made', 'w')", mounts=(mount(src), EmptyMount("/src/cache"))
                    )
                    ended.add(outcome.exit_code)
                except InvalidInput:
                    ended.add("refused")
                except Exception as error:  # the kernel's error about a link
                    assert "cache" in str(error), error
                    ended.add("failed")
        finally:
            stop.set()
            swapping.join()
        assert ended & {0, 1}, "one got as far as to start"
        assert sorted(path.name for path in target.iterdir()) == ["file"]


async def test_nothing_stays_open_of_what_was_mounted(run: Runner, top: Path, src: Path) -> None:
    other = folder(top / "other")
    await said(run, "print()", mount(src), mount(other, "/other"))
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    await said(run, "print()", mount(src), mount(other, "/other"))
    await refusal(run, mount(other, "/other"), mount(top / "gone"))
    await refusal(run, mount(other, "/other"), mount(Path("/proc")))
    await refusal(run, mount(src), files={"/src/here": b""})
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208


@root_only
async def test_all_mounts_of_an_attempt_are_judged(run: Runner, top: Path, src: Path) -> None:
    """All mounts are checked, even after earlier ones were found to be harmless."""
    place, other = folder(src / "proc"), folder(top / "other")
    assert os.system(f"mount -t proc proc {place}") == 0
    try:
        for paths in (("/a", "/b"), ("/b", "/a")):
            message = await refusal(run, mount(other, paths[0]), mount(src, paths[1]))
            assert "never mounted" in message
            assert str(src) in message
    finally:
        os.system(f"umount {place}")
