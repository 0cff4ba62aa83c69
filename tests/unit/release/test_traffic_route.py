"""Tests valid routes, their HAProxy configuration, and how HAProxy's state is parsed."""

from __future__ import annotations

import errno

import pytest

from remit.errors import DeploymentError
from remit.release.traffic.configuration import Process, digest, render, render_weights
from remit.release.traffic.ports import _refused
from remit.release.traffic.probe import ProbeSample, switch_milliseconds
from remit.release.traffic.route import Entry, Route
from remit.release.traffic.runtime import parse
from remit.sandbox.identity import choose, choose_for_service

ENTRY = Entry(80, ("10.0.0.1:8080",), ("[fd00::1]:8080",), 10)


@pytest.mark.parametrize(
    "address",
    [
        "localhost:80",
        "10.0.0.1",
        "10.0.0.1:0",
        "10.0.0.1:65536",
        "10.0.0.1:+80",
        "10.0.0.1:٨٠",
        "10.0.0.1:80 backup",
        "10.0.0.1:80\n  stats enable",
        "fd00::1:80",
        "[10.0.0.1]:80",
        "[fe80::1%eth0]:80",
        "[fe80::1%a\n b]:80",
        "unix@/run/docker.sock",
        "",
    ],
)
def test_nothing_but_an_address_gets_into_the_configuration(address: str) -> None:
    with pytest.raises(DeploymentError, match="no address of a replica") as caught:
        Entry(80, (address,))
    assert caught.value.reason == "InvalidRoute"


@pytest.mark.parametrize("name", ["shop", "../etc", "a/..", "a/b/c", "a/b\n", "/a/b", "A/b", "a/"])
def test_a_name_cannot_lead_out_of_the_folder(name: str) -> None:
    with pytest.raises(DeploymentError, match="no namespace/name"):
        Route(name, (ENTRY,))


def test_routes_that_make_no_sense_are_refused() -> None:
    for port in (0, 65536):
        with pytest.raises(DeploymentError, match="is no port"):
            Entry(port)
    for percent in (-1, 101):
        with pytest.raises(DeploymentError, match="percentages"):
            Entry(80, green_percent=percent)
    with pytest.raises(DeploymentError, match="publishes no port"):
        Route("a/b", ())
    with pytest.raises(DeploymentError, match="a port twice: 80, 80"):
        Route("a/b", (ENTRY, ENTRY))


def test_weights_are_percentages_that_add_up() -> None:
    sides = {"blue": ENTRY.blue, "green": ENTRY.green}
    assert Entry.of(80, sides, {"blue": 90, "green": 10}) == ENTRY
    assert Entry.of(80, {}, {}) == Entry(80)
    assert Entry(80).weights == {"blue": 0, "green": 0}
    for weights in ({"blue": 50}, {"blue": 150, "green": -50}, {"blue": 60, "green": 60}):
        with pytest.raises(DeploymentError, match="must add up to 100"):
            Entry.of(80, sides, weights)


def test_replicas_and_weights_need_no_other_process_and_ports_do() -> None:
    process = Process()
    first = digest(Route("a/b", (ENTRY,)), process)
    assert digest(Route("a/b", (Entry(80, (), ENTRY.green, 100),)), process) == first
    assert digest(Route("a/b", (ENTRY, Entry(81))), process) != first
    assert digest(Route("a/b", (ENTRY,)), Process(uid=7)) != first


def test_what_is_written_brings_everything_back() -> None:
    route = Route("a/b", (ENTRY, Entry(81)))
    text = render(route, Process(3, 7))
    assert "  server 10.0.0.1:8080 10.0.0.1:8080 check" in text
    assert "  server backup-fd00::1:8080 [fd00::1]:8080 check" in text
    assert "  server fd00::1:8080 [fd00::1]:8080 check" in text
    assert "  uid 7\n  gid 7\n  chroot empty\n  nbthread 3\n" in text
    assert "uid" not in render(route, Process())
    assert render_weights(route) == "80 1010\n81 -1\n"


def test_output_of_haproxy_is_parsed() -> None:
    info = "Name: HAProxy\nPid: 42\nUptime_sec: 7\n"
    stat = (
        "# pxname,svname,scur,stot,econ,status,addr,check_status,bck,mode,\n"
        "80,FRONTEND,9,9,,OPEN,,,,http,\n"
        "80.blue,10.0.0.1:8080,2,5,0,UP 1/2,10.0.0.1:8080,INI,0,http,\n"
        "80.blue,fd00::1:8080,1,2,0,MAINT,[fd00::1]:8080,L4OK,0,http,\n"
        "80.blue,BACKEND,3,7,1,UP,,,,http,\n"
        "80.green.failover,10.0.0.2:8080,1,4,1,DOWN,10.0.0.2:8080,L4CON,0,http,\n"
        "80.green.failover,backup-10.0.0.1:8080,2,3,0,UP,10.0.0.1:8080,L4OK,1,http,\n"
        "80.green.failover,BACKEND,4,9,1,UP,,,,http,\n"
        "81,FRONTEND,0,0,,OPEN,,,,tcp,\n"
        "81.green,10.0.0.2:9090,0,6,0,UP,10.0.0.2:9090,L4OK,0,tcp,\n"
        "81.green,BACKEND,0,8,2,UP,,,,tcp,\n"
        "81.blue.failover,backup-10.0.0.2:9090,0,5,1,UP,10.0.0.2:9090,L4OK,1,tcp,\n"
        "81.blue.failover,BACKEND,0,9,4,UP,,,,tcp,\n\n"
    )
    table = (
        "# table: counts, type: string, size:1024, used:2\n"
        "0x1: key=80.blue use=0 exp=0 shard=0 gpc0=12 gpc1=3\n"
        "0x2: key=80.green use=1 exp=0 shard=0 gpc0=0 gpc1=0\n"
    )
    seen = parse(info, stat, "0x1 80 0\n0x2 81 -1\n", table)
    assert (seen.pid, seen.uptime_seconds, set(seen.ports)) == (42, 7, {80, 81})
    blue, green = seen.ports[80].side("blue"), seen.ports[80].side("green")
    assert (blue.in_flight, green.in_flight) == (3 + 2, 2)
    assert [seen.ports[80].served(slot) for slot in ("blue", "green")] == [(12, 3), (0, 0)]
    assert [seen.ports[81].served(slot) for slot in ("blue", "green")] == [(4, 3), (8 + 5, 2 + 1)]
    assert parse(info, stat, "", "No such table\n").ports[80].served("blue") == (0, 0), "a proxy of an earlier version"
    assert [(each.address, each.up, each.leaving, each.in_flight) for each in blue.servers if not each.backup] == [
        ("10.0.0.1:8080", True, False, 2),
        ("[fd00::1]:8080", False, True, 1),
    ]
    assert [each.checked for each in blue.servers] == [False, False, True]
    assert seen.reached == {"10.0.0.1:8080", "10.0.0.2:9090"}
    assert seen.ports[81].weights == {"blue": 0, "green": 0}
    assert seen.in_flight("blue") == 5
    assert seen.in_flight("green") == 2


@pytest.mark.parametrize(
    ("number", "reason", "says"),
    [(errno.EACCES, "PortForbidden", "from 1024 on"), (errno.EADDRNOTAVAIL, "PortRefused", "cannot be listened on")],
)
def test_a_refused_port_gives_the_reason(number: int, reason: str, says: str) -> None:
    error = _refused(80, "a/b", OSError(number, "no"), {})
    assert error.reason == reason
    assert "port 80 of a/b" in str(error)
    assert says in str(error)


def test_a_switch_lasts_until_the_last_answer_of_the_old_side() -> None:
    requests = [
        ProbeSample(1.0, 1.1, "blue", ""),
        ProbeSample(1.9, 2.05, "blue", ""),
        ProbeSample(2.1, 2.2, "green", ""),
        ProbeSample(2.2, 2.9, "", "refused"),
    ]
    assert switch_milliseconds(requests, []) is None
    assert switch_milliseconds(requests, [(2.0, "green")]) == pytest.approx(50)
    assert switch_milliseconds(requests, [(2.06, "green")]) == 0


@pytest.mark.parametrize("uid_map", ["0 0 4294967295", "0 0 1879113728", "0 100000 65536", "0 0 1879113729"])
def test_the_proxy_is_no_user_that_an_attempt_may_be(uid_map: str) -> None:
    first, count = choose(uid_map) or (0, 0)
    service = choose_for_service(uid_map)
    assert service == 65534 or not first <= service < first + count
