"""Tests the page in a browser: each view without errors or serious findings of axe, live changes, keys, and no script.

REMIT_SCREENSHOTS names a folder for pictures of each view.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from browsers import SECONDS, Tab, browser, findings
from pages import login_link
from remitup import RemitUp, until

expect.set_options(timeout=SECONDS)
VIEWS = (
    *(
        "/",
        "/tasks",
        "/tasks?phase=failed",
        "/tasks/default/colours",
        "/tasks/default/push/why",
        "/tasks/default/nightly",
        "/tasks/default/count-7",
    ),
    *(
        "/releases",
        "/schedules",
        "/schedules?week=this",
        "/policies",
        "/policies/default/tests",
        "/policies/default/none",
        "/audit",
        "/nothing",
    ),
)
WIDE, NARROW = {"width": 1280, "height": 860}, {"width": 390, "height": 844}
SCREENS = {"light": ("light", WIDE), "narrow": ("dark", NARROW)}
if os.environ.get("REMIT_SCREENSHOTS"):  # screenshots need no colours or widths beyond those of the other tests
    SCREENS["dark"] = ("dark", WIDE)


@pytest.fixture(scope="module")
def chromium(up: RemitUp) -> Iterator[Browser]:
    with browser() as opened:
        up.kubectl("apply", "-f", "-", stdin=_OBJECTS)
        until(lambda: up.phase("colours") == "Failed" and up.phase("push") == "Denied", "the first tasks")
        until(lambda: up.phase("worker") == "Running", "the worker")
        up.kubectl(
            "apply", "-f", "-", stdin="---".join(_COUNT.replace("NUMBER", str(number)) for number in range(1, 10))
        )
        until(
            lambda: all(up.phase(f"count-{number}") == "Succeeded" for number in range(1, 10)), "the runs of a family"
        )
        yield opened


@pytest.fixture
def tab(up: RemitUp, chromium: Browser) -> Iterator[Tab]:
    one = Tab(chromium, login_link(up), viewport=WIDE)
    yield one
    one.close()
    assert one.outside == []


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize(("scheme", "viewport"), SCREENS.values(), ids=SCREENS)
def test_every_view_is_sound(
    up: RemitUp, chromium: Browser, scheme: str, viewport: dict[str, int], request: pytest.FixtureRequest
) -> None:
    one = Tab(chromium, login_link(up), viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    wrong = {}
    for path in VIEWS:
        page = one.go(path)
        if path in {"/nothing", "/policies/default/none"}:
            one.problems.clear()  # the browser's own message about a 404
        elif page.locator("body[data-live]").count():
            expect(page.locator("#connection")).to_have_text("live")
        if path.endswith("colours"):
            expect(page.locator("#output-lines")).to_contain_text("orange")
        if path.endswith("count-7"):
            expect(page.locator(".usage")).to_contain_text("of 9 runs")
        if found := findings(one):
            wrong[path] = found
        if folder := os.environ.get("REMIT_SCREENSHOTS"):
            name = re.sub(r"\W+", "-", path).strip("-") or "overview"
            page.screenshot(path=Path(folder) / f"{name}-{request.node.callspec.id}.png")
    one.close()
    assert wrong == {}
    assert one.problems == []
    assert one.outside == []


def test_the_token_is_in_no_address_and_no_history(tab: Tab) -> None:
    assert "token" not in tab.page.url
    tab.go("/tasks")
    tab.page.go_back()
    assert "token" not in tab.page.url
    assert tab.page.evaluate("document.cookie") == ""
    assert tab.page.evaluate("history.length") <= 3


def test_changes_are_seen_without_a_reload(up: RemitUp, tab: Tab) -> None:
    page = tab.go("/tasks?text=comes-later")
    expect(page.get_by_text("No task is like that")).to_be_visible()
    page.evaluate("window.stayed = true")
    up.kubectl("apply", "-f", "-", stdin=_LATER)
    expect(page.get_by_role("link", name="comes-later")).to_be_visible()
    expect(page.locator("table.tasks").get_by_text("Succeeded")).to_be_visible()
    assert page.evaluate("window.stayed")


def test_output_is_coloured_found_and_followed(tab: Tab) -> None:
    page = tab.go("/tasks/default/colours")
    lines = page.locator("#output-lines")
    expect(lines.locator(".f1").first).to_have_text("FAIL")
    expect(lines).to_contain_text("<script>alert(1)</script>")
    assert page.evaluate("document.querySelectorAll('#output-lines script, #output-lines b').length") == 0
    page.get_by_label("Find in the output").fill("line 7")
    expect(page.locator("#output-hits")).to_have_text("11 lines")
    page.keyboard.press("Enter")
    expect(page.locator("#output-hits")).to_have_text("1 of 11")
    expect(lines.locator(".at")).to_contain_text("line 7")
    assert not page.locator("#output-follow").is_checked()


def test_a_task_is_cancelled_by_keys_alone_with_a_question_before(up: RemitUp, tab: Tab) -> None:
    page = tab.go("/tasks/default/worker")
    expect(page.locator("#output-lines")).to_contain_text("working")
    page.locator("#ask-cancel summary").focus()
    page.keyboard.press("Enter")
    button = page.get_by_role("button", name="Cancel worker")
    expect(button).to_be_visible()
    page.keyboard.press("Escape")
    expect(button).to_be_hidden()
    page.keyboard.press("Enter")
    expect(button).to_be_visible()
    # Live updates meanwhile must not affect the question and the focus.
    stayed = page.locator("[data-region=facts]")
    before = stayed.inner_text()
    expect(stayed).not_to_have_text(before, use_inner_text=True)
    expect(button).to_be_visible()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("worker is being cancelled")).to_be_visible()
    expect(page.locator("h1")).to_contain_text("Cancelled")


def test_the_content_is_reached_by_one_key(tab: Tab) -> None:
    page = tab.go("/")
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_without_script_everything_is_there_but_live(up: RemitUp, chromium: Browser) -> None:
    one = Tab(chromium, login_link(up), java_script_enabled=False)
    page = one.go("/tasks/default/colours")
    expect(page.get_by_role("button", name="Run again")).to_be_visible()
    expect(page.get_by_role("link", name="stdout")).to_be_visible()
    expect(page.get_by_role("heading", name="colours")).to_be_visible()
    one.close()


def test_a_session_that_is_over_leads_to_the_login(tab: Tab) -> None:
    page = tab.go("/")
    expect(page.locator("#connection")).to_have_text("live")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_text("remit page", exact=True)).to_be_visible()
    tab.go("/tasks")
    assert page.url.endswith("/login")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fifty_tasks_run_while_the_page_is_open(up: RemitUp, tab: Tab) -> None:
    """The page shows the final state, and the tab keeps no elements that it does not show."""
    page = tab.go("/")
    running = page.locator(".number", has_text="Running").locator("b")
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator("#trouble")).to_be_hidden()
    before = int(running.inner_text())
    tasks = (_SLEEPER.replace("NUMBER", str(number)) for number in range(50))
    up.kubectl("apply", "-f", "-", stdin="\n---\n".join(tasks))
    most = 0

    def seen() -> bool:
        nonlocal most
        most = max(most, int(running.inner_text()))
        return most > before

    until(seen, "tasks that run")
    page.goto(f"{tab.origin}{tab.base}/tasks?text=sleeper-&phase=Succeeded")
    expect(page.locator(".counts")).to_contain_text("1–50 of 50")
    assert page.locator("table.tasks tbody tr").count() == 50
    tab.go("/")
    expect(running).to_have_text(str(before))


_OBJECTS = r"""
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: colours, labels: {team: data}}
spec:
  command:
    argv:
    - bash
    - -c
    - >-
      for i in $(seq 80); do echo "line $i of the build"; done;
      printf '\033[1;32mPASS\033[0m a \033[36m[ 12%%]\033[0m\n\033[31mFAIL\033[0m b\n';
      printf '\033[38;5;208morange\033[0m\n<script>alert(1)</script>\n';
      echo 'warning: 3 tests were skipped' >&2; exit 3
  retry: {maxRetries: 2, backoff: {initialSeconds: 1}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: worker}
spec: {command: {argv: [bash, -c, 'echo working; sleep 600']}, timeoutSeconds: 900}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: push}
spec: {command: {argv: [git, push]}}
---
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: nightly}
spec: {command: {argv: [cat, x]}, schedule: {cron: "0 2 * * *"}}
"""
_COUNT = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: count-NUMBER}
spec: {command: {argv: [bash, -c, 'for ((i = 0; i < NUMBER * 30000; i++)); do :; done; echo NUMBER']}}
"""
_LATER = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: comes-later}
spec: {command: {argv: [bash, -c, echo]}}
"""
_SLEEPER = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: sleeper-NUMBER}
spec: {command: {argv: [bash, -c, 'sleep 2']}}
"""
