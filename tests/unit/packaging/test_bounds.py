"""Tests that every await of something outside has a visible bound, or a documented reason why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_cover  # the tests read the package and run none of it
PACKAGE = Path(__file__).parents[3] / "operator" / "remit"

AWAITED = {
    *("open_connection", "open_unix_connection", "start_tls", "wait_closed", "drain", "communicate", "death"),
    *("read", "readline", "readuntil", "readexactly", "sock_recv", "sock_sendall", "sock_connect", "sock_accept"),
    *("getaddrinfo", "join"),
}
"""Methods and functions that wait for a peer, a process or a name server when they are awaited."""
BLOCKING = {"run": "subprocess", "check_output": "subprocess", "check_call": "subprocess", "wait": "client"}
"""Functions that block, with the module or object that they belong to. `communicate`, and `wait` or `join` without a
timeout, also block."""
Found = Iterator[tuple[str, ast.Call, bool]]


UNBOUNDED = {
    "what was killed: that nothing of it is alive is what the caller promises, and Runner.shutdown has a bound": [
        "backends/attempt.py:_kill death",
        "backends/bare.py:BareAttempt.run death",
    ],
    "news of a process that lives as long as an attempt; it is cancelled with that": [
        "backends/docker/network.py:RestrictedNetwork._watch death",
    ],
    "each connection of the egress proxy has an idle timeout, which these are within": [
        "backends/egress/dialing.py:Upstream.read read",
        "backends/egress/dialing.py:Upstream.write drain",
        "backends/egress/relay.py:Downstream.read read",
        "backends/egress/relay.py:Downstream.write drain",
        "backends/egress/relay.py:tunnel.up read",
        "backends/egress/relay.py:tunnel.down read",
        "backends/egress/relay.py:exchange.up read",
        "backends/egress/relay.py:exchange.down read",
    ],
    "the pidfd has told that it is dead": ["cli/supervisor/worker.py:Worker._on_end wait"],
    "a server's own socket: nobody has to come": ["controlplane/http/listener.py:Listener._accept sock_accept"],
    "the session has a timeout": [
        "kube/client.py:Kube.request read",
        "release/traffic/probe.py:Probe._get read",
    ],
    "within the time of the task, or of whoever connects": [
        "operations/database/metering.py:_Meter.read read",
        "operations/database/metering.py:_Meter.readline readline",
        "operations/database/metering.py:_Meter.readexactly readexactly",
        "operations/http/transport.py:_RequestStream.read read",
        "operations/http/transport.py:_RequestStream.start_tls start_tls",
    ],
    "carries what others wait for, and is cancelled with their connection": [
        "operations/database/rows.py:_Relay._forth sock_recv",
        "operations/database/rows.py:_Relay._forth sock_sendall",
        "operations/database/rows.py:_Relay._back sock_recv",
        "operations/database/rows.py:_Relay._back sock_sendall",
        "release/targets/docker/ssh.py:_copy read",
        "release/targets/docker/ssh.py:_copy drain",
        "release/targets/docker/ssh.py:_last_line read",
    ],
    "its caller has the timeout": [
        "operations/process/supervision.py:_first_word drain",
        "operations/process/supervision.py:_first_word readline",
        "operations/process/supervision.py:_first_word wait",
        "release/targets/health.py:_tcp open_connection",
    ],
    "news, for as long as somebody wants them": [
        "operations/process/supervision.py:Supervision.watch readline",
        "operations/process/supervisor.py:Supervisor._be_watched read",
        "release/traffic/runtime.py:changes readline",
    ],
}
"""Calls whose bound is elsewhere, or that need none, by the reason."""


def calls(tree: ast.AST) -> Found:
    """Returns each call that needs a bound of its own, with its enclosing functions, and whether it has one."""

    def walk(
        node: ast.AST, where: tuple[str, ...], bounded: bool, awaited: bool
    ) -> Iterator[tuple[str, ast.Call, bool]]:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            where, bounded = (*where, node.name), False
        if isinstance(node, ast.AsyncWith):
            bounded = bounded or any(
                ast.unparse(item.context_expr).startswith("asyncio.timeout(") for item in node.items
            )
        if isinstance(node, ast.Call) and waits(node, awaited):
            yield ".".join(where), node, bounded or has_time(node)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, where, bounded, isinstance(node, ast.Await))

    yield from walk(tree, (), False, False)


def waits(call: ast.Call, awaited: bool) -> bool:
    if not isinstance(call.func, ast.Attribute):
        return False
    name, owner = call.func.attr, ast.unparse(call.func.value)
    if awaited and name == "drain":
        return owner.rpartition(".")[2] in {"writer", "stdin", "sink"}
    if awaited and name == "wait":
        return is_process(owner)
    if awaited:
        return name in AWAITED and owner != "configuration"
    if BLOCKING.get(name) == owner or name == "communicate":
        return True
    return name in {"wait", "join"} and not call.args and not call.keywords and is_process(owner)


def is_process(owner: str) -> bool:
    """Returns whether the owner is a process: an asyncio.Event also has a `wait`, and a str a `join`."""
    return owner.rpartition(".")[2].strip("_") in {"process", "child", "thread"}


def has_time(call: ast.Call) -> bool:
    return any(keyword.arg == "timeout" for keyword in call.keywords)


@pytest.mark.parametrize(
    ("source", "unbounded"),
    [
        ("async def f():\n await reader.readline()", 1),
        ("async def f():\n async with asyncio.timeout(1):\n  await reader.readline()", 0),
        ("async def f():\n async with asyncio.timeout(1):\n  async def g():\n   await reader.readline()", 1),
        ("async def f():\n await handle.death()\n await event.wait()\n await child.wait()", 2),
        ("subprocess.run(['a'])\nsubprocess.run(['a'], timeout=1)", 1),
        ("engine.call(lambda client: client.wait(id_, condition='removed'))", 1),
        ("process.wait()\nprocess.wait(5)\n', '.join(words)\nself._thread.join()", 2),
    ],
)
def test_what_has_no_bound_is_found(source: str, unbounded: int) -> None:
    assert [bounded for _, _, bounded in calls(ast.parse(source))].count(False) == unbounded


def test_every_wait_for_something_outside_has_a_bound() -> None:
    unbounded = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        for where, call, bounded in calls(ast.parse(path.read_text())):
            if not bounded:
                unbounded.add(f"{path.relative_to(PACKAGE)}:{where} {ast.unparse(call.func).rpartition('.')[2]}")
    reasons = [(place, why) for why, places in UNBOUNDED.items() for place in places]
    assert len(reasons) == len(dict(reasons)), "one reason each"
    assert unbounded - dict(reasons).keys() == set(), "use asyncio.timeout or timeout=, or add the reason why not"
    assert dict(reasons).keys() - unbounded == set(), "these have a bound, or are gone"


def test_what_runs_an_event_loop_does_not_wait_for_its_threads() -> None:
    plain = {
        str(path.relative_to(PACKAGE))
        for path in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, ast.Call) and ast.unparse(node.func) == "asyncio.run"
            for node in ast.walk(ast.parse(path.read_text()))
        )
    }
    # The first runs in a daemon thread of its own, the second is a process for tests, and the third is `run` itself.
    assert plain == {"controllers/watching.py", "controlplane/__main__.py", "threads.py"}
