"""Tests the live page of `remit up`: access, protection against other sites, and live changes."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from pages import TIMEOUT, Looker, login_link, looking, regions
from remitup import RemitUp, until


@pytest.fixture(scope="module")
def looker(up: RemitUp) -> Iterator[Looker]:
    with looking(up) as one:
        yield one


def stranger(up: RemitUp) -> httpx.Client:
    """Provides a client without a session."""
    return httpx.Client(base_url=login_link(up).partition("/login")[0], timeout=TIMEOUT, trust_env=False)


def test_a_link_logs_in_once_and_its_token_stays_nowhere(up: RemitUp) -> None:
    link = login_link(up)
    token = link.partition("token=")[2]
    with stranger(up) as browser:
        assert browser.head(link).status_code == 503  # a preview does not use up the link
        assert browser.get(link, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 503
        first = browser.get(link)
        base = first.headers["Location"].removesuffix("/")
        assert re.fullmatch(r"/s-[\w-]{22}", base)
        assert (first.status_code, token in str(first.headers)) == (303, False)
        cookie = first.headers["Set-Cookie"]
        assert {"HttpOnly", "SameSite=Strict", f"Path={base}"} <= set(cookie.split("; "))
        page = browser.get(f"{base}/")
        assert page.status_code == 200
        assert token not in page.text
    with stranger(up) as other:
        again = other.get(link)
        assert (again.status_code, again.headers["Location"]) == (303, "/login?refused")
        assert "Set-Cookie" not in again.headers
        assert "used already" in other.get("/login?refused").text
        assert other.get("/").headers["Location"] == "/login"
    assert token not in up.log.read_text()


def test_the_log_and_what_is_printed_have_no_token(up: RemitUp) -> None:
    assert re.search(r"See what happens: http://127\.0\.0\.1:\d+ \('remit page'", up.log.read_text())
    assert "token=" not in up.log.read_text()


def test_nobody_sees_anything_without_a_session(up: RemitUp, looker: Looker) -> None:
    with stranger(up) as browser:
        for base in ("", looker.base):
            for path in ("/", "/nothing"):
                answer = browser.get(base + path)
                assert (answer.status_code, answer.headers["Location"]) == (303, "/login")
            origin = str(browser.base_url).rstrip("/")
            assert browser.post(f"{base}/logout", headers={"Origin": origin}).status_code == 401
        assert browser.get(f"{looker.base}/live/").status_code == 401
        browser.cookies.set("remit-session", "guess")
        assert browser.get(f"{looker.base}/").status_code == 303
        assert browser.get(f"{looker.base}/live/").status_code == 401


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "OPTIONS"])
@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Dest": "document"}])
def test_the_base_is_answered_as_any_other_path_is(
    up: RemitUp, looker: Looker, method: str, headers: dict[str, str]
) -> None:
    """A client cannot find out by requests which path is the base, and an address from before a restart leads to the
    login."""
    other = "/s-" + "A" * (len(looker.base) - 3)
    with stranger(up) as browser:
        headers = {**headers, "Origin": looker.origin}
        for path in ("", "/", "/tasks", "/nothing", "/live", "/live/", "/live/tasks", "/login", "/static/page.css"):
            right, wrong = (browser.request(method, base + path, headers=headers) for base in (looker.base, other))
            assert right.status_code in {303, 401, 403}, path
            for answer in (right, wrong):
                answer.headers.pop("Date")
            assert (right.status_code, right.headers, right.text) == (wrong.status_code, wrong.headers, wrong.text), (
                path
            )


def test_outside_the_base_a_session_is_none(looker: Looker) -> None:
    """Requests that another port makes a browser send, or that a user types, reveal nothing about the base."""
    session = "; ".join(f"{each.name}={each.value}" for each in looker.client.cookies.jar)
    assert session
    for path in ("/", "/login", "/tasks", "/nothing", "/static/page.css", "/static/page.js", "/login?token=x"):
        answer = looker.client.get(looker.origin + path, headers={"Cookie": session})
        assert answer.status_code in {200, 303}
        assert answer.headers.get("Location", "/login").partition("?")[0] == "/login"
        assert looker.base.strip("/") not in answer.text + str(answer.headers)


def test_the_log_has_no_base(up: RemitUp, looker: Looker) -> None:
    looker.get("/tasks/default/none")
    assert looker.base.strip("/") not in up.log.read_text()


def test_every_answer_forbids_what_a_page_does_not_need(up: RemitUp, looker: Looker) -> None:
    outside = ("/", "/nothing", "/static/page.css", "/login?token=x", "/static/none", "/logout")
    for answer in (*map(looker.get, ("/", "/nothing", "/logout")), *map(looker.outside, outside)):
        headers, path = answer.headers, answer.url
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy, path
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert (headers["X-Frame-Options"], headers["Referrer-Policy"]) == ("DENY", "same-origin")
        assert "Server" not in headers


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1"},
        {"Origin": "{origin}", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "{origin}", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https{rest}"},
    ],
)
def test_another_site_cannot_do_anything(looker: Looker, headers: dict[str, str]) -> None:
    filled = {
        name: value.replace("{origin}", looker.origin).replace("{rest}", looker.origin.removeprefix("http"))
        for name, value in headers.items()
    }
    assert looker.client.post("/logout", headers=filled).status_code == 403
    assert looker.get("/").status_code == 200


def test_another_site_cannot_open_a_stream(looker: Looker) -> None:
    assert looker.get("/live/", **{"Sec-Fetch-Site": "cross-site"}).status_code == 403
    other_port = {"Sec-Fetch-Site": "same-site"}
    assert looker.get("/", **other_port, **{"Sec-Fetch-Dest": "empty"}).status_code == 403
    assert looker.get("/", **other_port, **{"Sec-Fetch-Dest": "document"}).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "169.254.169.254", "[::ffff:7f00:1]", "a b"]
)
def test_a_name_that_somebody_pointed_here_is_refused(looker: Looker, host: str) -> None:
    assert looker.get("/", Host=host).status_code in {400, 421}


@pytest.mark.parametrize(
    "path",
    [
        "/static/../server.py",
        "/static/..%2fserver.py",
        "/static/%2e%2e/%2e%2e/page.json",
        "/static//etc/passwd",
        "/static/",
    ],
)
def test_static_files_are_those_and_no_others(looker: Looker, path: str) -> None:
    answer = looker.outside(path)
    assert answer.status_code in {303, 404}, answer.text


def test_a_session_ends_with_its_logout(up: RemitUp) -> None:
    with looking(up) as one, looking(up) as other:
        kept = dict(one.client.cookies)
        assert one.post("/logout").headers["Location"] == "/login"
        one.client.cookies.update(kept)
        assert one.get("/").status_code == 303
        assert other.get("/").status_code == 200


def test_what_runs_and_what_failed_is_shown_as_it_happens(up: RemitUp, looker: Looker) -> None:
    with looker.live("/") as events:
        assert next(data["trouble"] for name, data in events if name == "state") == ""
        up.kubectl("apply", "-f", "-", stdin=_TASKS)
        regions(events, "shown-running", "shown-denied")
    text = looker.get("/").text
    assert "shown-running" in text
    assert "needs no browser's consent" not in text
    up.remit_here("cancel", "shown-running")


def test_a_control_plane_that_hangs_is_told_and_gone_on_with(up: RemitUp) -> None:
    """Known data stays visible, and later data appears again."""
    with looking(up) as one, one.live("/") as events:
        next(events)
        control_plane = up.worker("control-plane")
        assert control_plane is not None
        control_plane.kill()  # its watches break off, and new ones take a while
        assert one.get("/").status_code == 200
        up.kubectl("apply", "-f", "-", stdin=_TASKS.replace("shown", "afterwards"))
        regions(events, "afterwards-running")
    up.remit_here("cancel", "afterwards-running")


def test_an_operator_that_is_stopped_takes_nothing_from_the_page(up: RemitUp) -> None:
    operator = up.worker("operator")
    assert operator is not None
    operator.suspend()
    try:
        with looking(up) as one:
            assert one.get("/tasks").status_code == 200
            up.kubectl("apply", "-f", "-", stdin=_TASKS.replace("shown", "unseen"))
            until(lambda: "unseen-running" in one.get("/tasks?phase=Pending").text, "the task")
    finally:
        operator.resume()
    until(lambda: up.phase("unseen-running") == "Running", "its start")
    up.remit_here("cancel", "unseen-running")


def test_a_reader_that_stops_reading_holds_up_nobody(up: RemitUp, looker: Looker) -> None:
    """The server renders nothing for a stream that is not read, and other streams continue."""
    with looker.live("/") as stalled, looker.live("/tasks?text=lively") as events:
        next(stalled)
        next(events)
        up.kubectl("apply", "-f", "-", stdin=_TASKS.replace("shown", "lively"))
        regions(events, "lively-running")
    up.remit_here("cancel", "lively-running")


def test_streams_are_as_many_as_a_session_may_have(up: RemitUp) -> None:
    """Streams are requested at once, and again after they are closed."""
    with looking(up) as one, contextlib.ExitStack() as stack, ThreadPoolExecutor(40) as threads:

        def opened(_: int) -> httpx.Response:
            return stack.enter_context(one.client.stream("GET", "/live/schedules"))

        answers = list(threads.map(opened, range(40)))
        assert sorted(answer.status_code for answer in answers) == [200] * 32 + [429] * 8
        stack.close()

        def opens_again() -> bool:
            with one.client.stream("GET", "/live/schedules") as answer:
                return answer.status_code == 200

        until(opens_again, "a stream")


def test_a_page_s_process_that_died_is_started_by_the_next_look(up: RemitUp) -> None:
    with looking(up) as one:
        assert one.get("/").status_code == 200
        link = login_link(up)
        before = up.worker("page")
        assert before is not None
        before.kill()
        until(lambda: not before.is_running(), "its end")  # a zombie's threads may still hold its connections
        assert one.get("/").status_code == 303  # the new process does not know the session
        assert one.client.get(link).headers["Location"] == "/login?refused"  # and no link of the previous process
    with looking(up) as one:
        assert one.get("/").status_code == 200
    assert up.process.poll() is None


_TASKS = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: shown-running}
spec: {command: {argv: [sh, -c, "sleep 300"]}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: shown-denied}
spec: {command: {argv: [git, push]}}
"""
