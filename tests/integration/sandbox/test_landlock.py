"""Tests Landlock's scopes in a real sandbox that shares the host's network, and so its abstract sockets."""

from __future__ import annotations

import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from parts import require
from remit.backends.outcome import ExitReason
from remit.backends.process import ProcessBackend
from remit.errors import SandboxUnavailable
from remit.sandbox import Ability, Execute, ForkServer, Layer
from remit.sandbox.landlock import SCOPES_ABI, abi_version, scopes

from .conftest import Runner

CONNECT = """
import socket, sys
with socket.socket(socket.AF_UNIX) as s:
    try: s.connect({name!r}); print('connected')
    except OSError as error: print(type(error).__name__)
"""


@pytest.fixture(scope="module")
def scoped(host):
    ability = host.abilities[Layer.LANDLOCK]
    require("landlock", ability.available, ability.remedy)
    return Runner(ProcessBackend(host))


@pytest.fixture(scope="module")
def bare(host):
    ability = Ability(Layer.LANDLOCK, False, "left out by the test", "leave it in")
    return Runner(ProcessBackend(replace(host, abilities={**host.abilities, Layer.LANDLOCK: ability})))


@pytest.fixture
def abstract():
    """Starts a server of the host at an abstract address that any process may connect to."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0remit-{uuid4().hex}")
        server.listen()
        yield server.getsockname().decode()


async def test_the_hosts_abstract_sockets_are_out_of_reach(scoped, bare, abstract):
    _, out = await scoped.python(CONNECT.format(name=abstract), network="host")
    assert out.stdout == b"PermissionError\n", out.stderr
    _, out = await bare.python(CONNECT.format(name=abstract), network="host")
    assert out.stdout == b"connected\n", out.stderr


async def test_its_own_abstract_sockets_and_signals_work(scoped):
    _, out = await scoped.python("""
import os, signal, socket
server = socket.socket(socket.AF_UNIX); server.bind(b'\\0own'); server.listen()
child = os.fork()
if not child:
    socket.socket(socket.AF_UNIX).connect(b'\\0own'); signal.pause()
server.accept(); os.kill(child, signal.SIGTERM)
print(os.WTERMSIG(os.waitpid(child, 0)[1]))
""")
    assert out.stdout.decode().strip() == str(int(signal.SIGTERM)), out.stderr


async def test_a_stubborn_run_is_still_ended_by_its_timeout(scoped):
    outcome, _ = await scoped.python(
        "import os, signal, time\n"
        "for n in (1, 2, 15): signal.signal(n, signal.SIG_IGN)\n"
        "if not os.fork(): os.setsid()\n"
        "while True: time.sleep(60)",
        timeout=0.5,
    )
    assert outcome.reason is ExitReason.TIMED_OUT


async def test_the_layer_is_in_force_where_the_host_has_it_and_refuses_where_not(scoped, bare):
    required = frozenset({Layer.NAMESPACES, Layer.LANDLOCK})
    outcome, _ = await scoped("/usr/bin/true", require=required)
    assert Layer.LANDLOCK in outcome.layers
    outcome, _ = await bare("/usr/bin/true")
    assert Layer.LANDLOCK in outcome.missing
    with pytest.raises(SandboxUnavailable, match=r"landlock: left out by the test\. leave it in"):
        await bare("/usr/bin/true", require=required)


@pytest.mark.parametrize(("abi", "wanted"), [(0, 0), (1, 0), (5, 0), (6, 3), (7, 3), (99, 3)])
def test_scopes_are_asked_for_where_the_kernel_has_them(abi, wanted):
    assert scopes(abi) == wanted


def test_what_the_kernel_refuses_starts_nothing(tmp_path):
    """A process that cannot be confined must not execute the program."""
    require("landlock", abi_version() >= SCOPES_ABI, "Linux 6.12 or later")
    server = ForkServer()
    try:
        with (tmp_path / "out").open("wb") as out, Path(os.devnull).open("rb") as nothing:
            job = Execute(
                ["/usr/bin/echo", "ran"], (nothing.fileno(), out.fileno(), out.fileno()), steps=[("restrict", 1 << 40)]
            )
            process = server.begin(job)
            with pytest.raises(OSError, match="landlock"):
                process.wait(60)
            process.close()
    finally:
        server.close()
    assert (tmp_path / "out").read_bytes() == b""
