"""Tests how attempts end: the whole process tree is dead, the reason is correct, and nothing remains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from outside import oom_scores, until_processes
from remit.backends import child
from remit.backends.base import Handle
from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import BackendError
from remit.sandbox import Limits, boot_id, fork_server, start_time
from support import wait_until

# Each program leaves a descendant that tries to outlive the attempt. `{mark}` is an argument that the test searches
# for.
SURVIVORS = {
    "double fork": """
        if os.fork() == 0:
            if os.fork() == 0: linger()
            os._exit(0)
    """,
    "setsid": """
        if os.fork() == 0:
            os.setsid(); linger()
    """,
    "ignores TERM": """
        if os.fork() == 0:
            for n in (1, 2, 3, 15): signal.signal(n, signal.SIG_IGN)
            linger()
    """,
    "stopped": """
        child = os.fork()
        if child == 0: linger()
        os.kill(child, signal.SIGSTOP)
    """,
    "forks on and on": """
        if os.fork() == 0:
            os.setsid()
            while True:
                with contextlib.suppress(OSError):
                    if os.fork() == 0: time.sleep(0.05); os._exit(0)
    """,
}


def program(body: str, then: str) -> str:
    head = "import contextlib, os, signal, sys, time\ndef linger():\n    while True: time.sleep(60)\n"
    return head + textwrap.dedent(body) + "\nprint('ready', flush=True)\n" + then + "\n"


def alive(mark: str) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if mark.encode() in path.read_bytes():
                found.append(int(path.parent.name))
    return found


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid4()}"


async def overdue(run, *argv, grace):
    """Returns the outcome of an attempt that is ready before its timeout. On a busy machine it gets more time."""
    for seconds in (1, 5, 25):
        outcome, out = await run("/usr/bin/python3", "-c", *argv, timeout=seconds, grace=grace)
        assert outcome.reason is ExitReason.TIMED_OUT
        if out.stdout:
            break
    return outcome, out


@pytest.mark.parametrize("body", SURVIVORS.values(), ids=SURVIVORS.keys())
async def test_nothing_outlives_an_attempt_that_takes_too_long(run, mark, body):
    _, out = await overdue(run, program(body, "linger()"), mark, grace=0.1)
    assert alive(mark) == []
    assert out.stdout == b"ready\n"


@pytest.mark.parametrize("body", SURVIVORS.values(), ids=SURVIVORS.keys())
async def test_nothing_outlives_an_attempt_that_exits(run, mark, body):
    outcome, out = await run("/usr/bin/python3", "-c", program(body, "sys.exit(0)"), mark, grace=0.1)
    assert alive(mark) == []
    assert out.stdout == b"ready\n"
    assert (outcome.reason, outcome.exit_code) == (ExitReason.COMPLETED, 0)


async def test_a_background_child_that_holds_stdout_does_not_hang_completion(run, mark):
    source = program("if os.fork() == 0:\n    os.setsid()\n    linger()", "print('done')")
    outcome, out = await run("/usr/bin/python3", "-c", source, mark, timeout=60)
    assert outcome.reason is ExitReason.COMPLETED
    assert out.stdout == b"ready\ndone\n"
    assert outcome.usage.wall_seconds < 30


async def test_the_command_receives_sigterm_and_may_end_in_order(run):
    source = "signal.signal(15, lambda *_: (print('saved', flush=True), sys.exit(3)))"
    outcome, out = await overdue(run, program(source, "linger()"), grace=60)
    assert outcome.exit_code == 3
    assert out.stdout == b"ready\nsaved\n"


async def test_a_stopped_command_receives_sigterm(run):
    source = "signal.signal(15, lambda *_: sys.exit(3))"
    outcome, _ = await overdue(run, program(source, "os.kill(os.getpid(), signal.SIGSTOP); linger()"), grace=60)
    assert outcome.exit_code == 3


async def test_one_that_ignores_term_is_killed_after_the_grace(run):
    outcome, _ = await run.python(program("signal.signal(15, signal.SIG_IGN)", "linger()"), timeout=0.5, grace=0.3)
    assert outcome.reason is ExitReason.TIMED_OUT
    assert outcome.usage.wall_seconds >= 0.8
    assert "0.5 s" in outcome.message


async def test_cancel_while_it_runs(run, mark):
    cancel, sink = asyncio.Event(), run.sink()
    running = asyncio.create_task(
        run("/usr/bin/python3", "-c", program("", "linger()"), mark, cancel=cancel, sink=sink)
    )
    await asyncio.wait_for(sink.seen.wait(), 30)
    cancel.set()
    outcome, _ = await running
    assert outcome.reason is ExitReason.CANCELLED
    assert alive(mark) == []
    assert sink.stdout == b"ready\n"


async def test_cancel_before_it_runs(run):
    cancel = asyncio.Event()
    cancel.set()
    outcome, out = await run.python("print('ran')", cancel=cancel)
    assert outcome.reason is ExitReason.CANCELLED
    assert out.stdout == b""


async def test_a_cancelled_coroutine_leaves_nothing(run, mark):
    sink = run.sink()
    running = asyncio.create_task(run("/usr/bin/python3", "-c", program("", "linger()"), mark, sink=sink))
    await asyncio.wait_for(sink.seen.wait(), 30)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert alive(mark) == []


@pytest.mark.parametrize("code", [0, 1, 42, 127, 126])
async def test_exit_codes_are_the_commands_own(run, code):
    outcome, _ = await run.python(f"import sys; sys.exit({code})")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE if code else ExitReason.COMPLETED, code)


async def test_a_signal_is_reported(run):
    outcome, _ = await run.python("import os; os.kill(os.getpid(), 11)")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.SIGNALED, 139)
    assert "SIGSEGV" in outcome.message


@pytest.mark.parametrize(
    ("argv", "options", "says"),
    [
        (("/usr/bin/no-such-program",), {}, "No such file or directory"),
        (("/etc/passwd",), {}, "Permission denied"),
        (("/usr/bin/true",), {"working_dir": "/nowhere"}, "/nowhere"),
        (("/usr/bin/true",), {"working_dir": "/workspace/a"}, "/workspace/a: No such file or directory"),
        (("/usr/bin/true",), {"working_dir": "/tmp/a"}, "/tmp/a: No such file or directory"),
    ],
)
async def test_what_could_not_be_started_is_no_exit_code(run, argv, options, says):
    outcome, _ = await run(*argv, **options)
    assert (outcome.reason, outcome.exit_code) == (ExitReason.START_FAILED, None)
    assert says in outcome.message


async def test_an_argument_list_too_long(run):
    outcome, _ = await run("/usr/bin/true", "x" * (4 << 20))
    assert outcome.reason is ExitReason.START_FAILED
    assert "longer than the kernel allows" in outcome.message


async def test_a_working_directory_is_one_that_a_private_file_is_in(run):
    outcome, out = await run("/usr/bin/pwd", working_dir="/workspace/a/b", files={"/workspace/a/b/in": b"x"})
    assert (outcome.exit_code, out.stdout) == (0, b"/workspace/a/b\n")


async def test_a_tree_that_takes_too_much_memory(run):
    outcome, _ = await run.python("a = [0] * 10**9", limits=Limits(memory_bytes=100 << 20))
    if run.backend.host.cgroups:
        assert (outcome.reason, outcome.exit_code) == (ExitReason.OOM_KILLED, 137)
        assert "bytes of memory" in outcome.message
    else:
        assert (outcome.reason, outcome.exit_code) == (ExitReason.EXIT_CODE, 1)


async def test_a_fork_bomb_is_held(run):
    outcome, out = await run.python(
        """
import os, time
count = 0
try:
    while count < 500:
        if os.fork() == 0: time.sleep(60)
        count += 1
except OSError as error: print(count, error)
""",
        limits=Limits(pids=20),
    )
    assert b"Resource temporarily unavailable" in out.stdout
    assert int(out.stdout.split()[0]) <= 20
    assert outcome.exit_code == 0


async def test_one_process_of_its_own_is_enough(run):
    outcome, _ = await run("/usr/bin/true", limits=Limits(pids=1))
    assert outcome.exit_code == 0, outcome.message


async def test_cpu_is_a_rate(run):
    if run.backend.host.cgroups is None:
        pytest.skip("no rlimit is a rate of CPU")
    outcome, _ = await run.python("while True: pass", limits=Limits(cpu_cores=0.2), timeout=2, grace=0)
    assert 0.05 < outcome.usage.cpu_seconds < 1.0


@pytest.mark.parametrize(
    ("limits", "source", "says"),
    [
        (Limits(file_bytes=1 << 20), "open('f', 'wb').write(b'x' * (2 << 20))", "File too large"),
        (Limits(open_files=16), "a = [open('/dev/null') for _ in range(32)]", "Too many open files"),
    ],
)
async def test_rlimits_hold(run, limits, source, says):
    outcome, out = await run.python(source, limits=limits)
    assert outcome.exit_code == 1
    assert says in out.stderr.decode()


async def test_usage_is_counted(run):
    source = (
        "import time\na = b'x' * (64 << 20)\nend = time.process_time() + 0.8\nwhile time.process_time() < end: pass"
    )
    outcome, _ = await run.python(source)
    assert outcome.usage.cpu_seconds > 0.4
    assert outcome.usage.max_memory_bytes > 64 << 20
    assert outcome.usage.wall_seconds >= outcome.usage.cpu_seconds / 2
    assert outcome.usage.source == ("cgroup" if run.backend.host.cgroups else "sampled")
    assert outcome.finished_at.tzinfo is not None


async def test_nothing_is_left_over(run):
    """No descriptor, cgroup or zombie remains."""
    await run("/usr/bin/true")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        await run("/usr/bin/true")
        await run("/usr/bin/no-such-program")
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    assert [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE] == []
    if tree := run.backend.host.cgroups:
        fork_server().close()  # this also ends the child that waits in a cgroup for the next attempt
        assert [path for parent in set(tree.parents.values()) for path in parent.iterdir() if path.is_dir()] == []


async def test_many_at_once(run):
    outcomes = await asyncio.gather(*(run.python(f"import sys; sys.exit({n})") for n in range(24)))
    assert [outcome.exit_code for outcome, _ in outcomes] == list(range(24))


async def test_the_handle_is_given_before_anything_runs(run):
    sink, seen = run.sink(), []

    def started(handle: Handle) -> None:
        assert sink.stdout == b""
        assert start_time(handle.pid) == handle.start_time
        assert all(Path(path).is_dir() for path in handle.cgroups)
        if handle.init:
            assert start_time(handle.init) == handle.init_start_time
            assert Path(f"/proc/{handle.init}/ns/pid").stat().st_ino == handle.pid_namespace
            assert psutil.Process(handle.init).ppid() == handle.pid
        seen.append(handle)

    await run.python("print('ran')", sink=sink, on_started=started)
    outer, both = seen
    assert (outer.init, outer.init_start_time, outer.pid_namespace) == (0, 0, 0)
    assert replace(both, init=0, init_start_time=0, pid_namespace=0) == outer
    assert both.init
    assert sink.stdout == b"ran\n"


@pytest.mark.parametrize("process", ["outer", "init"])
async def test_a_handle_that_cannot_be_recorded_stops_the_run(run, mark, process):
    def full(handle: Handle) -> None:
        if bool(handle.init) == (process == "init"):
            raise OSError(28, "No space left on device")

    sink = run.sink()
    with pytest.raises(BackendError, match="No space left"):
        await run("/usr/bin/python3", "-c", "print('ran')", mark, sink=sink, on_started=full)
    assert sink.stdout == b""
    wait_until(lambda: alive(mark) == [], "the end of the sandbox")


async def test_recover_kills_an_init_that_outlived_bubblewrap(run, mark):
    """bubblewrap's own process is dead, and the recorded init continues."""
    sink, handles = run.sink(), []
    running = asyncio.create_task(
        run("/usr/bin/python3", "-c", program("", "linger()"), mark, sink=sink, on_started=handles.append)
    )
    await asyncio.wait_for(sink.seen.wait(), 30)
    init = handles[-1].init
    gone = subprocess.Popen(["/usr/bin/true"])
    gone.wait()
    orphan = Handle(gone.pid, 0, boot_id(), (), init=init, init_start_time=handles[-1].init_start_time)
    assert await run.backend.recover(replace(orphan, init_start_time=orphan.init_start_time - 1)) is False
    assert start_time(init) == orphan.init_start_time
    assert await run.backend.recover(orphan) is True
    await running
    assert alive(mark) == []
    assert await run.backend.recover(orphan) is False


async def test_recover_finds_an_init_by_its_pid_namespace(run, mark):
    """The recorded pids may be those of another pid namespace. The inode alone is not sufficient evidence."""
    sink, handles = run.sink(), []
    running = asyncio.create_task(
        run("/usr/bin/python3", "-c", program("", "linger()"), mark, sink=sink, on_started=handles.append)
    )
    await asyncio.wait_for(sink.seen.wait(), 30)
    gone = subprocess.Popen(["/usr/bin/true"])
    gone.wait()
    elsewhere = replace(handles[-1], pid=gone.pid, init=gone.pid, cgroups=())
    assert await run.backend.recover(replace(elsewhere, init_start_time=elsewhere.init_start_time - 1)) is False
    assert len(alive(mark)) > 0
    assert await run.backend.recover(elsewhere) is True
    await running
    assert alive(mark) == []
    assert await run.backend.recover(elsewhere) is False


async def test_recover_kills_what_is_left(run, mark):
    """This is the state after a kill of the operator if the kernel's death signal did not arrive."""
    sink, handles = run.sink(), []
    running = asyncio.create_task(
        run("/usr/bin/python3", "-c", program("", "linger()"), mark, sink=sink, on_started=handles.append)
    )
    await asyncio.wait_for(sink.seen.wait(), 30)
    assert await run.backend.recover(handles[0]) is True
    outcome, _ = await running
    assert alive(mark) == []
    assert outcome.reason is ExitReason.SIGNALED
    assert await run.backend.recover(handles[0]) is False


async def test_an_attempt_ends_although_the_fork_server_hangs(run, mark, monkeypatch):
    monkeypatch.setattr(child, "TELL_SECONDS", 0.2)
    sink, cancel = run.sink(), asyncio.Event()
    running = asyncio.create_task(
        run("/usr/bin/python3", "-c", program(SURVIVORS["setsid"], "linger()"), mark, sink=sink, cancel=cancel)
    )
    await asyncio.wait_for(sink.seen.wait(), 30)
    os.kill(fork_server().pid, signal.SIGSTOP)
    cancel.set()
    with pytest.raises(BackendError, match="the fork server ended"):
        await asyncio.wait_for(running, 60)
    assert alive(mark) == []
    outcome, _ = await run("/usr/bin/true")
    assert outcome.exit_code == 0


async def test_recover_does_not_touch_other_processes(run):
    """A pid may have been reused, or be from before a reboot."""
    stranger = subprocess.Popen(["/usr/bin/sleep", "60"])
    try:
        began = start_time(stranger.pid)
        for handle in (Handle(stranger.pid, began - 1, boot_id()), Handle(stranger.pid, began, "another boot")):
            assert await run.backend.recover(handle) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


OPERATOR = """
import asyncio, sys
from remit.backends.base import AttemptRequest, Command
from remit.backends.process import ProcessBackend
from remit.sandbox import Confinement, Limits
class Sink:
    def write(self, stream, chunk): print(chunk.decode(), end="", flush=True)
request = AttemptRequest("operator-test", Command(("/usr/bin/python3", "-c", sys.argv[1], sys.argv[2]),
    "/usr/bin/python3"), Confinement(Limits(pids=16)), 600)
asyncio.run(ProcessBackend().run(request, Sink(), cancel=asyncio.Event()))
"""


async def test_an_operator_killed_takes_its_attempts_along_and_the_next_sweeps(host, mark):
    source = program(SURVIVORS["setsid"], "linger()")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    operator = subprocess.Popen([sys.executable, "-c", OPERATOR, source, mark], stdout=subprocess.PIPE, env=environment)
    with operator:
        assert await asyncio.to_thread(operator.stdout.readline) == b"ready\n"
        inside = [pid for pid in alive(mark) if pid != operator.pid]
        assert inside
        operator.send_signal(signal.SIGKILL)
    async with asyncio.timeout(30):
        while alive(mark):
            await asyncio.sleep(0.02)
    if host.cgroups is None:
        return
    folders = [parent.parent for parent in set(host.cgroups.parents.values())]
    left = [path for folder in folders for path in folder.glob(f"{operator.pid}-*")]
    assert left, "the killed operator cannot have removed its cgroups"
    subprocess.run(
        [sys.executable, "-c", "from remit.sandbox import probe_host; probe_host()"], env=environment, check=True
    )
    assert not any(path.exists() for path in left)


async def test_a_sink_that_fails_ends_the_attempt(run, mark):
    class Full:
        def write(self, stream, chunk):
            raise OSError(28, "No space left on device")

    with pytest.raises(BackendError, match="could not be stored"):
        await run("/usr/bin/python3", "-c", program("", "linger()"), mark, sink=Full())
    assert alive(mark) == []


async def test_the_default_backend_finds_the_host_by_itself(host):
    assert ProcessBackend().host is host


async def test_the_kernel_would_kill_it_for_memory_before_the_operator(run):
    """The OOM scores of bubblewrap's two processes, the command and its children are read from outside."""
    cancel, handles = asyncio.Event(), []
    running = asyncio.create_task(
        run.python("import os, time; os.fork(); time.sleep(60)", cancel=cancel, on_started=handles.append)
    )
    await until_processes(handles, 4)
    assert set(oom_scores(handles[0].pid)) == {1000}
    cancel.set()
    await running
