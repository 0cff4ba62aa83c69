"""What an egress gateway is given, and what it says, are the same on both sides."""

from __future__ import annotations

from typing import Any

import pytest

from policies import policy
from remit.backends.egress import GatewayConfig, GatewayRecord, NetworkUse
from remit.backends.egress.usage import UsageCounter
from remit.policy import Destination, Egress

RULES: list[list[dict[str, Any]]] = [
    [],
    [{"hosts": ["*"]}],
    [{"hosts": ["*.Example.com.", "bücher.example", "[2001:db8::1]", "127.0.0.1"], "ports": [80, 443]}],
    [{"hosts": ["a.test"], "ports": [1], "addresses": ["10.0.0.0/8", "fd00::/8"]}, {"hosts": ["b.test"]}],
]


def egress(*allow: dict[str, Any]) -> Egress:
    compiled = policy("p", "data", networks=["restricted"], egress={"allow": list(allow)})
    assert not compiled.problems
    return compiled.egress


@pytest.mark.parametrize("allow", RULES)
def test_the_rules_arrive_as_they_were_judged(allow: list[dict[str, Any]]) -> None:
    config = GatewayConfig((egress(*allow), egress({"hosts": ["*"]})), "t0ken", 4096)
    assert GatewayConfig.load(config.dumped()) == config
    assert "t0ken" not in repr(config)


@pytest.mark.parametrize(
    ("part", "by"),
    [
        (b'"a.test"', b'"a b"'),
        (b'"a.test"', b"7"),
        (b'"10.0.0.0/8"', b'"10.0.0.0/99"'),
        (b'"hosts"', b'"names"'),
        (b'"policy"', b'"p"'),
        (b'"t0ken"', b'""'),
        (b'"t0ken"', b"1"),
        (b'"bytesPerSecond":null', b'"bytesPerSecond":0'),
        (b'"bytesPerSecond":null', b'"bytesPerSecond":"9"'),
    ],
)
def test_what_is_not_understood_is_refused(part: bytes, by: bytes) -> None:
    rule = {"hosts": ["a.test"], "ports": [1], "addresses": ["10.0.0.0/8"]}
    text = GatewayConfig((egress(rule),), "t0ken").dumped()
    assert part in text
    with pytest.raises(ValueError):
        GatewayConfig.load(text.replace(part, by))


def test_a_record_is_read_back() -> None:
    counter = UsageCounter()
    counter.connected(Destination.parse("a.test:443")).sent_bytes += 7
    counter.denied(Destination.parse("b.test:1"), "no")
    record = GatewayRecord(counter.use, over=True)
    assert GatewayRecord.read(record.line()) == record
    assert GatewayRecord.read(GatewayRecord(NetworkUse()).line()) == GatewayRecord(NetworkUse())


@pytest.mark.parametrize(
    "line", [b"", b"x", b"[]", b"7", b'"use"', b'{"use": 1, "over": true}', b'{"use": {"destinations": [1]}}']
)
def test_other_lines_of_its_log_are_no_records(line: bytes) -> None:
    assert GatewayRecord.read(line) is None
