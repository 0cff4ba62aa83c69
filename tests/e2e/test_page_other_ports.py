"""Tests the page beside a hostile server on another port of the same address, visited with the same browser.

Browsers keep cookies by host and path, not by port. So the page's cookie has a secret path, which is in nothing that
another port gets to see.
"""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from email.message import Message

import pytest
from playwright.sync_api import Browser, expect

from browsers import SECONDS, Tab, browser
from pages import login_link
from remitup import RemitUp

expect.set_options(timeout=SECONDS)
PATHS = ("/", "/tasks", "/login", "/s-AAAAAAAAAAAAAAAAAAAAAA/", "/live/", "/static/page.css")


class Hostile(http.server.ThreadingHTTPServer):
    """Records what browsers send, and sets cookies for every port and path of the host."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, Message]] = []
        self.cookies: list[str] = ["own=1; Path=/"]
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sent(self, header: str) -> list[str]:
        return [value for _, headers in self.seen for value in headers.get_all(header, [])]


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hostile

    def do_GET(self) -> None:
        self.server.seen.append((self.path, self.headers))
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        for each in self.server.cookies:
            self.send_header("Set-Cookie", each)
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>hostile</title><p>hostile</p>")

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hostile() -> Iterator[Hostile]:
    with Hostile() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.fixture
def tab(up: RemitUp, chromium: Browser) -> Iterator[Tab]:
    one = Tab(chromium, login_link(up))
    yield one
    one.close()


def cookie(tab: Tab) -> tuple[str, str]:
    """Returns name and value of the page's cookie."""
    (found,) = tab.page.context.cookies(tab.origin + tab.base)
    assert (found["path"], found["httpOnly"], found["sameSite"]) == (tab.base, True, "Strict")
    return found["name"], found["value"]


def test_a_server_on_another_port_gets_no_cookie_of_the_page(tab: Tab, hostile: Hostile) -> None:
    name, value = cookie(tab)
    other = tab.page.context.new_page()
    for path in PATHS:
        other.goto(hostile.origin + path)
        assert name not in other.evaluate("document.cookie")
        other.evaluate("path => fetch(path, {method: 'POST', credentials: 'include'}).then(() => 0)", path)
    sent = hostile.sent("Cookie")
    assert "own=1" in sent  # the browser sends the cookies that it has for this port
    assert not [each for each in sent if name in each or value in each]


def test_a_way_from_the_page_to_another_port_tells_nothing_of_the_address(tab: Tab, hostile: Hostile) -> None:
    page = tab.go("/tasks")
    page.evaluate("to => { location.href = to }", hostile.origin + "/linked")
    expect(page).to_have_title("hostile")
    assert page.evaluate("document.referrer") == ""
    opened = tab.go("/")
    with tab.page.context.expect_page() as popup:
        opened.evaluate("to => { window.open(to) }", hostile.origin + "/popup")
    popup.value.wait_for_load_state()
    assert popup.value.evaluate("[document.referrer, String(window.opener)]") == ["", "null"]
    assert {path for path, _ in hostile.seen} >= {"/linked", "/popup"}
    assert [each for each in hostile.sent("Referer") if not each.startswith(hostile.origin)] == []


def test_another_port_learns_the_address_by_no_request(tab: Tab, hostile: Hostile) -> None:
    """A window that it opens to the page shows the login, and its content cannot be read."""
    origin, base = tab.origin, tab.base
    other = tab.page.context.new_page()
    other.goto(hostile.origin)
    with other.expect_popup() as popup:
        other.evaluate("to => { window.popup = window.open(to) }", origin + "/")
    popup.value.wait_for_url(f"{origin}/login")
    assert base.strip("/") not in popup.value.content()
    for path in ("/", "/login", "/tasks", "/live/"):
        found = other.evaluate(
            "url => fetch(url, {mode: 'no-cors', credentials: 'include'}).then(a => [a.type, a.url], () => 'refused')",
            origin + path,
        )
        assert found == "refused", path


def test_a_cookie_that_another_port_set_takes_nobody_s_session(tab: Tab, hostile: Hostile) -> None:
    name, _ = cookie(tab)
    hostile.cookies = [f"{name}=theirs; Path=/", f"{name}=theirs; Path=/s-AAAAAAAAAAAAAAAAAAAAAA"]
    other = tab.page.context.new_page()
    other.goto(hostile.origin)
    assert f"{name}=theirs" in other.evaluate("document.cookie")
    page = tab.go("/tasks")
    expect(page.get_by_role("heading", name="Tasks")).to_be_visible()
    expect(page.locator("#connection")).to_have_text("live")
