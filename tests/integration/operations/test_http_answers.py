"""Tests what a server asks of its clients: to retry later, and to send cookies."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from aiohttp import web

from remit.backends.breaker import FAILURES
from remit.backends.failure import LONGEST_RETRY_AFTER
from remit.operations.http.executor import HttpExecutor
from remit.policy.hosts import Address
from webserver import answering

from .conftest import Desk

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Site:
    """Two names of one server, and the headers of each request to it."""

    desk: Desk
    port: int = 0
    answer: Callable[[web.BaseRequest], web.Response] = lambda _: web.Response()
    cookies: list[tuple[str, str]] = field(default_factory=list)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        self.cookies.append((request.path, request.headers.get("Cookie", "")))
        return self.answer(request)

    async def get(self, path: str, **rest: Any) -> None:
        await self.desk.do(http={"url": f"http://a.test:{self.port}{path}", **rest})


async def resolve(name: str, port: int) -> list[Address]:
    return [ipaddress.ip_address("127.0.0.1")]


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    rule = {"hosts": ["*.test"], "ports": [1], "methods": ["GET", "POST"], "addresses": ["127.0.0.0/8"]}
    site = Site(Desk(HttpExecutor(resolve), [{"http": {"allow": [rule]}}]))
    async with answering(site.handle) as site.port:
        rule["ports"] = [site.port]
        yield site


def moving(to: str, *cookies: str) -> web.Response:
    response = web.Response(status=302, headers={"Location": to})
    for cookie in cookies:
        response.headers.add("Set-Cookie", cookie)
    return response


async def test_cookies_are_kept_for_their_origin_while_a_request_is_redirected(site: Site) -> None:
    other = f"http://b.test:{site.port}"
    way = {
        "/": moving("/in", "sid=1; Path=/in; HttpOnly", "all=2; Domain=test", "gone=3; Max-Age=0", "safe=4; Secure"),
        "/in": moving(f"{other}/elsewhere", "more=5; Path=/"),
        "/elsewhere": moving(f"http://a.test:{site.port}/in/back", "theirs=6", "stolen=7; Domain=a.test"),
        "/in/back": web.Response(),
    }
    site.answer = lambda request: way[request.path]
    await site.get("/", headers=[{"name": "Cookie", "value": "own=0"}])
    assert [(path, set(filter(None, said.split("; ")))) for path, said in site.cookies] == [
        ("/", {"own=0"}),
        ("/in", {"own=0", "sid=1"}),
        ("/elsewhere", set()),
        ("/in/back", {"sid=1", "more=5"}),
    ]
    site.cookies.clear()
    site.answer = lambda _: web.Response()
    await site.get("/in")  # another request starts without cookies
    assert site.cookies == [("/in", "")]


async def test_a_check_for_cookies_by_a_redirect(site: Site) -> None:
    site.answer = lambda request: (
        web.Response() if "seen" in request.headers.get("Cookie", "") else moving("/", "seen=1")
    )
    await site.get("/")
    assert site.cookies == [("/", ""), ("/", "seen=1")]


async def test_cookies_are_bounded(site: Site) -> None:
    many = [f"c{number}={'x' * 50}" for number in range(60)]
    odd = ["large=" + "x" * 5000, "umlaut=\u00fc"]
    site.answer = lambda request: moving("/end", *many, *odd) if request.path == "/" else web.Response()
    await site.get("/")
    assert len(site.cookies[1][1].split("; ")) == 50
    assert "large" not in site.cookies[1][1]
    assert "umlaut" not in site.cookies[1][1]


@pytest.mark.parametrize(
    ("said", "least", "most"),
    [
        ("7", 7, 7),
        ("0", 0, 0),
        (timedelta(seconds=900), 1, 900),
        (timedelta(seconds=-900), 0, 0),
        ("9" * 5000, LONGEST_RETRY_AFTER, LONGEST_RETRY_AFTER),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", 0, 0),
        ("-7", 0, 0),
        ("soon", 0, 0),
        ("\u0667", 0, 0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after(site: Site, status: int, said: str | timedelta, least: float, most: float) -> None:
    if isinstance(said, timedelta):
        said = format_datetime(datetime.now(UTC) + said, usegmt=True)
    site.answer = lambda _: web.Response(status=status, headers={"Retry-After": said})
    ended = await site.desk.attempt(http={"url": f"http://a.test:{site.port}/"})
    assert (ended.reason, ended.retryable) == ("UnexpectedStatus", True)
    assert least <= ended.retry_after_seconds <= most


async def test_the_circuits_of_a_namespace_are_its_own(site: Site) -> None:
    site.answer = lambda _: web.Response(status=500)
    other = replace(site.desk, namespace="other")

    async def reason(desk: Desk) -> str:
        return (await desk.attempt(http={"url": f"http://a.test:{site.port}/"})).reason

    assert [await reason(site.desk) for _ in range(FAILURES + 1)] == ["UnexpectedStatus"] * FAILURES + ["CircuitOpen"]
    assert await reason(other) == "UnexpectedStatus"
    assert await reason(site.desk) == "CircuitOpen"


async def test_a_redirect_that_is_not_followed_need_not_lead_anywhere(site: Site) -> None:
    site.answer = lambda _: moving("http://[", "umlaut=\u00fc")
    await site.get("/", followRedirects=False, expectedStatus=[302])
