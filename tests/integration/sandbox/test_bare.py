"""Tests the engine without namespaces, on a host that is treated as if it had none."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from outside import oom_scores, until_processes
from parts import require
from remit.backends.base import AttemptRequest, Command
from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Ability, Confinement, Host, Layer, Limits, plan, probe_host
from remit.sandbox.scratch import remove, scratch

REQUIRE = frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS})
PYTHON = "/usr/bin/python3"


def without_namespaces(host: Host) -> Host:
    lacking = {
        layer: Ability(layer, False, "left out by the test", "leave it in")
        for layer in (Layer.NAMESPACES, Layer.CGROUP)
    }
    return replace(host, bubblewrap=None, cgroups=None, abilities={**host.abilities, **lacking})


@pytest.fixture(scope="session")
def bare_host() -> Host:
    host = probe_host()
    require("landlock", host.bare, host.abilities[Layer.LANDLOCK].detail)
    return without_namespaces(host)


class Kept:
    def __init__(self) -> None:
        self.stdout = b""
        self.stderr = b""

    def write(self, stream: str, chunk: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + chunk)


@pytest.fixture
def run(bare_host):
    async def running(*argv, source=None, cancel=None, timeout=20, grace=0.1, limits=None, **options):
        words = (PYTHON, "-I", "-c", source, *argv) if source else argv
        env = options.pop("env", {"HOME": "/workspace", "TMPDIR": "/tmp", "PATH": "/usr/bin:/bin"})
        request = AttemptRequest(
            id=uuid4().hex,
            command=Command(words, options.pop("executable", words[0]), env, options.pop("stdin", b"")),
            confinement=Confinement(
                limits=limits or Limits(), require=REQUIRE, working_dir=options.pop("working_dir", "/workspace")
            ),
            timeout_seconds=timeout,
            grace_seconds=grace,
            files=options.pop("files", {}),
        )
        kept = options.pop("kept", None) or Kept()
        outcome = await ProcessBackend(bare_host).run(request, kept, cancel=cancel or asyncio.Event(), **options)
        return outcome, kept

    return running


async def test_it_runs_with_its_environment_its_input_and_a_private_folder(run):
    source = """
import os, sys
open('kept', 'w').write(sys.stdin.read()); print(open('kept').read(), os.environ['TOKEN'], os.getcwd())
open(os.environ['TMPDIR'] + '/x', 'w').close(); print(os.environ['HOME'] == os.getcwd())
"""
    outcome, kept = await run(source=source, env={"TOKEN": "t", "HOME": "/workspace", "TMPDIR": "/tmp"}, stdin=b"said")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.COMPLETED, 0), kept.stderr
    said, token, folder, at_home = kept.stdout.decode().split()
    assert (said, token, at_home) == ("said", "t", "True")
    assert not Path(folder).parent.exists(), "it is gone with the attempt"
    assert set(outcome.layers) == REQUIRE
    assert set(outcome.missing) == {Layer.NAMESPACES, Layer.CGROUP}
    assert outcome.usage.cpu_seconds > 0


async def test_a_private_file_is_found_by_the_word_that_names_it(run):
    outcome, kept = await run("/usr/bin/cat", "/run/remit/script", files={"/run/remit/script": b"its text"})
    assert (outcome.exit_code, kept.stdout) == (0, b"its text")


async def test_what_the_program_cannot_be_is_a_failed_start(run):
    outcome, _ = await run("/usr/bin/no-such-program")
    assert outcome.reason is ExitReason.START_FAILED
    assert "No such file" in outcome.message
    for nowhere in ("/workspace-not-there", "/workspace/a", "/tmp/a"):
        elsewhere, _ = await run("/usr/bin/true", working_dir=nowhere)
        assert elsewhere.reason is ExitReason.START_FAILED, nowhere


async def test_a_working_directory_is_one_that_a_private_file_is_in(run):
    outcome, _ = await run("/usr/bin/cat", "in", working_dir="/workspace/a", files={"/workspace/a/in": b"x"})
    assert outcome.exit_code == 0


async def test_an_exit_code_and_a_signal_are_reported(run):
    assert (await run(source="raise SystemExit(3)"))[0].exit_code == 3
    outcome, _ = await run(source="import os; os.kill(os.getpid(), 15)")
    assert (outcome.reason, outcome.exit_code) == (ExitReason.SIGNALED, 128 + signal.SIGTERM)


async def test_a_cancelled_program_may_end_in_order(run):
    cancel = asyncio.Event()
    source = """
import signal, sys, time
def end(*_): print('in order'); sys.exit(0)
signal.signal(signal.SIGTERM, end); print('ready', flush=True)
while True: time.sleep(60)
"""
    kept = Kept()
    running = asyncio.create_task(run(source=source, cancel=cancel, grace=60, kept=kept, timeout=60))
    while not kept.stdout and not running.done():
        await asyncio.sleep(0.01)
    cancel.set()
    assert (await running)[0].reason is ExitReason.CANCELLED
    assert kept.stdout == b"ready\nin order\n"


async def test_a_program_that_moves_on_by_forking_does_not_outrun_the_end(run):
    mark = uuid4().hex
    source = """
import os, sys
if os.fork(): os._exit(0)
os.setsid()
while True:
    if os.fork(): os._exit(0)
"""
    outcome, _ = await run(mark, source=source)
    assert outcome.exit_code == 0
    assert alive(mark) == []


@pytest.mark.parametrize("way", ["..", "x/../../.."])
async def test_a_working_directory_does_not_lead_out(run, way):
    with pytest.raises(InvalidInput):
        await run("/usr/bin/true", working_dir=f"/workspace/{way}")


def test_no_network_is_given_without_namespaces(bare_host):
    with pytest.raises(SandboxUnavailable, match="network: host"):
        plan(Confinement(network="host", require=REQUIRE), bare_host)


def test_a_killed_operator_leaves_nothing(bare_host, tmp_path):
    mark = uuid4().hex
    for folder in (tmp_path, *(*tmp_path.parents,)[:3]):  # set before the start, because attempts run as other users
        folder.chmod(folder.stat().st_mode | 0o001)
    operator = subprocess.Popen(
        [sys.executable, "-c", _OPERATOR, mark, str(Path(__file__).parents[3])],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with operator:
        assert operator.stdout is not None
        assert operator.stdout.readline() == b"there\n"
        assert alive(mark)
        operator.kill()
    wait_until(lambda: not alive(mark))
    left = list(tmp_path.glob("remit-scratch-*"))
    assert left, "nobody could tidy up"
    swept = subprocess.run(
        [sys.executable, "-c", "from remit.sandbox.scratch import scratch; scratch()"],
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    assert swept.returncode == 0
    assert not left[0].exists()


_OPERATOR = """
import asyncio, sys
from dataclasses import replace
from remit.backends.base import AttemptRequest, Command
from remit.backends.process import ProcessBackend
from remit.sandbox import Ability, Confinement, Layer, probe_host
host = probe_host()
lacking = {layer: Ability(layer, False, "", "") for layer in (Layer.NAMESPACES, Layer.CGROUP)}
host = replace(host, bubblewrap=None, cgroups=None, abilities={**host.abilities, **lacking})
source = '''
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        os.fork()
        os.write(1, b"x"); time.sleep(3600)
time.sleep(3600)
'''
class Sink:
    seen = 0
    def write(self, stream, chunk):
        self.seen += len(chunk)
        if self.seen == 6: print("there", flush=True)
require = frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS})
command = Command(("/usr/bin/python3", "-I", "-c", source, sys.argv[1]), "/usr/bin/python3")
request = AttemptRequest(sys.argv[1], command, Confinement(require=require), 3600)
asyncio.run(ProcessBackend(host).run(request, Sink(), cancel=asyncio.Event()))
"""


def test_a_killed_supervisor_leaves_nothing(bare_host):
    mark = uuid4().hex

    async def both():
        started = []
        source = "import os, time; os.fork(); os.setsid() if os.fork() == 0 else 0; time.sleep(3600)"
        command = Command((PYTHON, "-I", "-c", source, mark), PYTHON)
        request = AttemptRequest(mark, command, Confinement(require=REQUIRE), 60)
        running = asyncio.create_task(
            ProcessBackend(bare_host).run(request, Kept(), cancel=asyncio.Event(), on_started=started.append)
        )
        async with asyncio.timeout(60):
            while len(alive(mark)) < 4:
                await asyncio.sleep(0.01)
        os.kill(started[0].pid, signal.SIGKILL)
        outcome = await running
        assert outcome.reason is ExitReason.SIGNALED
        assert "killed from outside" in outcome.message
        assert alive(mark) == []

    asyncio.run(both())


async def test_recovery_ends_all_that_a_stopped_supervisor_watches(bare_host):
    mark, started = uuid4().hex, []
    source = "import os, time; os.fork(); os.setsid() if os.fork() == 0 else 0; time.sleep(3600)"
    command = Command((PYTHON, "-I", "-c", source, mark), PYTHON)
    request = AttemptRequest(mark, command, Confinement(require=REQUIRE), 60)
    backend = ProcessBackend(bare_host)
    running = asyncio.create_task(backend.run(request, Kept(), cancel=asyncio.Event(), on_started=started.append))
    async with asyncio.timeout(60):
        while len(alive(mark)) < 4:
            await asyncio.sleep(0.01)
    os.kill(started[0].pid, signal.SIGSTOP)
    assert await backend.recover(started[0]) is True
    assert alive(mark) == []
    await running


def test_a_tree_of_any_depth_and_mode_is_removed():
    top = scratch() / uuid4().hex
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        os.symlink("/etc", "link", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.fchmod(here, 0o300)
        os.close(here)
        here = inner
    os.close(here)
    remove(top)
    assert not top.exists()
    assert Path("/etc/passwd").exists()


def alive(mark: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if mark.encode() in path.read_bytes() and int(path.parent.name) != os.getpid():
                words = path.read_bytes().split(b"\0")
                if words[0] == PYTHON.encode():
                    found.append(path.parent.name)
    return found


def wait_until(condition, seconds: float = 60) -> None:
    async def waiting():
        async with asyncio.timeout(seconds):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(waiting())


async def test_standard_streams_open_by_name(run):
    outcome, kept = await run(source="open('/dev/stdout', 'w').write('out'); open('/dev/stderr', 'w').write('err')")
    assert (outcome.exit_code, kept.stdout, kept.stderr) == (0, b"out", b"err")


async def test_the_kernel_would_kill_it_for_memory_before_the_operator(run):
    """The OOM scores of the supervisor, the command and its children are read from outside."""
    cancel, handles = asyncio.Event(), []
    source = "import os, time; os.fork(); time.sleep(60)"
    running = asyncio.create_task(run(source=source, cancel=cancel, on_started=handles.append))
    await until_processes(handles, 3)
    assert set(oom_scores(handles[0].pid)) == {1000}
    cancel.set()
    await running
