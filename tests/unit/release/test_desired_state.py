"""Tests the desired state of a target behind the proxy: how it is stored, and the route that follows from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson

from remit.release.targets.desiredstate import DesiredSide, DesiredState, Published, read, write
from remit.release.targets.health import Health
from remit.release.targets.loadbalancer import ProxyStatus, route_of
from remit.release.targets.observation import InstanceStatus, observed

BLUE = DesiredSide(
    1, (Published("http", 80),), 81, 2, ({"http": 1001}, {"http": 1002}), hosts=("10.0.0.1", "2001:db8::1")
)
GREEN = DesiredSide(2, (Published("web", 80), Published("admin", 79)), 81, 1, ({"web": 2001, "admin": 2002},))


def test_a_desired_state_is_stored(tmp_path: Path) -> None:
    desired = DesiredState("blue", 10, preview="green", sides={"blue": BLUE, "green": GREEN})
    assert read(tmp_path / "told.json") == DesiredState()
    write(tmp_path / "told.json", desired)
    assert read(tmp_path / "told.json") == desired
    assert (tmp_path / "told.json").stat().st_mode & 0o777 == 0o600


def test_a_desired_state_without_hosts_is_read(tmp_path: Path) -> None:
    write(tmp_path / "told.json", DesiredState(sides={"green": GREEN}))
    document = orjson.loads((tmp_path / "told.json").read_bytes())
    del document["sides"]["green"]["hosts"]
    (tmp_path / "told.json").write_bytes(orjson.dumps(document))
    assert read(tmp_path / "told.json").sides["green"] == GREEN


def test_a_port_that_was_renamed_stays_the_same_to_clients() -> None:
    route = route_of("default/shop", DesiredState("blue", sides={"blue": BLUE, "green": GREEN}))
    assert route is not None
    (entry,) = (each for each in route.entries if each.port == 80)
    assert (entry.blue, entry.green) == (("10.0.0.1:1001", "[2001:db8::1]:1002"), ("127.0.0.1:2001",))
    assert dict(entry.weights) == {"blue": 100, "green": 0}


def test_the_order_in_which_sides_came_makes_no_other_proxy() -> None:
    one, other = (
        DesiredState("blue", sides={"blue": BLUE, "green": GREEN}),
        DesiredState("blue", sides={"green": GREEN, "blue": BLUE}),
    )
    routes = [route_of("default/shop", desired) for desired in (one, other)]
    assert [[entry.port for entry in route.entries] for route in routes if route] == [[79, 80, 81]] * 2


def test_a_preview_takes_no_port_that_is_published() -> None:
    swapped = DesiredSide(2, (Published("http", 81),), 80, 1, ({"http": 2001},))
    route = route_of("default/shop", DesiredState("blue", preview="green", sides={"blue": BLUE, "green": swapped}))
    assert route is not None
    assert {entry.port: dict(entry.weights) for entry in route.entries} == {
        80: {"blue": 100, "green": 0},
        81: {"blue": 100, "green": 0},
    }


def test_the_time_for_requests_under_way_is_that_of_the_machine() -> None:
    busy = frozenset({"10.0.0.1:1001"})
    side = replace(BLUE, wanted=0, leaving_since=1000.0, drain_seconds=30)
    assert not side.finished(busy, 1000.0)
    assert not side.finished(busy, 1029.0)
    assert side.finished(frozenset(), 1001.0), "nothing is with them"
    assert side.finished(busy, 1030.0)
    assert side.finished(busy, 5.0), "the machine has started anew"


def test_only_what_the_proxy_reaches_is_healthy() -> None:
    well, sick = (
        InstanceStatus(Health(healthy=True), True, True, True),
        InstanceStatus(Health(unhealthy=True), True, True, True, trouble="x"),
    )
    desired = DesiredState("blue", sides={"blue": BLUE})
    proxy = ProxyStatus(frozenset({"10.0.0.1:1001"}))
    assert observed(desired, {"blue": {0: well, 1: well}}, proxy, frozenset()).blue.healthy == 1
    seen = observed(desired, {"blue": {0: well, 1: sick}}, ProxyStatus(), frozenset()).blue
    assert (seen.healthy, seen.failed, seen.message) == (1, 1, "blue-1: x")
