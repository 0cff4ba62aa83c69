"""Tests HTTP requests to a real server, under policies."""

from __future__ import annotations

import asyncio
import ipaddress
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest

from remit.backends import breaker
from remit.backends.egress.dialing import LOOKUPS
from remit.backends.failure import OperationFailed
from remit.backends.outcome import Outcome
from remit.controlplane.certificates import ensure_tls
from remit.errors import PolicyDenied
from remit.execution.operations import execute
from remit.operations.http import transport
from remit.operations.http.executor import HttpExecutor
from remit.policy.hosts import Address

from .conftest import Desk
from .httpserver import Server, serving

LOCAL = ["127.0.0.0/8"]


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


class Names:
    """A name server that a test controls."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str]] = {"api.test": ["127.0.0.1"], "other.test": ["127.0.0.1"]}
        self.asked = 0

    async def __call__(self, name: str, port: int) -> list[Address]:
        self.asked += 1
        if name not in self.answers:
            raise OSError(-2, "Name or service not known")
        return [ipaddress.ip_address(text) for text in self.answers[name]]


@pytest.fixture
def names() -> Names:
    return Names()


@pytest.fixture
def desk(server: Server, names: Names) -> Desk:
    rules = [
        {"hosts": ["api.test"], "ports": [server.port], "methods": ["GET", "HEAD", "POST", "PUT"], "addresses": LOCAL},
        {"hosts": ["other.test"], "ports": [server.port], "paths": ["/open/**"], "addresses": LOCAL},
        {"hosts": ["public.test"], "ports": [server.port]},
    ]
    return Desk(HttpExecutor(resolve=names), [{"http": {"allow": rules}}])


async def send(desk: Desk, server: Server, path: str = "/", host: str = "api.test", **rest: Any) -> str:
    values = rest.pop("values", None)
    return await desk.do(values, http={"url": f"http://{host}:{server.port}{path}", **rest})


async def failure(desk: Desk, server: Server, path: str, **rest: Any) -> OperationFailed:
    with pytest.raises(OperationFailed) as caught:
        await send(desk, server, path, **rest)
    return caught.value


async def attempt(desk: Desk, server: Server, path: str, **rest: Any) -> Outcome:
    return await desk.attempt(http={"url": f"http://api.test:{server.port}{path}", **rest})


async def test_a_request_and_what_is_kept_of_it(desk: Desk, server: Server) -> None:
    assert await send(desk, server, "/a?b=c") == f"GET http://api.test:{server.port}/a: 200, 6 bytes"
    assert desk.output.stdout == b"GET /a"
    exchange = orjson.loads(desk.output.stderr)
    assert (exchange["status"], exchange["address"], exchange["bodyBytes"]) == (200, "127.0.0.1", 6)
    assert ["X-Answer", "yes"] in [[name.title(), value] for name, value in exchange["headers"]]
    assert exchange["seconds"] >= exchange["firstByteSeconds"] > 0


async def test_headers_and_body(desk: Desk, server: Server) -> None:
    await send(
        desk,
        server,
        method="POST",
        body="data",
        headers=[
            {"name": "X-Plain", "value": "1"},
            {"name": "Authorization", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}},
        ],
        values={"headers[1].valueFrom.secretKeyRef": b"Bearer x\n"},
    )
    method, _, headers, body = server.seen[0]
    assert (method, body, headers["X-Plain"], headers["Authorization"]) == ("POST", b"data", "1", "Bearer x")
    assert headers["Host"] == f"api.test:{server.port}"


async def test_expectations(desk: Desk, server: Server) -> None:
    assert (await failure(desk, server, "/status?code=404")).reason == "UnexpectedStatus"
    await send(desk, server, "/status?code=404", expectedStatus=[404], expectedBody="^t.ld$")
    assert (await failure(desk, server, "/", expectedBody="nothing like it")).reason == "UnexpectedBody"


@pytest.mark.parametrize("pattern", ["(", "(.*(a|b|ab|ba)){900}c"])
async def test_a_pattern_that_cannot_be_looked_for(desk: Desk, server: Server, pattern: str) -> None:
    failed = await failure(desk, server, "/big?bytes=200000", expectedBody=pattern)
    assert (failed.reason, failed.retryable) == ("Invalid", False)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"expectedBody": "a(b"}, r"^spec.http.expectedBody: column \d+: missing"),
        ({"maxResponseBytes": "65Mi"}, r"^spec.http.maxResponseBytes: 65Mi is more than 64Mi"),
    ],
)
async def test_what_cannot_be_expected_is_not_sent(
    desk: Desk, server: Server, wrong: dict[str, str], told: str
) -> None:
    failed = await failure(desk, server, "/", method="POST", **wrong)
    assert (failed.reason, failed.retryable, failed.category) == ("Invalid", False, "Invalid")
    assert re.search(told, str(failed))
    assert server.seen == []


@pytest.mark.parametrize(
    ("method", "code", "retryable"),
    [("GET", 503, True), ("POST", 503, False), ("POST", 429, True), ("GET", 404, False), ("PUT", 500, True)],
)
async def test_only_what_is_safe_is_repeated(
    desk: Desk, server: Server, method: str, code: int, retryable: bool
) -> None:
    ended = await attempt(desk, server, f"/status?code={code}", method=method)
    assert (ended.reason, ended.retryable) == ("UnexpectedStatus", retryable)


async def test_a_lost_answer(desk: Desk, server: Server) -> None:
    lost = await attempt(desk, server, "/cut", method="POST")
    assert (lost.reason, lost.retryable) == ("ConnectionLost", False)
    assert "not safe to repeat" in lost.message
    key = [{"name": "Idempotency-Key", "value": "1"}]
    assert (await attempt(desk, server, "/cut", method="POST", headers=key)).retryable


async def test_a_port_without_a_listener(desk: Desk, server: Server) -> None:
    desk.policies[0]["http"]["allow"][0]["ports"].append(1)
    with pytest.raises(OperationFailed) as caught:
        await desk.do(http={"url": "http://api.test:1/", "method": "POST"})
    assert (caught.value.reason, caught.value.retryable) == ("ConnectFailed", True)


async def test_size_is_capped(desk: Desk, server: Server) -> None:
    await send(desk, server, "/big?bytes=1000", maxResponseBytes="1000")
    assert (await failure(desk, server, "/big?bytes=1001", maxResponseBytes="1000")).reason == "ResponseTooLarge"
    assert (await failure(desk, server, "/endless")).reason == "ResponseTooLarge"


async def test_redirects_are_judged(desk: Desk, server: Server) -> None:
    await send(desk, server, "/redirect?to=/b")
    assert desk.output.stdout.endswith(b"GET /b")
    with pytest.raises(PolicyDenied, match=r"at /closed; spec.http.allow\[1\].paths has /open/\*\*"):
        await send(desk, server, f"/redirect?to=http://other.test:{server.port}/closed")
    await send(desk, server, f"/redirect?to=http://other.test:{server.port}/open/x")
    with pytest.raises(PolicyDenied, match=r"names api\.test"):
        await send(desk, server, f"/redirect?to=http://127.0.0.1:{server.port}/")
    assert (await failure(desk, server, "/redirect?to=file:///etc/passwd")).reason == "BadRedirect"
    assert (await failure(desk, server, "/loop")).reason == "TooManyRedirects"
    moved = await failure(desk, server, "/redirect?to=/b", followRedirects=False)
    assert moved.reason == "UnexpectedStatus"


async def test_credentials_stay_with_their_origin(desk: Desk, server: Server) -> None:
    headers = [
        {"name": "Authorization", "value": "Basic eA=="},
        {"name": "X-Key", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}},
        {"name": "X-Plain", "value": "1"},
    ]
    values = {"headers[1].valueFrom.secretKeyRef": b"canary"}
    await send(desk, server, f"/redirect?to=http://other.test:{server.port}/open/x", headers=headers, values=values)
    first, second = (seen[2] for seen in server.seen)
    assert "Authorization" in first
    assert "X-Key" in first
    assert not {"Authorization", "X-Key"} & set(second)
    assert second["X-Plain"] == "1"
    server.seen.clear()
    await send(desk, server, "/redirect?to=/b", headers=headers, values=values)
    assert server.seen[1][2]["X-Key"] == "canary"


async def test_a_redirected_post(desk: Desk, server: Server) -> None:
    await send(desk, server, "/redirect?to=/b&code=303", method="POST", body="x")
    assert [(seen[0], seen[3]) for seen in server.seen] == [("POST", b"x"), ("GET", b"")]
    server.seen.clear()
    await send(desk, server, "/redirect?to=/b&code=307", method="POST", body="x")
    assert [(seen[0], seen[3]) for seen in server.seen] == [("POST", b"x"), ("POST", b"x")]


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_a_name_that_leads_inside_is_denied(desk: Desk, server: Server, names: Names, address: str) -> None:
    names.answers["public.test"] = [address]
    with pytest.raises(PolicyDenied, match=r"spec.http.allow\[2\].addresses"):
        await send(desk, server, host="public.test")
    assert server.seen == []


async def test_a_name_is_resolved_once(desk: Desk, server: Server, names: Names) -> None:
    """The address that the policy checked is the one that is connected to; a second response of the name server has no
    effect."""
    await send(desk, server)
    assert names.asked == 1


@pytest.mark.parametrize(
    "url",
    [
        "http://user:pass@api.test/",
        "http://api.test@evil.test/",
        "http://0x7f.1/",
        "http://2130706433/",
        "http://[::1]/",
    ],
)
async def test_smuggled_hosts(desk: Desk, url: str) -> None:
    with pytest.raises(PolicyDenied):
        await desk.do(http={"url": url})


async def test_a_ceiling_must_allow_it_too(desk: Desk, server: Server) -> None:
    desk.ceilings.append({"http": {"allow": [{"hosts": ["api.test"], "ports": [server.port]}]}})
    with pytest.raises(PolicyDenied, match=r"remit-system/p0 would have to list"):
        await send(desk, server)


async def test_a_header_has_one_line(desk: Desk, server: Server) -> None:
    headers = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}]
    failed = await failure(
        desk, server, "/", headers=headers, values={"headers[0].valueFrom.secretKeyRef": b"a\r\nB: c"}
    )
    assert (failed.reason, failed.retryable) == ("Invalid", False)
    assert server.seen == []


@pytest.mark.parametrize("value", [b"a\x01b", b"a\x7fb", b"canary\xff", b"a\0b"])
async def test_a_header_is_text(desk: Desk, server: Server, value: bytes) -> None:
    headers = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s", "key": "t"}}}]
    failed = await failure(desk, server, "/", headers=headers, values={"headers[0].valueFrom.secretKeyRef": value})
    assert (failed.reason, failed.retryable) == ("Invalid", False)
    assert "canary" not in str(failed)
    assert server.seen == []


async def test_a_header_may_be_in_any_language(desk: Desk, server: Server) -> None:
    await send(desk, server, headers=[{"name": "X", "value": "é"}])
    assert server.seen[0][2]["X"] == "é"


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "hOST",
        "Content-Length",
        "Transfer-Encoding",
        "Connection",
        "Upgrade",
        "TE",
        "Proxy-Authorization",
        "X-Original-URL",
        "X_Rewrite_URL",
        "X-Forwarded-Host",
        "X-HTTP-Method-Override",
    ],
)
async def test_the_host_and_the_framing_are_remits_own(desk: Desk, server: Server, name: str) -> None:
    """A Host header of the task would reach another site of the server than the one that the policy checked."""
    with pytest.raises(PolicyDenied, match=r"headers\[0\]: .* is Remit's own"):
        await send(desk, server, headers=[{"name": name, "value": "internal.test"}])
    assert server.seen == []


@pytest.mark.parametrize(
    "to", ["http://[", "http://[::1", "http://\u2100.test/", "http://\uff41pi.test/", "//x:99999/"]
)
async def test_a_redirect_that_is_no_url(desk: Desk, server: Server, to: str) -> None:
    with pytest.raises((OperationFailed, PolicyDenied)):
        await send(desk, server, f"/redirect?to={quote(to)}")
    assert len(server.seen) == 1


async def test_a_body_that_drips_ends_with_the_task(desk: Desk, server: Server) -> None:
    work = replace(desk.work(http={"url": f"http://api.test:{server.port}/drip"}), timeout_seconds=0.5)
    ended = await execute(desk.executor, work, desk.output, asyncio.Event())
    assert (ended.reason, len(server.seen)) == ("Timeout", 1)


async def test_a_compressed_body_is_not_unfolded(desk: Desk, server: Server) -> None:
    """The server sends ten megabytes as ten kilobytes although compression was not requested."""
    await send(desk, server, "/bomb", maxResponseBytes="64Ki")
    assert len(desk.output.stdout) < 64 << 10
    assert desk.output.stdout[:2] == b"\x1f\x8b"


async def test_cancelled_in_mid_answer(desk: Desk, server: Server) -> None:
    work = desk.work(http={"url": f"http://api.test:{server.port}/slow"})
    sending = asyncio.create_task(desk.executor.execute(work, desk.output))
    while not server.seen:
        await asyncio.sleep(0.001)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending


async def test_a_storm_opens_the_circuit(desk: Desk, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    executor = desk.executor
    assert executor.breaker is not None
    server.failures = breaker.FAILURES
    for _ in range(breaker.FAILURES):
        assert (await failure(desk, server, "/storm")).reason == "UnexpectedStatus"
    opened = await failure(desk, server, "/storm")
    assert (opened.reason, opened.retryable, len(server.seen)) == ("CircuitOpen", True, breaker.FAILURES)
    assert executor.breaker.open() == [f"ns/api.test:{server.port}"]
    await send(desk, server, "/open/x", host="other.test")  # other hosts are not delayed
    monkeypatch.setattr(breaker, "OPEN_SECONDS", 0.0)
    await send(desk, server, "/storm")
    assert executor.breaker.open() == []


async def test_tls_of_a_private_authority(tmp_path: Path, names: Names) -> None:
    material = ensure_tls(tmp_path, ["api.test"])
    authority = {"caFrom": {"configMapKeyRef": {"name": "ca", "key": "pem"}}}
    pem = {"caFrom.configMapKeyRef": material.authority.read_bytes()}
    async with serving(material.server_context()) as server:
        rule = {"hosts": ["api.test", "other.test"], "ports": [server.port], "addresses": LOCAL}
        desk = Desk(HttpExecutor(resolve=names), [{"http": {"allow": [rule]}}])
        url = f"https://api.test:{server.port}/"
        await desk.do(pem, http={"url": url, **authority})
        assert desk.output.stdout == b"GET /"
        for values, wrong in (({}, {"url": url}), (pem, {"url": url.replace("api", "other"), **authority})):
            with pytest.raises(OperationFailed) as caught:
                await desk.do(values, http=wrong)
            assert caught.value.reason == "TlsFailed"
        with pytest.raises(OperationFailed, match="no certificate in PEM form"):
            await desk.do({"caFrom.configMapKeyRef": b"junk"}, http={"url": url, **authority})
        for scheme in ("http", "HTTP", "hTtP"):
            with pytest.raises(OperationFailed, match="not encrypted"):
                await desk.do(pem, http={"url": f"{url}redirect?to={scheme}://api.test:{server.port}/", **authority})


async def test_a_name_server_that_does_not_answer_holds_a_share_of_the_threads_only(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelling the wait does not free the thread that resolves the name."""
    asked, answered = 0, asyncio.Event()

    async def slow(name: str, port: int) -> list[Address]:
        nonlocal asked
        asked += 1
        await answered.wait()
        raise OSError(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(transport, "RESOLVE_SECONDS", 0.2)
    rule = {"hosts": ["*.slow.test"], "ports": [server.port], "addresses": LOCAL}
    desk = Desk(HttpExecutor(resolve=slow), [{"http": {"allow": [rule]}}])
    outcomes = await asyncio.gather(
        *(desk.do(http={"url": f"http://{n}.slow.test:{server.port}/"}) for n in range(LOOKUPS + 4)),
        return_exceptions=True,
    )
    assert {getattr(outcome, "reason", outcome) for outcome in outcomes} == {"ResolveFailed"}
    assert asked == LOOKUPS
    answered.set()
