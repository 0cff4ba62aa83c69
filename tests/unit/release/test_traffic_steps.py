"""Tests the commands that lead from the current to the desired configuration."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from remit.api.slots import SLOTS, Slot, other
from remit.release.traffic.configuration import FAILOVER, backend
from remit.release.traffic.route import CLOSED, POOLS, Entry, Pool, Route
from remit.release.traffic.runtime import Port, ProxySnapshot, Server, SideStatus
from remit.release.traffic.steps import Steps, steps, unfound

PORTS = (80, 8081)
addresses = st.lists(st.sampled_from([f"10.0.0.{n}:80" for n in range(1, 5)] + ["[::1]:80"]), unique=True).map(tuple)
entries = {
    port: st.builds(
        partial(Entry, port),
        blue=addresses,
        green=addresses,
        green_percent=st.none() | st.sampled_from([0, 30, 100]),
        failover=st.booleans(),
    )
    for port in PORTS
}
routes = st.tuples(*(entries[port] for port in PORTS)).map(partial(Route, "a/b"))


@dataclass
class Proxy:
    """The part of HAProxy that the commands need: replicas by name, whether they are ready, and the map."""

    busy: bool
    waiting: int = 0
    """How many requests of each pool have no connection yet."""
    up: set[str] = field(default_factory=set)
    green: dict[int, int] = field(default_factory=lambda: dict.fromkeys(PORTS, -1))
    servers: dict[str, dict[str, tuple[str, bool]]] = field(
        default_factory=lambda: {backend(port, pool): {} for port in PORTS for pool in POOLS}
    )

    def run(self, command: str) -> None:
        match command.split():
            case ["add", "server", path, address, *_, "weight", "0"]:
                there, _, name = path.partition("/")
                assert name not in self.servers[there]
                self.servers[there][name] = (address, False)
            case ["enable", "health", path]:
                assert path.partition("/")[2] in self.servers[path.partition("/")[0]]
            case ["set", "server", path, "state", state]:
                there, _, name = path.partition("/")
                self.servers[there][name] = (self.servers[there][name][0], state == "ready")
                self.up.add(path)
            case ["set", "server", path, "health", "down"]:
                self.up.discard(path)
            case ["set", "server", path, "weight", weight]:
                assert weight == "0" or path not in self.up, "it may get a request before it was checked"
            case ["del", "server", path]:
                there, _, name = path.partition("/")
                assert self.servers[there][name][1] is False
                if not self.busy:
                    del self.servers[there][name]
            case ["set", "map", "weights", port, value]:
                self.green[int(port)] = int(value)
            case _:
                raise AssertionError(command)

    def seen(self) -> ProxySnapshot:
        return ProxySnapshot(
            1, 1, {port: Port(self._weights(port), self._pools(port), self.green[port] >= FAILOVER) for port in PORTS}
        )

    def ready(self, port: int, pool: Pool) -> dict[str, bool]:
        servers = self.servers[backend(port, pool)].items()
        return {address: name.startswith("backup-") for name, (address, ready) in servers if ready}

    def used(self, port: int, slot: Slot) -> dict[str, bool]:
        """Returns the replicas to which requests of this side may be sent now."""
        return self.ready(port, Pool(slot, self.green[port] >= FAILOVER))

    def _weights(self, port: int) -> dict[Slot, int]:
        green = self.green[port]
        if green < 0:
            return dict(CLOSED)
        return {"blue": 100 - green % FAILOVER, "green": green % FAILOVER}

    def _pools(self, port: int) -> dict[Pool, SideStatus]:
        return {
            pool: SideStatus(
                tuple(
                    Server(address, True, not ready, 0, backup=name.startswith("backup-"))
                    for name, (address, ready) in self.servers[backend(port, pool)].items()
                ),
                in_flight=self.waiting,
            )
            for pool in POOLS
        }


def perform(proxy: Proxy, todo: Steps) -> None:
    for command in (*todo.join, *todo.switch, *todo.leave, *todo.remove):
        proxy.run(command)


@given(st.lists(routes, max_size=4), st.booleans())
def test_any_series_of_routes_comes_into_force_and_stays(series: list[Route], busy: bool) -> None:
    proxy = Proxy(busy)
    for route in series:
        perform(proxy, steps(route, proxy.seen()))
        for entry in route.entries:
            assert proxy.seen().ports[entry.port].weights == entry.weights
            assert proxy.seen().ports[entry.port].fails_over == entry.fails_over
        left = steps(route, proxy.seen())
        assert (left.join, left.switch) == ([], [])
        perform(proxy, left)
        for entry, pool in itertools.product(route.entries, POOLS):
            assert proxy.ready(entry.port, pool) == entry.members(pool)
        again = steps(route, proxy.seen())
        assert (again.join, again.switch, again.leave) == ([], [], [])
        assert busy or again.remove == []


@given(routes, routes)
def test_a_side_with_requests_is_never_without_replicas(first: Route, second: Route) -> None:
    proxy = Proxy(busy=True)
    perform(proxy, steps(first, proxy.seen()))
    todo = steps(second, proxy.seen())
    for command in (*todo.join, *todo.switch, *todo.leave):
        proxy.run(command)
        for before, after in zip(first.entries, second.entries, strict=True):
            for slot in SLOTS:
                if before.weights[slot] and proxy.seen().ports[before.port].weights[slot]:
                    could = bool(before.side(slot)) and (bool(after.side(slot)) or not after.weights[slot])
                    assert proxy.used(before.port, slot) or not could


@given(routes, routes)
def test_requests_without_a_connection_keep_the_replicas_that_still_serve(first: Route, second: Route) -> None:
    proxy = Proxy(busy=True)
    perform(proxy, steps(first, proxy.seen()))
    proxy.waiting = 1
    for _ in range(3):
        perform(proxy, steps(second, proxy.seen()))
        for before, after in zip(first.entries, second.entries, strict=True):
            for pool in POOLS:
                if pool.failover and before.fails_over and not after.fails_over:
                    sides = {False: pool.slot, True: other(pool.slot)}
                    serving = {
                        address: backup
                        for address, backup in before.members(pool).items()
                        if after.weights[sides[backup]] and address in after.side(sides[backup])
                    }
                    assert proxy.ready(before.port, pool) == serving
    proxy.waiting = 0
    perform(proxy, steps(second, proxy.seen()))
    for entry, pool in itertools.product(second.entries, POOLS):
        assert proxy.ready(entry.port, pool) == entry.members(pool)


@given(routes, routes)
def test_each_port_is_switched_by_one_command(first: Route, second: Route) -> None:
    proxy = Proxy(busy=False)
    perform(proxy, steps(first, proxy.seen()))
    switches = steps(second, proxy.seen()).switch
    changed = [
        a.port
        for a, b in zip(first.entries, second.entries, strict=True)
        if (a.weights, a.fails_over) != (b.weights, b.fails_over)
    ]
    assert [int(command.split()[3]) for command in switches] == changed


BLUE, GREEN = Server("10.0.0.1:80", True, False, 0), Server("10.0.0.2:80", True, False, 0)
DOWN, UNCHECKED = replace(GREEN, up=False), replace(GREEN, checked=False)


def two_ports(first: Server, second: Server, *, green_percent: int = 0) -> ProxySnapshot:
    """Returns a state in which blue serves a live and a preview port, and green has the given share."""
    weights: dict[Slot, int] = {"blue": 100 - green_percent, "green": green_percent}
    greens = zip(PORTS, (first, second), strict=True)
    return ProxySnapshot(
        1,
        1,
        {
            port: Port(weights, {Pool("blue"): SideStatus((BLUE,)), Pool("green"): SideStatus((green,))})
            for port, green in greens
        },
    )


def test_a_replica_is_reached_where_it_is_up_at_each_port() -> None:
    assert two_ports(GREEN, GREEN).reached == {BLUE.address, GREEN.address}
    assert two_ports(DOWN, GREEN).reached == {BLUE.address}
    assert two_ports(GREEN, DOWN).reached == {BLUE.address}
    assert two_ports(replace(DOWN, leaving=True), GREEN).reached == {BLUE.address, GREEN.address}
    assert two_ports(replace(GREEN, leaving=True), replace(GREEN, leaving=True)).reached == {BLUE.address}


def test_a_switch_waits_for_replicas_that_are_to_get_more_requests() -> None:
    live, preview = (Entry(port, (BLUE.address,), (GREEN.address,), 0) for port in PORTS)
    route = Route("a/b", (replace(live, green_percent=30), preview))
    assert unfound(route, two_ports(GREEN, GREEN)) == set()
    assert unfound(route, two_ports(DOWN, GREEN)) == {GREEN.address}
    assert unfound(route, two_ports(GREEN, UNCHECKED)) == {GREEN.address}
    assert unfound(route, two_ports(GREEN, DOWN)) == set(), "nobody is sent there"
    assert unfound(route, two_ports(DOWN, GREEN, green_percent=30)) == set(), "its share was as large before"
    assert unfound(Route("a/b", (replace(live, green=(), green_percent=30), preview)), two_ports(DOWN, GREEN)) == set()
