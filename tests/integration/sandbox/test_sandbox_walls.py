"""Tests hostile programs in the sandbox, which can access only what is inside."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Ability, Layer

SECRET = "correct-horse-battery-staple"


async def test_the_hosts_files_do_not_exist(run, tmp_path):
    marker = tmp_path / "marker"
    marker.write_text("host")
    _, out = await run.python(
        "import os,json; print(json.dumps({p: os.path.exists(p) for p in "
        f"['/etc/shadow', '/home', '/root', '/var', '/sys', '/boot', '/run/docker.sock', {str(marker)!r}]}}))"
    )
    assert not any(json.loads(out.stdout).values())


async def test_nothing_but_the_private_folders_can_be_written(run):
    outcome, out = await run.python("""
import os
import tempfile
for folder, inner, _ in os.walk('/'):
    if folder.count('/') > 1: inner.clear()  # /usr is one mount
    if folder.startswith(('/proc', '/tmp/', '/workspace/')): continue
    try:
        open(os.path.join(folder, 'probe'), 'w').close(); print(folder)
    except OSError: pass
""")
    assert outcome.exit_code == 0
    assert set(out.stdout.decode().split()) == {"/tmp", "/workspace", "/dev/shm"}


@pytest.mark.parametrize("folder", ["/tmp", "/workspace", "/dev/shm"])
async def test_private_folders_are_sized(run, folder):
    outcome, out = await run.python(f"""
with open({folder + "/big"!r}, 'wb') as f:
    for _ in range(64): f.write(b'x' * (1 << 20)); f.flush()
""")
    assert outcome.exit_code == 1
    assert b"No space left on device" in out.stderr


async def test_the_workspace_is_private_and_new_each_time(run):
    script = "import os; print(oct(os.stat('/workspace').st_mode & 0o777), os.listdir('/workspace')); open('x', 'w')"
    for _ in range(2):
        _, out = await run.python(script)
        assert out.stdout == b"0o700 []\n"


async def test_the_process_has_no_power(run):
    _, out = await run.python("print(open('/proc/self/status').read())")
    status = dict(line.split(":\t") for line in out.stdout.decode().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert status["Uid"].split() == ["1000"] * 4


async def test_no_new_user_namespace_can_be_made(run):
    _, out = await run.python("""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
print(libc.unshare(0x10000000), os.strerror(ctypes.get_errno()))
""")
    assert out.stdout.startswith(b"-1 ")


async def test_every_namespace_is_new(run):
    names = ("user", "mnt", "pid", "net", "ipc", "uts", "cgroup")
    _, out = await run("/usr/bin/readlink", *(f"/proc/self/ns/{name}" for name in names))
    inside = out.stdout.decode().split()
    assert len(inside) == len(names)
    assert not {str(Path(f"/proc/self/ns/{name}").readlink()) for name in names} & set(inside)


async def test_there_is_no_network_unless_asked_for(run):
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5)"
    async with server:
        closed, _ = await run.python(connect)
        opened, _ = await run.python(connect, network="host")
    assert (closed.exit_code, opened.exit_code) == (1, 0)


async def test_only_its_own_processes_are_seen(run):
    _, out = await run.python("import os; print(sorted(int(p) for p in os.listdir('/proc') if p.isdigit()))")
    assert json.loads(out.stdout) == [1, 2]


async def test_no_descriptor_leaks_in(run):
    _, out = await run.python("import os; print(sorted(map(int, os.listdir('/proc/self/fd'))))", stdin=b"x")
    assert json.loads(out.stdout) == [0, 1, 2, 3]  # 3 is the listing itself


async def test_the_operators_environment_is_nowhere_inside(run, monkeypatch):
    monkeypatch.setenv("REMIT_TEST_TOKEN", SECRET)
    _, out = await run.python("""
import os
for pid in filter(str.isdigit, os.listdir('/proc')):
    print(pid, open(f'/proc/{pid}/environ').read() if os.listdir(f'/proc/{pid}') else 'covered')
print(dict(os.environ))
""")
    assert b"1 covered\n" in out.stdout
    assert SECRET.encode() not in out.stdout
    assert await run.of_init("environ") == {"environ": ""}


async def test_a_secret_is_in_no_command_line(run):
    """All processes are searched from outside while the attempt runs."""
    found: list[str] = []

    async def look(sink):
        await sink.seen.wait()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if SECRET.encode() in text:
                found.append(str(path))
        cancel.set()

    cancel, sink = asyncio.Event(), run.sink()
    looking = asyncio.create_task(look(sink))
    await run.python(
        "import os, time; print(os.environ['TOKEN'], open('/run/secrets/token').read(), flush=True); time.sleep(60)",
        env={"TOKEN": SECRET},
        files={"/run/secrets/token": SECRET.encode()},
        cancel=cancel,
        sink=sink,
    )
    await looking
    assert sink.stdout.decode().split() == [SECRET, SECRET]
    assert found == []


async def test_private_files_can_be_read_but_not_replaced(run):
    outcome, out = await run.python(
        "print(open('/run/secrets/db').read()); open('/run/secrets/other', 'w')", files={"/run/secrets/db": b"pw"}
    )
    assert out.stdout == b"pw\n"
    assert b"Read-only file system" in out.stderr
    assert outcome.exit_code == 1


async def test_root_outside_is_not_root_at_all(run):
    """Even a file that only root may read, and that the operator binds, cannot be read."""
    if os.geteuid() != 0:
        pytest.skip("needs to be root to show that it is given up")
    private = Path("/opt/remit-test-private")
    private.mkdir(exist_ok=True)
    try:
        (private / "key").write_text(SECRET)
        (private / "key").chmod(0o600)
        run.backend = ProcessBackend(run.backend.host, read_only_paths=(str(private),))
        outcome, out = await run("/usr/bin/cat", str(private / "key"))
    finally:
        (private / "key").unlink()
        private.rmdir()
    assert outcome.exit_code == 1
    assert b"Permission denied" in out.stderr


async def test_read_only_paths_are_seen_and_cannot_be_written(run, tmp_path):
    for folder in (tmp_path, *tmp_path.parents[:-2]):
        folder.chmod(0o755)
    (tmp_path / "data").write_text("shared")
    shown = ProcessBackend(run.backend.host, read_only_paths=(str(tmp_path),))
    run.backend = shown
    outcome, out = await run.python(
        f"print(open({str(tmp_path / 'data')!r}).read()); open({str(tmp_path / 'new')!r}, 'w')"
    )
    assert out.stdout == b"shared\n"
    assert outcome.exit_code == 1
    assert b"Read-only file system" in out.stderr


@pytest.mark.parametrize("path", ["/etc/passwd", "relative", "/workspace/../etc/x", "/usr/bin/x"])
async def test_private_files_stay_in_private_places(run, path):
    with pytest.raises(InvalidInput, match="the sandbox's own"):
        await run("/usr/bin/true", files={path: b""})


async def test_a_nul_byte_cannot_smuggle_arguments(run):
    for bad in ({"env": {"A": "x\0--bind\0/\0/"}}, {"working_dir": "/workspace\0--bind"}):
        with pytest.raises(InvalidInput, match="NUL"):
            await run("/usr/bin/true", **bad)


@pytest.mark.parametrize("way", ["/workspace/..", "/workspace/../../oldroot", "/tmp/x/../../../oldroot"])
async def test_no_working_directory_is_made_on_the_host(run, way):
    with tempfile.TemporaryDirectory(prefix="remit-walls-") as folder:
        Path(folder).chmod(0o777)
        with pytest.raises(InvalidInput, match=r"'\.\.'"):
            await run("/usr/bin/true", working_dir=f"{way}{folder}/made")
        assert list(Path(folder).iterdir()) == []


async def test_a_required_layer_that_is_missing_refuses_the_run(run):
    host = run.backend.host
    lacking = Ability(Layer.SECCOMP, False, "was looked for", "Get a kernel that has it")
    run.backend.host = replace(host, abilities={**host.abilities, Layer.SECCOMP: lacking})
    with pytest.raises(SandboxUnavailable, match=r"seccomp: was looked for\. Get a kernel that has it"):
        await run("/usr/bin/true", require=frozenset({Layer.SECCOMP}))


async def test_status_tells_the_layers_in_force(run):
    outcome, _ = await run("/usr/bin/true")
    assert outcome.reason is ExitReason.COMPLETED
    assert set(outcome.layers) | set(outcome.missing) == set(Layer)
    assert {Layer.NAMESPACES, Layer.RLIMITS} <= set(outcome.layers)
    assert (Layer.SECCOMP in outcome.layers) == run.backend.host.abilities[Layer.SECCOMP].available
    assert (Layer.CGROUP in outcome.layers) == (run.backend.host.cgroups is not None)
