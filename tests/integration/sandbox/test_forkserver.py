"""Tests the fork server: children have exactly what they were given, errors are returned, and nothing remains."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import re
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from remit.backends import attempt
from remit.backends.outcome import ExitReason
from remit.errors import BackendError, LeaseLost
from remit.sandbox import Execute, ForkServer, Job, Listen, ProcessHandle, fencing, fork_server
from remit.sandbox.bubblewrap import HOST_NAME
from remit.sandbox.forkserver import client
from support import wait_until

PYTHON = "/usr/bin/python3"
SECONDS = 30


@pytest.fixture
def server() -> Iterator[ForkServer]:
    own = ForkServer()
    yield own
    own.close()


@pytest.fixture
def null() -> Iterator[int]:
    descriptor = os.open(os.devnull, os.O_RDWR)
    yield descriptor
    os.close(descriptor)


def until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.01)


def descriptors(pid: int | str = "self") -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def done(server: ForkServer, job: Job) -> client.ForkedProcess:
    process = server.begin(job)
    try:
        process.wait(SECONDS)
    finally:
        process.close()
    return process


def waiting(server: ForkServer) -> list[client.ForkedProcess]:
    """Returns the children that wait for a job, once all do. Orders do not wake the server, so the latest one may still
    be unread."""
    server._control.send(b"!")
    (spares,) = server._spares.values()
    for spare in spares:
        spare.wait(SECONDS, start=True)
    return list(spares)


def output(server: ForkServer, null: int, source: str, **options) -> bytes:
    read, write = os.pipe()
    with os.fdopen(read, "rb") as stream:
        process = server.begin(Execute([PYTHON, "-I", "-c", source], (null, write, write), **options))
        os.close(write)
        said = stream.read()
        process.wait(SECONDS)
        process.close()
    return said


def test_it_has_no_environment_and_no_open_file_of_ours(server, null):
    secret = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(secret, True)
    try:
        done(server, Execute(["/usr/bin/true"], (null, null, null)))
        links = []
        for path in Path(f"/proc/{server.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # the server closes the descriptor of the child that has ended
                links.append(str(path.readlink()))
    finally:
        os.close(secret)
    assert "/etc/hostname" not in links
    assert Path(f"/proc/{server.pid}/environ").read_bytes() == b""
    assert len(list(Path(f"/proc/{server.pid}/task").iterdir())) == 1


def test_a_program_has_the_named_descriptors_no_environment_and_the_usual_signals(server, null):
    extra = os.open("/etc/hostname", os.O_RDONLY)
    source = """
import os, re, signal
print(sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}")))
print(open("/proc/self/environ").read() == "")
print(re.findall(r"Sig(?:Blk|Ign):\\s*(\\w+)", open("/proc/self/status").read()))
"""
    fds, environ, signals = output(server, null, source, pass_fds=[extra]).decode().splitlines()
    os.close(extra)
    assert fds == str([0, 1, 2, extra])
    assert environ == "True"
    blocked, ignored = (int(mask, 16) for mask in re.findall(r"'(\w+)'", signals))
    named = sum(1 << number - 1 for number in signal.valid_signals())  # the C library reserves two signals
    assert blocked == 0
    assert ignored & named == 1 << 12 | 1 << 24  # PIPE and XFSZ: the inner Python's own


def test_a_program_receives_signals_that_the_operator_ignores(null):
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        with contextlib.closing(ForkServer()) as started:
            source = "import signal; print(signal.getsignal(signal.SIGQUIT) == signal.SIG_DFL)"
            assert output(started, null, source) == b"True\n"
    finally:
        signal.signal(signal.SIGQUIT, before)


INHERITED = """
import os, re, resource
print(oct(os.umask(0)), os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0))
print(open("/proc/self/personality").read().strip(), re.findall("SigBlk:(.*)", open("/proc/self/status").read()))
limits = resource.RLIMIT_STACK, resource.RLIMIT_CORE, resource.RLIMIT_FSIZE
print([resource.getrlimit(number)[0] for number in limits])
import ctypes
print(ctypes.CDLL(None).syscall({"x86_64": 252, "aarch64": 31}[os.uname().machine], 1, 0) >> 13)
"""
ODD = """
import ctypes, os, resource, signal, sys
ctypes.CDLL(None).syscall({"x86_64": 251, "aarch64": 30}[os.uname().machine], 1, 0, 3 << 13)  # disks when idle
os.umask(0o077)
os.nice(5)
os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD, signal.SIGUSR1})
limits = {resource.RLIMIT_STACK: 1 << 20, resource.RLIMIT_CORE: 4096, resource.RLIMIT_FSIZE: 1 << 30}
for number, soft in limits.items():
    resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
from remit.sandbox import Execute, ForkServer
server, null = ForkServer(), os.open(os.devnull, os.O_RDWR)
process = server.begin(Execute([sys.argv[1], "-I", "-c", sys.argv[2]], (null, 1, 2)))
process.wait(30)
process.close()
server.close()
"""


def test_what_is_inherited_does_not_depend_on_how_the_operator_was_started():
    """An unprivileged user cannot lower a nice value; if that is refused, the inherited value remains."""
    ran = subprocess.run(
        ["setarch", "--addr-no-randomize", sys.executable, "-c", ODD, PYTHON, INHERITED],
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert ran.stderr == ""
    nice = 0 if os.geteuid() == 0 else 5
    assert ran.stdout.splitlines() == [
        f"0o22 {nice} {os.SCHED_OTHER}",
        f"00000000 ['\\t{0:016x}']",
        str([8 << 20, 0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]]),
        "0",
    ]


def test_a_job_that_cannot_be_sent_leaves_nothing(server, null):
    done(server, Execute(["/usr/bin/true"], (null, null, null)))
    spares = {spare.pid for spare in waiting(server)}
    before = descriptors()
    with pytest.raises(UnicodeEncodeError):
        server.begin(Execute(["/usr/bin/true", "\ud800"], (null, null, null)))
    until(lambda: sum(Path(f"/proc/{pid}").exists() for pid in spares) == len(spares) - 1)
    done(server, Execute(["/usr/bin/true"], (null, null, null)))
    waiting(server)
    assert descriptors() == before


def test_descriptors_may_cross(server, null):
    """The numbers that the child needs are in use by other descriptors meanwhile."""
    pairs = [os.pipe() for _ in range(130)]
    ends = [end for pair in pairs for end in pair]
    for number, (_, write) in enumerate(pairs):
        os.write(write, b"%d" % number)
    reads = [read for read, _ in pairs]
    source = f"import os\nprint([int(os.read(fd, 9)) for fd in {reads}] == list(range(130)))"
    try:
        assert output(server, null, source, pass_fds=ends) == b"True\n"  # more descriptors than one message may carry
    finally:
        for end in ends:
            os.close(end)


def test_steps_are_taken(server, null):
    limits = {resource.RLIMIT_NOFILE: 17, resource.RLIMIT_CORE: 0}
    source = """
import os, re, resource
print(resource.getrlimit(resource.RLIMIT_NOFILE), re.findall(r"NoNewPrivs:\\s*(.)", open("/proc/self/status").read()))
print(os.getresuid(), os.getresgid(), os.getgroups(), re.findall(r"CapPrm:\\s*(.*)", open("/proc/self/status").read()))
"""
    steps = [("no_new_privileges",), ("limit", limits)]
    if os.geteuid() == 0:
        steps.insert(1, ("become", 54321, 54321))
    first, second = output(server, null, source, steps=steps).decode().splitlines()
    assert first == "(17, 17) ['1']"
    if os.geteuid() == 0:
        assert second == f"{(54321,) * 3} {(54321,) * 3} [] ['{0:016x}']"


@pytest.mark.parametrize(
    ("argv", "steps", "number"),
    [
        (["/usr/bin/no-such-program"], [], errno.ENOENT),
        (["/etc/passwd"], [], errno.EACCES),
        (["/usr/bin/true", "x" * (4 << 20)], [], errno.E2BIG),
        (["/usr/bin/true"], [("join_cgroups", ["/no/such/cgroup"], "tasks")], errno.ENOENT),
        (["/usr/bin/true"], [("limit", {resource.RLIMIT_NOFILE: 1 << 40})], errno.EPERM),
        (["/usr/bin/true"], [("no such step",)], errno.EIO),
    ],
)
def test_what_fails_before_the_program_is_an_error_with_its_number(server, null, argv, steps, number):
    if number == errno.EPERM and resource.getrlimit(resource.RLIMIT_NOFILE)[1] == resource.RLIM_INFINITY:
        pytest.skip("every limit may be set here")
    with pytest.raises(OSError, match=r".") as failed:
        done(server, Execute(argv, (null, null, null), steps=steps))
    assert failed.value.errno == number
    assert done(server, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0


@pytest.mark.parametrize("room", [0, 1], ids=["for no channel", "for no pidfd"])
def test_a_server_out_of_descriptors_reports_it(server, null, room):
    done(server, Execute(["/usr/bin/true"], (null, null, null)))
    _, hard = resource.prlimit(server.pid, resource.RLIMIT_NOFILE)
    spares = waiting(server)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (0, hard))
    for _ in spares:
        assert done(server, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0
    used = {int(path.name) for path in Path(f"/proc/{server.pid}/fd").iterdir()}
    free = next(number for number in itertools.count() if number not in used)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (free + room, hard))
    for _ in range(3):
        with pytest.raises(OSError, match="open files"):
            done(server, Execute(["/usr/bin/true"], (null, null, null)))
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (hard, hard))
    for _ in range(client.SPARES):  # processes that were forked meanwhile have that limit
        with contextlib.suppress(OSError):
            done(server, Execute(["/usr/bin/true"], (null, null, null)))
    assert done(server, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0


def test_a_child_out_of_descriptors_reports_it(server, null):
    done(server, Execute(["/usr/bin/true"], (null, null, null)))
    spare, *_ = waiting(server)
    # The streams and the channel: it has closed the descriptors that the fork inherited.
    until(lambda: descriptors(spare.pid) == 4)
    _, hard = resource.prlimit(spare.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(spare.pid, resource.RLIMIT_NOFILE, (descriptors(spare.pid), hard))
    with pytest.raises(OSError, match="open files"):
        done(server, Execute(["/usr/bin/true"], (null, null, null)))
    assert done(server, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0


def test_ends_are_reported_as_subprocess_tells_them(server, null):
    assert done(server, Execute(["/usr/bin/false"], (null, null, null))).returncode == 1
    process = server.begin(Execute(["/usr/bin/sleep", "60"], (null, null, null)))
    process.wait(SECONDS, start=True)
    with pytest.raises(TimeoutError):
        process.wait(0.01)
    process.kill()
    process.wait(SECONDS)
    assert process.returncode == -signal.SIGKILL
    process.kill()
    process.close()


def test_a_process_is_killed_when_its_channel_is_closed(server, null):
    process = server.begin(Execute(["/usr/bin/sleep", "60"], (null, null, null)))
    process.wait(SECONDS, start=True)
    with ProcessHandle(process.pid) as handle:
        process.close()
        until(lambda: handle.dead)


def test_many_starts_leave_no_descriptor_and_no_zombie(server, null):
    job = Execute(["/usr/bin/true"], (null, null, null))
    done(server, job)
    waiting(server)
    before = descriptors(), descriptors(server.pid)  # approximate, because a process may just be being forked
    for _ in range(20):
        done(server, job)
        with pytest.raises(FileNotFoundError):
            done(server, Execute(["/usr/bin/no-such-program"], (null, null, null)))
    waiting(server)
    # Each count is awaited separately, because a busy machine may take a while to settle.
    until(lambda: descriptors() <= before[0])
    until(lambda: descriptors(server.pid) < before[1] + 5)
    until(lambda: len(psutil.Process(server.pid).children()) == client.SPARES)  # a zombie would be one more


def test_orphans_are_collected(server, null):
    source = "import os\nif os.fork() == 0:\n    os.setsid()\n    os.fork()\n    os._exit(0)\n"
    output(server, null, source)
    until(lambda: len(psutil.Process(server.pid).children()) <= client.SPARES)


def test_a_spare_child_that_was_killed_is_replaced(server, null):
    job = Execute(["/usr/bin/true"], (null, null, null))
    done(server, job)
    for _ in range(5):
        for spare in waiting(server):
            spare.kill()
            select.select([spare.pidfd], [], [], SECONDS)
        assert done(server, job).returncode == 0


def test_ctrl_c_is_not_for_it(server, null):
    done(server, Execute(["/usr/bin/true"], (null, null, null)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(server.pid, number)
    assert done(server, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0
    assert os.getsid(server.pid) != os.getsid(0)


def test_many_at_once(server, null):
    jobs = [Execute(["/bin/sh", "-c", f"exit {n}"], (null, null, null)) for n in range(32)]
    processes = [server.begin(job) for job in jobs]
    for process in processes:
        process.wait(SECONDS)
        process.close()
    assert [process.returncode for process in processes] == list(range(32))


def test_a_server_that_dies_takes_its_processes_along_and_is_replaced(null, monkeypatch):
    monkeypatch.setattr(client, "_server", None)
    first = fork_server()
    assert fork_server() is first
    process = first.begin(Execute(["/usr/bin/sleep", "60"], (null, null, null)))
    process.wait(SECONDS, start=True)
    with ProcessHandle(process.pid) as handle:
        os.kill(first.pid, signal.SIGKILL)
        with pytest.raises(BrokenPipeError, match="fork server"):
            process.wait(SECONDS)
        assert process.returncode is None
        until(lambda: handle.dead)
    process.close()
    until(lambda: not first.alive)
    second = fork_server()
    assert second.pid != first.pid
    assert done(second, Execute(["/usr/bin/true"], (null, null, null))).returncode == 0
    first.close()
    second.close()


async def test_an_attempt_whose_fork_server_dies_is_an_infrastructure_failure(run, monkeypatch):
    monkeypatch.setattr(client, "_server", None)
    sink, handles, swept = run.sink(), [], []
    monkeypatch.setattr(attempt, "kill_session", lambda *session: swept.append(session))
    running = asyncio.create_task(
        run.python("import time; print(1, flush=True); time.sleep(60)", sink=sink, on_started=handles.append)
    )
    await asyncio.wait_for(sink.seen.wait(), SECONDS)
    doomed = fork_server()
    os.kill(doomed.pid, signal.SIGKILL)
    with pytest.raises(BackendError, match="fork server"):
        await running
    assert swept == [(handles[0].pid, handles[0].start_time, HOST_NAME)]
    wait_until(lambda: not doomed.alive, "the end of the fork server")
    outcome, _ = await run("/usr/bin/true")
    assert outcome.reason is ExitReason.COMPLETED
    doomed.close()
    fork_server().close()


OPERATOR = """
import os, sys
from remit.sandbox import *
null = os.open(os.devnull, os.O_RDWR)
process = fork_server().begin(Execute(["/usr/bin/sleep", "600"], (null, null, null)))
process.wait(30, start=True)
print(fork_server().pid, process.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_operator_that_is_killed_leaves_nothing(number):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [sys.executable, "-c", OPERATOR], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as operator:
        started = [int(word) for word in operator.stdout.readline().split()]
        handles = [ProcessHandle(pid) for pid in started]
        handles += [ProcessHandle(child.pid) for child in psutil.Process(started[0]).children()]
        operator.send_signal(number)
    assert len(handles) >= 2
    for handle in handles:
        with handle:
            assert select.select([handle.descriptor], [], [], SECONDS)[0]


def test_nothing_is_opened_in_the_operators_own_network(server: ForkServer) -> None:
    """A process in the operator's own network namespace is not a sandbox, whatever pid the request names."""
    with pytest.raises(PermissionError, match="no network of its own"):
        done(server, Listen(os.getpid(), 0, owned=False))


SURVIVORS = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
print(os.getpid(), flush=True)
time.sleep(600)
"""
STOPPED = f"""
import os, signal, sys
from remit.sandbox import Execute, extend_deadline, fork_server
from remit.sandbox.fencing import now
null = os.open(os.devnull, os.O_RDWR)
process = fork_server().begin(Execute([{PYTHON!r}, "-I", "-c", {SURVIVORS!r}], (null, 1, null)))
process.wait(30, start=True)
extend_deadline(now() + float(sys.argv[1]))
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGSTOP)
"""


def test_at_the_deadline_everything_dies_also_of_a_stopped_process() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPED, "2"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdin
    assert process.stdout
    with process.stdin, process.stdout:
        started = [psutil.Process(int(process.stdout.readline())) for _ in range(2)]
        process.stdin.write(b"stop\n")
        process.stdin.flush()
        assert process.wait(SECONDS) == -signal.SIGKILL
        psutil.wait_procs(started, SECONDS)
        assert not [each for each in started if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


def test_one_that_hangs_cannot_say_that_everything_is_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_LAST_SECONDS", 0.1)
    hangs, answers = ForkServer(), ForkServer()
    os.kill(hangs.pid, signal.SIGSTOP)
    assert not hangs.close()
    monkeypatch.setattr(client, "_LAST_SECONDS", SECONDS)
    assert answers.close()


def test_a_later_deadline_replaces_the_one_before(server: ForkServer, null: int) -> None:
    first = fencing.now() + 0.2
    server.set_deadline(first)
    server.set_deadline(fencing.now() + 600)
    until(lambda: fencing.now() > first)
    assert output(server, null, "print('alive')") == b"alive\n"


def test_nothing_is_started_after_the_deadline(server: ForkServer, null: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fencing.fence, "deadline", fencing.now())
    with pytest.raises(LeaseLost):
        server.begin(Execute([PYTHON, "-c", ""], (null, null, null)))
