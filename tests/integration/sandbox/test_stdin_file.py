"""Tests standard input from a file of a volume: the program receives the bytes of the file that was found, and no
rights on it.

`test_ordinary_user` runs these as one, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from parts import require
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.process import ProcessBackend
from remit.errors import InvalidInput, OutcomeUnknown
from remit.sandbox import Host, HostMount, Identities, Layer, Limits, open_stdin_file
from support import repetitions

from .conftest import Collected, Runner
from .test_bare import without_namespaces

IS_ROOT = os.geteuid() == 0
OWNER = 43210 if IS_ROOT else os.geteuid()
STRANGER = 43211
ATTEMPTS = Identities(2_000_000, 1000) if IS_ROOT else None
MIB = 1 << 20
Running = asyncio.Task[tuple[Outcome, Collected]]
_EXCHANGE = 2
_AT_FDCWD = -100
root_only = pytest.mark.skipif(not IS_ROOT, reason="only root can make it so")
DIGEST = """
import hashlib, sys
digest, size = hashlib.sha256(), 0
while piece := sys.stdin.buffer.read1():
    digest.update(piece); size += len(piece)
print(size, digest.hexdigest())
"""


@pytest.fixture
def run(host: Host) -> Runner:
    return Runner(ProcessBackend(host))


@pytest.fixture
def src() -> Iterator[Path]:
    """Provides a user's folder inside a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="remit-stdin-") as name:
        top = Path(name).resolve()
        top.chmod(0o755)
        folder = top / "src"
        folder.mkdir(mode=0o700)
        own(folder)
        yield folder


def own(path: Path, owner: int = OWNER, group: int | None = None) -> Path:
    if IS_ROOT:
        os.chown(path, owner, owner if group is None else group, follow_symlinks=False)
    return path


def written(path: Path, content: bytes = b"of the file", owner: int = OWNER, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return own(path, owner)


def of(volume: Path, path: str = "file", **more: object) -> HostMount:
    return HostMount("", str(volume), str(volume), path, **more)


def read(file: HostMount, protected: tuple[str, ...] = ()) -> bytes:
    """Returns what the operator itself would read."""
    with os.fdopen(open_stdin_file(file, ATTEMPTS, protected), "rb") as found:
        return found.read()


def refusal(file: HostMount, protected: tuple[str, ...] = ()) -> str:
    with pytest.raises(InvalidInput) as caught:
        read(file, protected)
    assert str(caught.value).startswith("spec.stdinFrom.volume: ")
    return str(caught.value)


async def no_thread_is_left() -> None:
    async with asyncio.timeout(60):
        while any(thread.name == "stdin" for thread in threading.enumerate()):
            await asyncio.sleep(0.01)


def descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


# What is read.


async def test_the_program_reads_the_file_and_an_end(run: Runner, src: Path) -> None:
    written(src / "file")
    outcome, out = await run("/usr/bin/cat", stdin_file=of(src))
    assert (outcome.exit_code, out.stdout) == (0, b"of the file"), (outcome, out.stderr)
    await no_thread_is_left()
    assert not [name for name in descriptors() if name.startswith(str(src))]


async def test_a_volume_that_is_itself_a_file(run: Runner, src: Path) -> None:
    written(src / "file")
    _, out = await run("/usr/bin/cat", stdin_file=of(src / "file", ""))
    assert out.stdout == b"of the file"


async def test_an_empty_file_and_a_program_that_opens_dev_stdin(run: Runner, src: Path) -> None:
    written(src / "file", b"")
    outcome, out = await run("/usr/bin/cat", "/dev/stdin", stdin_file=of(src))
    assert (outcome.exit_code, out.stdout) == (0, b""), out.stderr
    written(src / "file", b"again")
    _, out = await run("/usr/bin/cat", "/dev/stdin", stdin_file=of(src))
    assert out.stdout == b"again", out.stderr


async def test_without_namespaces(host: Host, src: Path) -> None:
    require("landlock", host.bare, host.abilities[Layer.LANDLOCK].detail)
    bare = Runner(ProcessBackend(without_namespaces(host)), Limits())
    written(src / "file")
    needed = frozenset({Layer.LANDLOCK})
    outcome, out = await bare("/usr/bin/cat", stdin_file=of(src), require=needed)
    assert (outcome.exit_code, out.stdout) == (0, b"of the file"), (outcome, out.stderr)


async def test_two_attempts_of_one_file_have_positions_of_their_own(run: Runner, src: Path) -> None:
    content = os.urandom(2 * MIB)
    written(src / "file", content)
    wanted = f"{len(content)} {hashlib.sha256(content).hexdigest()}\n".encode()
    told = await asyncio.gather(*(run.python(DIGEST, stdin_file=of(src)) for _ in range(2)))
    assert [out.stdout for _, out in told] == [wanted, wanted]


# Which file: no link leads out, nothing but regular files, and what was judged is what is read.


def test_links_stay_within_the_volume(src: Path) -> None:
    secret = written(src.parent / "secret", b"not yours", mode=0o644)
    written(src / "file")
    for target in (str(secret), "../secret", "/proc/self/environ"):
        own_link(src / "out", target)
        assert "leads out of" in refusal(of(src, "out"))
        (src / "out").unlink()
    own_link(src / "folder", "..")
    assert "leads out of" in refusal(of(src, "folder/secret"))
    own_link(src / "in", "file")
    assert read(of(src, "in")) == b"of the file"


def own_link(path: Path, target: str) -> None:
    path.symlink_to(target)
    own(path)


def test_only_regular_files_and_nothing_is_opened_to_find_out(src: Path) -> None:
    os.mkfifo(src / "pipe")
    (src / "folder").mkdir()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(src / "socket"))
        made = {"pipe": "a pipe", "folder": "a directory", "socket": "a socket"}
        if IS_ROOT:
            os.mknod(src / "device", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
            made["device"] = "a device"
        for name in made:
            own(src / name)
        # A process that waits for a reader of the pipe would continue if the pipe were opened.
        waiting = subprocess.Popen(["/bin/sh", "-c", "echo woken > pipe"], cwd=src, stderr=subprocess.DEVNULL)
        try:
            for name, kind in made.items():
                assert f"{name} is {kind}" in refusal(of(src, name))
            assert waiting.poll() is None
        finally:
            waiting.kill()
            waiting.wait()
    assert "is a directory" in refusal(of(src, ""))
    assert "is not there" in refusal(of(src, "missing"))
    written(src / "file")
    assert "is not there" in refusal(of(src, "file/below"))


def test_a_name_that_is_swapped_all_the_time_gives_nothing_else(src: Path) -> None:
    """The name is in turns a file, a link out of the volume, a pipe and a link in place of a folder: only the file is
    read, or the read is refused."""
    written(src.parent / "secret", b"not yours", mode=0o644)
    (src / "a").mkdir()
    own(src / "a")
    written(src / "a" / "file")
    (src / "other").mkdir()
    own(src / "other")
    own_link(src / "other" / "file", "../../secret")
    own_link(src / "outside", "../..")
    libc, over = ctypes.CDLL(None, use_errno=True), threading.Event()

    def swap() -> None:
        while not over.is_set():
            for name in (b"other", b"outside"):
                there, here = os.fsencode(src / "a"), os.fsencode(src) + b"/" + name
                libc.renameat2(_AT_FDCWD, there, _AT_FDCWD, here, _EXCHANGE)

    swapping = threading.Thread(target=swap)
    swapping.start()
    found = set()
    try:
        for _ in range(repetitions(300, 20_000)):
            try:
                found.add(read(of(src, "a/file")))
            except InvalidInput as error:
                found.add(str(error))
    finally:
        over.set()
        swapping.join()
    assert b"not yours" not in found
    assert b"of the file" in found


async def test_what_is_swapped_after_the_start_makes_no_difference(run: Runner, src: Path) -> None:
    """The program reads what was found, even if the name refers to another file later."""
    content = os.urandom(MIB)
    written(src / "file", content)
    started = asyncio.Event()
    cancel = asyncio.Event()
    source = "import sys; sys.stdout.write('x'); sys.stdout.flush()\n" + DIGEST
    sink = Collected()
    running = asyncio.create_task(
        run.python(source, stdin_file=of(src), cancel=cancel, sink=sink, on_started=lambda _: started.set())
    )
    await started.wait()
    written(src / "new", b"another").rename(src / "file")
    await running
    assert sink.stdout == f"x{len(content)} {hashlib.sha256(content).hexdigest()}\n".encode()


def test_the_operators_own_files_are_never_read(src: Path) -> None:
    (src / "state").mkdir()
    own(src / "state")
    written(src / "state" / "key")
    assert "never mounted" in refusal(of(src, "state/key"), (str(src / "state"),))
    assert "never mounted" in refusal(of(src / "state", "key"), (str(src / "state"),))
    assert "never mounted" in refusal(of(src / "state" / "key", ""), (str(src / "state"),))
    assert "never mounted" in refusal(HostMount("", "/proc", "/proc", "version"))


@root_only
def test_it_is_read_as_the_owner_of_the_volume(src: Path) -> None:
    """A file that a task with the mounted volume could not read, also because of a folder, is not read for it. The
    operator's own groups have no effect."""
    written(src / "roots", owner=0)
    written(src / "strangers", owner=STRANGER)
    os.link(written(src.parent / "elsewhere", owner=STRANGER), src / "hard")
    (src / "closed").mkdir()
    written(src / "closed" / "file", mode=0o644)
    (src / "closed").chmod(0o750)  # owned by root and its group
    written(src / "of-roots-group", mode=0o640)
    os.chown(src / "of-roots-group", STRANGER, 0)
    groups = os.getgroups()
    os.setgroups([0, STRANGER])
    try:
        for path in ("roots", "strangers", "hard", "closed/file", "of-roots-group"):
            assert "may not be read by" in refusal(of(src, path)), path
        own(written(src / "shared", owner=STRANGER, mode=0o640), STRANGER, OWNER)
        assert read(of(src, "shared")) == b"of the file"
        assert os.getgroups() == [0, STRANGER]
    finally:
        os.setgroups(groups)
    written(src.parent / "open", owner=STRANGER, mode=0o644)
    os.chown(src.parent, 0, 0)
    assert read(of(src.parent, "open")) == b"of the file", "anybody may, so nobody may"
    assert "may not be read" in refusal(of(src.parent, "elsewhere"))


@root_only
def test_the_user_that_a_policy_asks_for(src: Path) -> None:
    src.chmod(0o711)
    written(src / "file", owner=STRANGER)
    assert "may not be read" in refusal(of(src))
    assert read(of(src, run_as_user=STRANGER)) == b"of the file"
    assert "runAsUser: 0" in refusal(of(src, run_as_user=0))


@root_only
async def test_the_program_has_no_rights_on_the_file(run: Runner, src: Path) -> None:
    """The program receives the bytes, and none of the owner's rights."""
    written(src / "file")
    source = "import sys; sys.stdin.read(); print(open('/proc/self/uid_map').read().split()[1])"
    _, out = await run.python(source, stdin_file=of(src))
    assert int(out.stdout) != OWNER


# What the descriptor gives away: nothing.

MISCHIEF = """
import fcntl, os, stat, sys
def tried(what, attempt):
    try:
        attempt(); print(what, 'done')
    except (OSError, PermissionError) as error:
        print(what, type(error).__name__)
print(stat.S_IFMT(os.fstat(0).st_mode) == stat.S_IFIFO, os.readlink('/proc/self/fd/0').split(':')[0])
tried('rewind', lambda: os.lseek(0, 0, 0))
tried('truncate', lambda: os.ftruncate(0, 0))
tried('times', lambda: os.utime('/proc/self/fd/0', (0, 0)))
tried('mode', lambda: os.fchmod(0, 0o777))
tried('write', lambda: os.write(os.open('/proc/self/fd/0', os.O_RDWR | os.O_NONBLOCK), b'mischief'))
tried('lock', lambda: fcntl.flock(0, fcntl.LOCK_EX | fcntl.LOCK_NB))
tried('up', lambda: os.open('..', os.O_RDONLY, dir_fd=0))
"""


async def test_no_mischief_reaches_the_file(run: Runner, src: Path) -> None:
    """The owner could do all this to the file with a descriptor of it, but the policy only allows the task to read
    it."""
    file = written(src / "file", b"of the file", mode=0o666)
    before = file.stat()
    own_mount = HostMount("/src", str(src), str(src))  # so that, if the operator is root, it also runs as the owner
    outcome, out = await run.python(MISCHIEF, stdin_file=of(src), mounts=(own_mount,))
    assert outcome.exit_code == 0, out.stderr
    assert out.stdout.decode().splitlines()[0] == "True pipe"
    after = file.stat()
    assert file.read_bytes() == b"of the file"
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)
    with file.open("rb") as whole:
        fcntl.flock(whole, fcntl.LOCK_EX | fcntl.LOCK_NB)


# Files that change, and programs that do not read.

WAITING = """
import sys
sys.stdin.buffer.read(1); print('begun', flush=True)
{rest}
"""


async def begun(sink: Collected) -> None:
    async with asyncio.timeout(30):
        while b"begun" not in sink.stdout:
            sink.seen.clear()
            await sink.seen.wait()


async def running(run: Runner, source: str, **more: object) -> tuple[Running, Collected]:
    """Starts a program that has read the first byte."""
    sink = Collected()
    task = asyncio.create_task(run.python(WAITING.format(rest=source), sink=sink, **more))
    waiting = asyncio.create_task(begun(sink))
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    assert b"begun" in sink.stdout, (sink, task)
    return task, sink


COUNT_WHEN_TOLD = """
import os, time
while not os.path.exists('/src/go'): time.sleep(0.01)
print(1 + len(sys.stdin.buffer.read()))
"""


async def test_what_is_appended_is_not_part_of_it(run: Runner, src: Path) -> None:
    """Otherwise a log that grows as fast as it is read would never end."""
    written(src / "file", bytes(4 * MIB))
    mounts = (HostMount("/src", str(src), str(src)),)
    task, sink = await running(run, COUNT_WHEN_TOLD, stdin_file=of(src), mounts=mounts)
    with (src / "file").open("ab") as file:
        file.write(bytes(MIB))
    (src / "go").touch()
    await task
    assert sink.stdout.split() == [b"begun", str(4 * MIB).encode()]


async def test_a_file_that_becomes_shorter_fails_and_shows_no_end(run: Runner, src: Path) -> None:
    """Half of a dump must not be taken for a complete one."""
    written(src / "file", bytes(4 * MIB))
    mounts = (HostMount("/src", str(src), str(src)),)
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{COUNT_WHEN_TOLD}"
    task, sink = await running(run, deaf, stdin_file=of(src), mounts=mounts)
    os.truncate(src / "file", 16)
    (src / "go").touch()
    with pytest.raises(OutcomeUnknown, match=r"file became shorter while it was read, by \d+ bytes; .* before"):
        await task
    assert sink.stdout.split() == [b"begun"]
    await no_thread_is_left()


async def test_a_program_that_wants_no_more_of_it(run: Runner, src: Path) -> None:
    written(src / "file", b"first\n" + bytes(8 * MIB))
    outcome, out = await run("/usr/bin/head", "-n1", stdin_file=of(src))
    assert (outcome.reason, out.stdout) == (ExitReason.COMPLETED, b"first\n")
    await no_thread_is_left()


async def test_a_program_that_never_reads_and_is_cancelled(run: Runner, src: Path) -> None:
    written(src / "file", bytes(8 * MIB))
    cancel = asyncio.Event()
    task, _ = await running(run, "import time; time.sleep(600)", stdin_file=of(src), cancel=cancel)
    cancel.set()
    outcome, _ = await task
    assert outcome.reason == ExitReason.CANCELLED
    await no_thread_is_left()


async def test_one_that_passes_its_input_on_leaves_nothing_waiting(run: Runner, src: Path) -> None:
    """A reading end that an outside process holds must not keep a thread."""
    written(src / "file", bytes(8 * MIB))
    src.chmod(0o777)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as keeper:
        keeper.bind(str(src / "keeper"))
        (src / "keeper").chmod(0o777)
        source = (
            "import array, socket; s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM);"
            "s.connect('/src/keeper'); socket.send_fds(s, [b'x'], [0])"
        )
        outcome, out = await run.python(source, stdin_file=of(src), mounts=(HostMount("/src", str(src), str(src)),))
        assert outcome.exit_code == 0, out.stderr
        _, kept, *_ = socket.recv_fds(keeper, 1, 1)
        await no_thread_is_left()
        for descriptor in kept:
            os.close(descriptor)


async def test_a_refusal_is_before_anything_runs(run: Runner, src: Path) -> None:
    started: list[object] = []
    before = descriptors()
    with pytest.raises(InvalidInput, match="is not there"):
        await run("/usr/bin/true", stdin_file=of(src, "missing"), on_started=started.append)
    assert started == []
    assert descriptors() <= before | {"pipe"}


# Size.

GROWTH = """
import asyncio, os, resource, sys
from pathlib import Path
sys.path[:0] = {path!r}
from integration.sandbox.test_stdin_file import *
from remit.sandbox import probe_host
async def main():
    run = Runner(ProcessBackend(probe_host()))
    src = Path({src!r})
    await run("/usr/bin/wc", "-c", stdin_file=of(src, "small"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome, out = await run.python(DIGEST, stdin_file=of(src), timeout=120)
    print(out.stdout.split()[0].decode(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
asyncio.run(main())
"""


async def test_a_large_file_is_never_in_memory(run: Runner, src: Path) -> None:
    """Runs in a separate process, whose peak memory is known."""
    size = 200 * MIB
    written(src / "small", b"x")
    written(src / "file", b"")
    os.truncate(src / "file", size)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        GROWTH.format(path=[*sys.path, str(Path(__file__).parents[2])], src=str(src)),
        stdout=asyncio.subprocess.PIPE,
    )
    told, _ = await child.communicate()
    read_bytes, grown = (int(word) for word in told.split())
    assert read_bytes == size
    assert grown * 1024 < 8 * MIB, f"{grown} KiB"
