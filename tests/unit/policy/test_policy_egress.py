"""Tests where a task may connect to: by name, by port, and by the address of the name."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies import allowing, policy, request
from remit.errors import InvalidInput
from remit.policy.addresses import METADATA, admitted, special_kind
from remit.policy.deciding import decide
from remit.policy.egress import Egress, Forbidden, Permit, permits
from remit.policy.hosts import Destination, canonical_host
from remit.policy.testing import Case, run_case

PUBLIC = ipaddress.ip_address("93.184.215.14")


def rules(*allow: dict[str, Any], name: str = "p") -> Egress:
    compiled = policy(name, networks=["restricted"], egress={"allow": list(allow)})
    assert not compiled.problems
    return compiled.egress


def ask(host: str, port: int, *egress: Egress) -> Permit | Forbidden:
    return permits(Destination(canonical_host(host), port), egress)


def usable(host: str, address: str, *egress: Egress) -> bool:
    permit = ask(host, 443, *egress)
    return isinstance(permit, Permit) and bool(permit.screen([ipaddress.ip_address(address)])[0])


@pytest.mark.parametrize(
    ("pattern", "host", "matches"),
    [
        ("example.com", "EXAMPLE.com.", True),
        ("Example.COM.", "example.com", True),
        ("example.com", "a.example.com", False),
        ("example.com", "notexample.com", False),
        ("example.com", "exаmple.com", False),  # a Cyrillic letter
        ("bücher.example", "xn--bcher-kva.example", True),
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", True),
        ("*.example.com", "example.com", False),
        ("*.example.com", "a.example.com.evil.test", False),
        ("*", "anything.test", True),
        ("*", "8.8.8.8", True),
        ("10.0.0.1", "0xa.1", True),
        ("10.0.0.1", "::ffff:10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
    ],
)
def test_hosts(pattern: str, host: str, matches: bool) -> None:
    assert isinstance(ask(host, 443, rules({"hosts": [pattern]})), Permit) is matches


def test_ports() -> None:
    egress = rules({"hosts": ["a.test"], "ports": [443, 8443]})
    assert isinstance(ask("a.test", 8443, egress), Permit)
    assert ask("a.test", 22, egress) == Forbidden(
        "port 22 of a.test is not in spec.egress.allow[0].ports of policy data/p"
    )


def test_no_rules_and_no_policies_reach_nothing() -> None:
    assert ask("a.test", 443, rules()) == Forbidden("a.test:443 is not allowed: policy data/p has no spec.egress.allow")
    assert ask("a.test", 443) == Forbidden("nothing allows a.test:443")


def test_every_policy_must_allow() -> None:
    own, ceiling = rules({"hosts": ["a.test", "b.test"]}), rules({"hosts": ["a.test"]}, name="ceiling")
    assert isinstance(ask("a.test", 443, own, ceiling), Permit)
    assert ask("b.test", 443, own, ceiling) == Forbidden(
        "b.test:443 is not allowed: no spec.egress.allow[].hosts of policy data/ceiling names b.test"
    )


def test_every_policy_must_admit_the_address() -> None:
    own, ceiling = rules({"hosts": ["a.test"], "addresses": ["10.0.0.0/8"]}), rules({"hosts": ["*"]}, name="ceiling")
    assert usable("a.test", "10.1.2.3", own)
    assert not usable("a.test", "10.1.2.3", own, ceiling)
    assert usable("a.test", str(PUBLIC), own, ceiling)


def test_the_addresses_of_one_rule_do_not_help_another() -> None:
    egress = rules({"hosts": ["a.test"], "addresses": ["10.0.0.0/8"]}, {"hosts": ["b.test"]})
    assert usable("a.test", "10.1.2.3", egress)
    assert not usable("b.test", "10.1.2.3", egress)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.31.255.255", "192.168.1.1", "169.254.1.1", "169.254.169.254",
        "100.64.0.1", "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "240.0.0.1", "::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:10.0.0.1", "::10.0.0.1", "64:ff9b::10.0.0.1", "64:ff9b:1::1", "2002:a00:1::1", "2001:0:a00:1::",
        "::ffff:0:10.0.0.1", "4000::1",
    ],
)  # fmt: skip
def test_what_is_not_public_must_be_named(address: str) -> None:
    assert special_kind(ipaddress.ip_address(address))
    permit = ask("a.test", 443, rules({"hosts": ["a.test"]}))
    assert isinstance(permit, Permit)
    found, objection = permit.screen([ipaddress.ip_address(address), PUBLIC])
    assert found == [PUBLIC]
    assert "spec.egress.allow[0].addresses" in (objection or "")


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_the_machines_own_address_must_be_named_however_public_it_is(address: str) -> None:
    own = ipaddress.ip_address(address)
    known = {ipaddress.ip_address(address.removeprefix("::ffff:"))}
    permit = ask("a.test", 443, rules({"hosts": ["a.test"]}))
    assert isinstance(permit, Permit)
    found, objection = permit.screen([own, PUBLIC], known)
    assert found == [PUBLIC]
    assert "the operator's own machine: policy" in (objection or "")
    for rule in (
        {"hosts": ["a.test"], "addresses": ["8.8.8.8/32", "2606:4700::1111/128"]},
        {"hosts": [str(min(known))]},
    ):
        named = permits(Destination(canonical_host(rule["hosts"][0]), 443), [rules(rule)])
        assert isinstance(named, Permit)
        assert named.screen([own], known)[1] is None


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::8.8.8.8", "2002:808:808::1", "::ffff:8.8.8.8"]
)
def test_the_public_internet_needs_no_naming(address: str) -> None:
    assert special_kind(ipaddress.ip_address(address)) is None
    assert usable("a.test", address, rules({"hosts": ["a.test"]}))


@pytest.mark.parametrize("named", ["169.254.0.0/16", "0.0.0.0/0", "169.254.169.254/31"])
def test_no_wide_network_names_a_metadata_address(named: str) -> None:
    assert not usable("a.test", "169.254.169.254", rules({"hosts": ["a.test"], "addresses": [named]}))


def test_a_metadata_address_can_be_named() -> None:
    egress = rules({"hosts": ["a.test"], "addresses": ["169.254.169.254/32"]}, {"hosts": ["169.254.170.2"]})
    assert usable("a.test", "169.254.169.254", egress)
    assert usable("169.254.170.2", "169.254.170.2", egress)
    assert special_kind(ipaddress.ip_address("169.254.169.254")) == METADATA


def test_to_list_an_address_as_a_host_names_it_and_no_other() -> None:
    egress = rules({"hosts": ["10.0.0.1", "a.test"]})
    assert usable("10.0.0.1", "10.0.0.1", egress)
    assert not usable("a.test", "10.0.0.2", egress)


@given(st.ip_addresses())
def test_what_is_admitted_unnamed_is_global(address: Any) -> None:
    if admitted(address, ()):
        assert special_kind(address) is None
        assert not (address.is_private or address.is_loopback or address.is_link_local or address.is_multicast)
    else:
        assert special_kind(address)


@given(st.ip_addresses(v=4))
def test_an_address_is_no_freer_when_it_is_carried_in_another(address: ipaddress.IPv4Address) -> None:
    for carrier in (0xFFFF << 32, 0x64FF9B << 96):
        inside = ipaddress.IPv6Address(carrier | int(address))
        assert admitted(inside, ()) == admitted(address, ())
    sixtofour = ipaddress.IPv6Address(0x2002 << 112 | int(address) << 80 | 1)
    assert admitted(sixtofour, ()) == admitted(address, ())


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"hosts": ["a..b"]}, "spec.egress.allow[0].hosts[0]"),
        ({"hosts": ["a.test", "*.10.0.0.1"]}, "spec.egress.allow[0].hosts[1]"),
        ({"hosts": ["a.*.test"]}, "spec.egress.allow[0].hosts[0]"),
        ({"hosts": ["https://a.test"]}, "spec.egress.allow[0].hosts[0]"),
        ({"hosts": ["a.test:443"]}, "spec.egress.allow[0].hosts[0]"),
        ({"hosts": ["a.test"], "addresses": ["10.0.0.1/8"]}, "spec.egress.allow[0].addresses[0]"),
        ({"hosts": ["a.test"], "addresses": ["ten"]}, "spec.egress.allow[0].addresses[0]"),
    ],
)
def test_a_mistake_is_found_where_it_is(rule: dict[str, Any], field: str) -> None:
    compiled = policy(networks=["restricted"], egress={"allow": [rule]})
    assert [problem.field for problem in compiled.problems] == [field]


def test_rules_without_the_network_they_are_for_are_a_mistake() -> None:
    compiled = policy(networks=["none", "host"], egress={"allow": [{"hosts": ["a.test"]}]})
    assert [problem.field for problem in compiled.problems] == ["spec.egress.allow"]


def test_a_decision_carries_the_rules_of_the_policy_and_of_every_ceiling() -> None:
    spec: dict[str, Any] = {"networks": ["none", "restricted"], "egress": {"allow": [{"hosts": ["a.test"]}]}}
    own = allowing(".*", name="own", **spec)
    ceiling = allowing(".*", name="top", namespace="system", **spec)
    decided = decide(request("true", network="restricted"), [own], [ceiling])
    assert [egress.policy for egress in decided.egress] == ["data/own", "system/top"]
    assert decide(request("true"), [own], [ceiling]).egress == ()


def test_a_ceiling_that_does_not_list_the_network_stands_in_the_way() -> None:
    own = allowing(".*", name="own", networks=["restricted"], egress={"allow": [{"hosts": ["a.test"]}]})
    decided = decide(request("true", network="restricted"), [own], [allowing(".*", namespace="system")])
    assert not decided.allowed
    assert "spec.networks" in decided.message


def test_a_policy_test_says_what_is_reached() -> None:
    own = allowing("true", networks=["restricted"], egress={"allow": [{"hosts": ["*.a.test", "10.0.0.1", "*"]}]})
    case = {
        "line": "true",
        "namespace": "data",
        "network": "restricted",
        "expect": {"decision": "Allowed", "reaches": ["b.a.test", "10.0.0.1"], "refuses": ["b.a.test:22", "127.0.0.1"]},
    }
    assert run_case(Case.model_validate(case), [own], "system").mismatches == ()
    case["expect"] = {"decision": "Allowed", "reaches": ["b.a.test:22"], "refuses": ["b.a.test"]}
    assert run_case(Case.model_validate(case), [own], "system").mismatches == (
        "should be reached: port 22 of b.a.test is not in spec.egress.allow[0].ports of policy data/p",
        "b.a.test should be refused, is allowed",
    )
    case["expect"] = {"decision": "Allowed", "reaches": ["https://b.a.test"]}
    with pytest.raises(InvalidInput, match="not a port"):
        run_case(Case.model_validate(case), [own], "system")
