"""Tests the system call filter in a real sandbox: forbidden calls fail because of the filter, and ordinary programs
work."""

from __future__ import annotations

import errno
import json
import platform
import shutil
import textwrap
from dataclasses import replace

import pytest

from parts import require
from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import SandboxUnavailable
from remit.sandbox import Ability, Host, Layer, Limits
from remit.sandbox.syscalls import INSPECTED, NEWEST, REFUSED, error_of, numbers

from .conftest import Runner

CALLS = numbers(INSPECTED | REFUSED, platform.machine())
NOTHING = (-1,) * 6  # arguments without a valid descriptor, address or flag
AROUND = Limits(memory_bytes=512 << 20, pids=64, disk_bytes=64 << 20)

PRELUDE = """
import ctypes, errno, json, os, signal, sys
libc = ctypes.CDLL(None, use_errno=True)
def syscall(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(a) for a in arguments))
    return 'allowed' if result != -1 else errno.errorcode[ctypes.get_errno()]
"""


def without_filter(host: Host) -> Host:
    ability = Ability(Layer.SECCOMP, False, "left out by the test", "leave it in")
    return replace(host, abilities={**host.abilities, Layer.SECCOMP: ability})


@pytest.fixture(scope="module")
def filtered(host):
    require("seccomp", host.abilities[Layer.SECCOMP].available, host.abilities[Layer.SECCOMP].remedy)
    return Runner(ProcessBackend(host), AROUND)


@pytest.fixture(scope="module")
def bare(host):
    return Runner(ProcessBackend(without_filter(host)), AROUND)


async def ask(runner, *calls, **options):
    """Returns the result of each call, given as (number, arguments…). Each call is made in a separate child."""
    program = f"""
        for number, *arguments in json.loads({json.dumps(json.dumps(calls))}):
            read, write = os.pipe()
            child = os.fork()
            if not child:
                os.write(write, syscall(number, *arguments).encode()); os._exit(0)
            os.close(write)
            said = os.read(read, 100).decode()
            status = os.waitpid(child, 0)[1]
            print(said or signal.Signals(os.WTERMSIG(status)).name, flush=True)
    """
    _, out = await runner.python(PRELUDE + textwrap.dedent(program), **options)
    answers = out.stdout.decode().split()
    assert len(answers) == len(calls), out.stderr
    return answers


@pytest.mark.parametrize("name", sorted(numbers(REFUSED, platform.machine())))
async def test_a_refused_call_fails(filtered, name):
    assert await ask(filtered, [CALLS[name], *NOTHING]) == [errno.errorcode[error_of(name)]]


async def test_it_is_the_filter_that_refuses(filtered, bare):
    """Without the filter, the calls succeed or fail because of their arguments."""
    harmless = {
        "ptrace": (0, 0, 0, 0),  # PTRACE_TRACEME
        "keyctl": (0, -3, 1),
        "add_key": (0, 0, 0, 0, 0),
        "process_vm_readv": (1, 0, 0, 0, 0, 0),
        "kcmp": (1, 1, 0, 0, 0),
        "name_to_handle_at": (-1, 0, 0, 0, 0),
        "pidfd_getfd": (-1, -1, 0),
        "vmsplice": (-1, 0, 0, 0),
        "setns": (-1, 0),
        "adjtimex": (0,),
        "clone3": (0, 0),
    }
    calls = [[CALLS[name], *arguments] for name, arguments in harmless.items()]
    with_it, without = await ask(filtered, *calls), await ask(bare, *calls)
    assert with_it == [errno.errorcode[error_of(name)] for name in harmless]
    assert all(one != other for one, other in zip(with_it, without, strict=True)), dict(
        zip(harmless, without, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "arguments", "wanted"),
    [
        ("unshare", (0x10000000,), "EPERM"),
        ("unshare", (0x40000000,), "EPERM"),
        ("unshare", (0x80,), "EPERM"),
        ("unshare", (0x400,), "allowed"),
        ("clone", (0x10000011, 0, 0, 0, 0), "EPERM"),
        ("clone", (0x20011, 0, 0, 0, 0), "EPERM"),
        ("ioctl", (0, 0x5412, 0), "EPERM"),
        ("ioctl", (0, 0x5412 | 1 << 32, 0), "EPERM"),
        ("ioctl", (0, 0x541C, 0), "EPERM"),
        ("ioctl", (0, 0x5413, 0), "ENOTTY"),
        ("personality", (0x40000,), "EPERM"),
        ("personality", (0xFFFFFFFF,), "allowed"),
        ("socketpair", (1, 1, 0, 0), "EFAULT"),
        ("socketpair", (40, 1, 0, 0), "EPERM"),
        *(("socket", (family, 1, 0), "allowed") for family in (1, 2)),
        ("socket", (2, 1, 262), "EPERM"),
        ("socket", (2, 2, 136), "EPERM"),
        *(("socket", (family, 1, 0), "EPERM") for family in (3, 15, 17, 21, 29, 30, 31, 38, 40, 43, 44)),
        ("socket", (38, 5, 0), "EPERM"),
        ("socket", (16, 3, 0), "EPERM"),
    ],
)
async def test_a_call_is_judged_by_its_arguments(filtered, name, arguments, wanted):
    assert await ask(filtered, [CALLS[name], *arguments]) == [wanted]


async def test_calls_newer_than_the_filter_do_not_exist(filtered):
    assert await ask(filtered, [NEWEST + 1, 0], [2000, 0], [-1, 0]) == ["ENOSYS"] * 3


async def test_with_the_hosts_network_only_routes_are_asked_of_netlink(filtered):
    calls = [[CALLS["socket"], 16, 3, protocol] for protocol in (0, 4, 9, 12, 15)]
    assert await ask(filtered, *calls, network="host") == ["allowed", "EPERM", "EPERM", "EPERM", "EPERM"]


async def test_x32_calls_kill(filtered):
    if platform.machine() != "x86_64":
        pytest.skip("x32 is of x86-64")
    assert await ask(filtered, [0x40000000 | 39]) == ["SIGSYS"]


async def test_32_bit_calls_kill(filtered):
    """`int 0x80` reaches the kernel's 32-bit table from any program."""
    if platform.machine() != "x86_64":
        pytest.skip("int 0x80 is of x86")
    outcome, _ = await filtered.python("""
import ctypes, mmap
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex('b814000000cd80c3'))  # getpid of i386
ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
print('survived')
""")
    assert outcome.exit_code == 128 + 31


async def test_the_init_of_the_namespace_is_filtered_too(filtered):
    said = await filtered.of_init("status")
    assert "Seccomp:\t2\n" in said["status"]
    _, out = await filtered("/usr/bin/grep", "^Seccomp:", "/proc/self/status")
    assert out.stdout.decode().split() == ["Seccomp:", "2"]


ORDINARY = {
    "python": ("python3", "-c", "import ssl, sqlite3, ctypes, multiprocessing, uuid; print(uuid.uuid4())"),
    "git": ("git", "init", "--quiet", "/workspace/repository"),
    "tar": ("tar", "--create", "--gzip", "--file", "/workspace/a.tar.gz", "--directory", "/usr/include", "linux"),
    "pip": ("python3", "-m", "pip", "--version"),
    "node": ("node", "-e", "require('os').cpus(); new (require('worker_threads').Worker)('0', {eval: true})"),
    "perl": ("perl", "-e", "my $p = fork() // die $!; exit 0 unless $p; waitpid($p, 0); exit $? >> 8"),
    "gcc": ("gcc", "-x", "c", "-o", "/workspace/a", "/usr/include/stdlib.h", "-fsyntax-only"),
    "find": ("find", "/usr/share/doc", "-maxdepth", "1", "-name", "b*"),
    "sort": ("sort", "--parallel=2", "/etc/passwd"),
    "threads": (
        "python3",
        "-c",
        "import threading as t; r = []; a = [t.Thread(target=r.append, args=(n,)) for n in range(8)]; "
        "[x.start() for x in a]; [x.join() for x in a]; assert len(r) == 8",
    ),
    "subprocess": ("python3", "-c", "import subprocess as s; s.run(['/bin/sh', '-c', 'echo $$ | cat'], check=True)"),
    "pool": ("python3", "-c", "import multiprocessing as m; p = m.Pool(2); assert p.map(abs, [-1, 2]) == [1, 2]"),
    "asyncio": (
        "python3",
        "-c",
        "import asyncio as a\nasync def m():\n"
        " s = await a.start_server(lambda r, w: w.close(), '127.0.0.1', 0)\n"
        " r, w = await a.open_connection(*s.sockets[0].getsockname()); assert await r.read() == b''; w.close()\n"
        " p = await a.create_subprocess_exec('true'); assert await p.wait() == 0\n"
        "a.run(m())",
    ),
    "names": ("python3", "-c", "import socket; socket.getaddrinfo('127.0.0.1', 80); socket.gethostname()"),
}


@pytest.mark.parametrize("name", ORDINARY)
async def test_ordinary_programs_work(filtered, name):
    program, *arguments = ORDINARY[name]
    path = shutil.which(program, path="/usr/bin:/bin")
    require(program, path, f"install {program}")
    outcome, out = await filtered(
        str(path),
        *arguments,
        env={"PATH": "/usr/bin:/bin", "HOME": "/workspace"},
        limits=replace(AROUND, memory_bytes=None),
    )
    assert (outcome.reason, outcome.exit_code) == (ExitReason.COMPLETED, 0), out.stderr


async def test_the_layer_is_in_force_where_the_host_has_it_and_refuses_where_not(filtered, bare):
    required = frozenset({Layer.NAMESPACES, Layer.SECCOMP})
    outcome, _ = await filtered("/usr/bin/true", require=required)
    assert Layer.SECCOMP in outcome.layers
    outcome, _ = await bare("/usr/bin/true")
    assert Layer.SECCOMP in outcome.missing
    with pytest.raises(SandboxUnavailable, match=r"seccomp: left out by the test\. leave it in"):
        await bare("/usr/bin/true", require=required)
