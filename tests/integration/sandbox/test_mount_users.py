"""Tests file ownership: attempts of an operator that is root own what they have mounted, and do not affect other files
and processes of that owner."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from remit.backends.base import Handle
from remit.backends.blocking import in_thread
from remit.backends.process import ProcessBackend
from remit.errors import BackendError, OutcomeUnknown
from remit.sandbox import EmptyMount, Host, Limits
from support import wait_until

from .conftest import Runner, without_cgroups
from .test_mounts import OWNER, folder, mount, own, refusal, said, top, writable

__all__ = ["top"]

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the attempts of an ordinary operator are its own user")
WHO = "import os; print(os.stat('/proc/self').st_uid)"


@pytest.fixture
def run(host: Host) -> Runner:
    return Runner(ProcessBackend(host))


@pytest.fixture
def theirs() -> Iterator[subprocess.Popen[bytes]]:
    """Starts twenty processes of the owner that do not belong to Remit."""
    program = (
        "import os, time\nfor _ in range(19):\n    if os.fork() == 0: break\nprint('up', flush=True)\ntime.sleep(3600)"
    )
    started = subprocess.Popen(
        ["/usr/bin/python3", "-c", program], stdout=subprocess.PIPE, user=OWNER, group=OWNER, start_new_session=True
    )
    assert started.stdout is not None
    for _ in range(20):
        started.stdout.readline()
    yield started
    os.killpg(started.pid, 9)
    started.wait()
    started.stdout.close()


@root_only
async def test_a_private_repository_is_read_by_its_owner_alone(run: Runner, top: Path) -> None:
    home = folder(top / "home")
    src = folder(home / "src", {"key": "private"})
    (src / "key").chmod(0o600)
    assert await said(run, "print(open('/src/key').read())", mount(src)) == ["private"]
    assert await said(run, "print(open('/src/key').read())", mount(src), mount("/etc/ssl", "/ssl")) == ["private"]
    other = folder(top / "other", owner=OWNER + 1)
    outcome, out = await run.python("open('/src/key')", mounts=(mount(src), mount(other, "/other")))
    assert outcome.exit_code == 1
    assert b"Permission denied" in out.stderr, "of two owners it is neither"


@root_only
async def test_folders_of_root_are_read_like_by_any_user_and_not_written(run: Runner, top: Path) -> None:
    src = folder(top / "src", {"public": "yes", "key": "no"}, owner=0)
    src.chmod(0o755)
    (src / "key").chmod(0o600)
    assert await said(run, "print(open('/src/public').read())", mount(src)) == ["yes"]
    _, out = await run.python("open('/src/key')", mounts=(mount(src),))
    assert b"Permission denied" in out.stderr
    assert "no task runs as root" in await refusal(run, writable(src))
    src.chmod(0o777)
    await said(run, "open('/src/made', 'w')", writable(src, run_as_user=OWNER))
    assert (src / "made").stat().st_uid == OWNER


@root_only
async def test_no_group_of_roots_comes_along(run: Runner, top: Path) -> None:
    src = folder(top / "src", {"roots": "canary"})
    os.chown(src, OWNER, 0)
    os.chown(src / "roots", 0, 0)
    (src / "roots").chmod(0o640)
    _, out = await run.python("open('/src/roots')", mounts=(writable(src),))
    assert b"Permission denied" in out.stderr
    await said(run, "open('/src/made', 'w')", writable(src))
    assert (src / "made").stat().st_gid == OWNER


def other_tree(path: Path) -> Path:
    """Creates a workspace in which another task has left hostile files."""
    tree = folder(path, {"file": "kept"}, owner=OWNER + 1)
    folder(tree / "deep", {"private": "kept"}, owner=OWNER + 1)
    (tree / "deep" / "private").chmod(0o600)
    (tree / "out").symlink_to("/etc/passwd")
    here = tree
    for _ in range(300):
        here = here / ("d" * 200)
        try:
            here.mkdir(mode=0o700)
        except OSError:
            break
    return tree


@root_only
async def test_the_folders_that_are_remits_change_hands(run: Runner, top: Path) -> None:
    passwd = Path("/etc/passwd").stat()
    tree = other_tree(top / "cache")
    cache = writable(tree, "/cache", own=True, internal=True)
    src = folder(top / "src")
    source = """
import os
print(open('/cache/deep/private').read()); open('/cache/made', 'w').close(); open('/src/made', 'w').close()
print({os.lstat(os.path.join(d, n)).st_uid for d, ds, fs in os.walk('/cache') for n in (*ds, *fs)})
"""
    assert await said(run, source, cache, writable(src)) == ["kept", "{1000}"]
    assert {(path.lstat().st_uid, path.lstat().st_gid) for path in tree.rglob("*")} == {(OWNER, OWNER)}
    assert (src / "made").stat().st_uid == OWNER
    assert Path("/etc/passwd").stat() == passwd
    first = await said(run, WHO + "\nopen('/cache/made')", cache)
    assert first == ["1000"]
    user = tree.stat().st_uid
    assert user not in {OWNER, 0}, "nobody's, as that of any attempt"
    await said(run, "open('/cache/again', 'w')", cache)
    assert (tree / "again").stat().st_uid == tree.stat().st_uid == user, "so that nothing has to change hands each time"


@root_only
@pytest.mark.parametrize("counted", [True, False])
async def test_the_owners_other_processes_are_neither_counted_nor_harmed(
    host: Host, top: Path, theirs: subprocess.Popen[bytes], counted: bool
) -> None:
    run = Runner(ProcessBackend(host if counted else without_cgroups(host)))
    src = folder(top / "src")
    source = """
import os, subprocess
started = []
try:
    while len(started) < 40: started.append(subprocess.Popen(['/usr/bin/sleep', '60']))
except OSError as error: print(error.strerror, len(started))
try: os.kill(-1, 9)
except OSError as error: print(error.strerror)
"""
    handles: list[Handle] = []
    limits = Limits(pids=8, memory_bytes=256 << 20, disk_bytes=1 << 20)
    _, out = await run.python(source, mounts=(writable(src),), limits=limits, on_started=handles.append)
    told = {f"Resource temporarily unavailable {number}" for number in (7, 8)}
    assert out.stdout.decode().splitlines()[0] in told, "bubblewrap's monitor is counted where a cgroup counts"
    assert not await run.backend.recover(handles[-1])
    alive = [pid for pid in Path("/proc").iterdir() if pid.name.isdigit() and _session(pid) == theirs.pid]
    assert len(alive) == 20


def _session(pid: Path) -> int:
    try:
        return os.getsid(int(pid.name))
    except ProcessLookupError:
        return 0


async def test_artifacts_are_read_from_mounted_folders(run: Runner, top: Path) -> None:
    src = folder(top / "src", {"file": "mine"})
    secret = folder(top / "secret", {"token": "canary"})
    (src / "out").symlink_to(secret)
    own(src / "out")
    found: dict[str, bytes] = {}

    def collect(tree, outcome):
        for pattern in ("/src/**", "/src/out/token", "/data/*", "/workspace/*"):
            for each in tree.find(pattern):
                with each.open() as file:
                    found[f"{pattern} {each.path}"] = file.read()
        return outcome

    source = "open('/data/made', 'w').write('data'); open('/src/made', 'w').write('src'); open('x', 'w').write('x')"
    await said(run, source, writable(src), EmptyMount("/data"), collector=collect)
    assert found == {"/src/** file": b"mine", "/src/** made": b"src", "/data/* made": b"data", "/workspace/* x": b"x"}


async def test_a_filesystem_that_never_answers_does_not_delay_others() -> None:
    undone: list[int] = []
    answer, asked = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    pipe, end = os.pipe()

    def hang() -> int:
        loop.call_soon_threadsafe(asked.set)
        os.read(pipe, 1)
        return 7

    def undo(result: int) -> None:
        undone.append(result)
        loop.call_soon_threadsafe(answer.set)

    with pytest.raises(TimeoutError):
        await in_thread(hang, 0.01, undo)
    os.write(end, b"1")
    await asyncio.wait_for(answer.wait(), 30)
    assert undone == [7]
    asked.clear()
    waiting = asyncio.create_task(in_thread(hang, 60, undo))
    await asyncio.wait_for(asked.wait(), 30)
    waiting.cancel()
    answer.clear()
    os.write(end, b"1")
    await asyncio.wait_for(answer.wait(), 30)
    assert undone == [7, 7]
    with pytest.raises(ValueError, match="said"):
        await in_thread(lambda: int("said"), 60, undo)
    os.close(pipe)
    os.close(end)


async def test_an_answer_to_a_cancelled_caller_is_not_lost() -> None:
    undone: list[int] = []
    loop = asyncio.get_running_loop()
    waiting: asyncio.Task[int] = loop.create_task(in_thread(lambda: 7, 60, undone.append))
    delivered = asyncio.Event()
    call_soon = loop.call_soon_threadsafe

    def cancel_at_once(news: Callable[..., object], *arguments: object) -> asyncio.Handle:
        def both() -> None:
            news(*arguments)
            waiting.cancel()
            delivered.set()

        return call_soon(both)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_soon_threadsafe", cancel_at_once)
        await asyncio.wait_for(delivered.wait(), 30)
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    assert undone == [7]


@root_only
async def test_folders_change_hands_by_descriptors_that_stay_theirs(
    run: Runner, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a descriptor that is closed meanwhile may refer to another folder when the owner is changed."""
    cache = folder(top / "cache", owner=0)
    began, go, ended = threading.Event(), threading.Event(), threading.Event()
    stayed: list[bool] = []

    def slowly(descriptor: int, uid: int, gid: int) -> None:
        before = os.fstat(descriptor)
        began.set()
        go.wait(60)
        with contextlib.suppress(OSError):
            stayed.append(os.path.samestat(before, os.fstat(descriptor)))
        ended.set()

    monkeypatch.setattr("remit.sandbox.mounts.give", slowly)
    attempt = asyncio.create_task(said(run, "pass", writable(cache, "/cache", own=True, internal=True)))
    await asyncio.to_thread(began.wait, 60)
    attempt.cancel()
    await asyncio.wait({attempt}, timeout=60)
    go.set()
    await asyncio.to_thread(ended.wait, 60)
    assert stayed == [True]


async def test_an_init_that_dies_before_its_processes_are_limited(
    host: Host, top: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bubblewrap may fail before the command is executed, and it is then known that the command did not run."""
    prlimit, killed = resource.prlimit, []

    def late(pid: int, which: int, limits: tuple[int, int]) -> tuple[int, int]:
        killed.append(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not Path(f"/proc/{pid}").exists(), "its end")
        return prlimit(pid, which, limits)

    monkeypatch.setattr(resource, "prlimit", late)
    run = Runner(ProcessBackend(without_cgroups(host)))
    with pytest.raises(BackendError, match="bubblewrap ended with 137") as raised:
        await run.python("print('it ran')", mounts=[mount(folder(top / "src"))])
    assert len(killed) == 1
    assert not isinstance(raised.value, OutcomeUnknown)
