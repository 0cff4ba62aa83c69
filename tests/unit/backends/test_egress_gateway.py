"""Tests that configuration and records of an egress gateway are encoded and decoded consistently."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import structlog

from policies import policy
from remit.backends.egress import gateway
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.egress.gatewayrecords import GatewayRecord
from remit.backends.egress.targets import PROXY_USER
from remit.backends.egress.usage import NetworkUse, UsageCounter
from remit.policy.egress import Egress
from remit.policy.hosts import Destination

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


async def test_it_serves_and_tells_what_was_used_until_sigterm(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    listener = gateway._listener(0)
    port = listener.getsockname()[1]
    serving = asyncio.create_task(gateway.serve(GatewayConfig((egress({"hosts": ["a.test"]}),), "t0ken"), listener))
    said = b""
    async with asyncio.timeout(30):
        while said.count(b"\n") < 1:
            await asyncio.sleep(0.05)
            said += capsysbinary.readouterr().out
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        authorized = b"Proxy-Authorization: Basic " + base64.b64encode(f"{PROXY_USER}:t0ken".encode())
        writer.write(b"CONNECT b.test:443 HTTP/1.1\r\nHost: b.test:443\r\n" + authorized + b"\r\n\r\n")
        assert (await reader.readline()).split()[1] == b"403"
        writer.close()
        os.kill(os.getpid(), signal.SIGTERM)
        await serving
    first, *_, last = map(GatewayRecord.read, (said + capsysbinary.readouterr().out).splitlines())
    assert first == GatewayRecord(NetworkUse())
    assert last is not None
    assert (last.over, last.use.denied) == (True, 1)


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["empty"]])
def test_what_it_cannot_begin_with_is_said(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("")
    configured = structlog.get_config()
    try:
        assert gateway.main([str(tmp_path / name) for name in arguments]) == 1
    finally:
        structlog.configure(**configured)
    assert "the egress gateway cannot begin" in capsys.readouterr().err
