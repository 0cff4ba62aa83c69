"""Measures the page with 10,000 tasks, and what ten open pages cost the operator and the page's own process.

Prints how long the first views take and the memory: `pytest -s tests/e2e/test_page_many.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import threading
import time
import uuid
from collections.abc import Iterator

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from browsers import SECONDS, Tab, browser
from pages import Looker, login_link, looking, region
from remit.cli import tasks
from remit.controlplane.storage import Store
from remitup import RemitUp, until

expect.set_options(timeout=SECONDS)
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MANY = 10_000
PAGES = 10
MIB = 1 << 20
MOST_GROWTH = 20 * MIB
PATHS = (
    *("/", "/tasks", "/tasks?phase=Denied", "/tasks?text=many-01", "/tasks?page=50", "/tasks?sort=longest"),
    *("/schedules", "/releases", "/policies", "/tasks/default/many-00001"),
)


def create(up: RemitUp, *names: str) -> None:
    """Creates tasks that no policy allows."""
    made = [tasks.for_command(["git", "push"], name=name) for name in names]
    up.kubectl("create", "-f", "-", stdin="\n---\n".join(map(json.dumps, made)))


@pytest.fixture(scope="module")
def many(up: RemitUp) -> RemitUp:
    """Provides 10,000 tasks: one is denied, and copies of it are put into the store while `remit up` is stopped, which
    is much faster."""
    create(up, "many-00000")
    until(lambda: up.phase("many-00000") == "Denied", "the first task")
    first = up.task("many-00000")
    assert up.stop() == 0

    async def copy() -> None:
        store = Store(up.state_dir / "state.db")
        store.start()
        (resource,) = (each for each in store.resources() if each.startswith("executiontasks."))
        for number in range(1, MANY):
            metadata = {"name": f"many-{number:05}", "uid": str(uuid.uuid4())}
            store.put(resource, {**first, "metadata": {**first["metadata"], **metadata}})
        await store.durable()
        await store.stop()

    asyncio.run(copy())
    up.begin()
    until(lambda: "Ctrl-C stops it." in up.log.read_text(), "remit up, which reads all of them", 600)
    return up


@pytest.fixture(scope="module")
def chromium(many: RemitUp) -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def cpu_of_page(up: RemitUp) -> float:
    process = up.worker("page")
    used = process.cpu_times() if process is not None else None
    return used.user + used.system if used is not None else 0.0


def is_at_rest(up: RemitUp) -> bool:
    """Returns whether the operator uses less than a tenth of a core for a second."""
    process = up.worker("operator")
    return process is not None and process.cpu_percent(interval=1) < 10


def shown(page: Page) -> int:
    return page.locator("table.tasks tbody tr").count()


def test_ten_thousand_tasks_are_seen_filtered_and_followed(many: RemitUp, chromium: Browser) -> None:
    took: dict[str, str] = {}

    @contextlib.contextmanager
    def measured(what: str) -> Iterator[None]:
        """Records the time of the browser and the page, and the CPU time of the page's process alone."""
        cpu, begun = cpu_of_page(many), time.perf_counter()
        yield
        took[what] = f"{time.perf_counter() - begun:.2f} s, CPU of the page {cpu_of_page(many) - cpu:.2f} s"

    until(lambda: is_at_rest(many), "the end of what the operator does when it starts")
    link = login_link(many)
    with measured("the first view, from the start of the page's process until all tasks are counted"):
        with measured("the same, until something is shown"):
            tab = Tab(chromium, link)
        expect(tab.page.locator("[data-region=numbers]")).to_contain_text(f"{MANY} tasks in all")
    for path in ("/", "/tasks", "/tasks?phase=Denied&sort=name&page=50"):
        with measured(path):
            tab.go(path)
    print("", *(f"{what}: {told}" for what, told in took.items()), sep="\n")

    page = tab.go("/tasks?sort=name&phase=Denied")
    expect(page.locator(".counts")).to_contain_text(f"1–100 of {MANY}")
    assert shown(page) == 100
    expect(page.locator("table.tasks tbody tr").first).to_contain_text("many-00000")
    page.get_by_role("link", name="Next").click()
    expect(page.locator(".counts")).to_contain_text(f"101–200 of {MANY}")
    expect(page.locator("table.tasks tbody tr").first).to_contain_text("many-00100")
    page = tab.go("/tasks?sort=name&phase=Denied&page=100")
    expect(page.locator("nav.pages")).to_contain_text("page 100 of 100")
    expect(page.locator("table.tasks tbody tr").last).to_contain_text(f"many-{MANY - 1:05}")
    page.get_by_label("Find").fill("many-042")
    page.get_by_label("Find").press("Enter")
    expect(page.locator(".counts")).to_contain_text("1–100 of 100")
    page.get_by_label("Phase").select_option("Running")  # takes effect immediately
    expect(page.get_by_text("No task is like that")).to_be_visible()

    page = tab.go("/tasks?text=just-now")
    expect(page.locator("#connection")).to_have_text("live")
    page.evaluate("window.stayed = true")
    create(many, "just-now")
    expect(page.locator("table.tasks").get_by_text("Denied")).to_be_visible()
    assert page.evaluate("window.stayed")
    tab.close()
    assert tab.problems == []


class Open:
    """An open page, whose stream is read until `stop`."""

    def __init__(self, looker: Looker, path: str) -> None:
        self.events = 0
        self._looker, self._path, self._over = looker, path, threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with self._looker.live(self._path) as events:
            for _ in events:
                self.events += 1
                if self._over.is_set():
                    return

    def stop(self) -> None:
        self._over.set()
        self._thread.join()


@contextlib.contextmanager
def ten_pages(up: RemitUp) -> Iterator[list[Open]]:
    """Opens pages in ten sessions, each with a different view."""
    with contextlib.ExitStack() as stack:
        opened = []
        for path in PATHS:
            looker = stack.enter_context(looking(up))
            assert looker.get(path).status_code == 200
            opened.append(Open(looker, path))
            stack.callback(opened[-1].stop)
        yield opened


def used(up: RemitUp) -> dict[str, int]:
    """Returns the private memory of each process, in bytes."""
    found = {}
    for role in ("operator", "page"):
        process = up.worker(role)
        assert process is not None
        found[role] = psutil.Process(process.pid).memory_full_info().uss
    return found


def test_ten_open_pages_take_little_memory(many: RemitUp) -> None:
    """The operator's memory does not grow, and that of the page's process grows by what one page needs."""
    gc.collect()
    with looking(many) as one, one.live("/") as events:
        region(events, "numbers", r"tasks in all")
        for path in PATHS:  # what a view imports is in memory once
            one.get(path)
        before = used(many)
        with ten_pages(many) as opened:
            until(lambda: all(each.events > 2 for each in opened), "what each shows")
            for wave in range(5):  # changes that all of the pages receive
                seen = [each.events for each in opened]
                create(many, *(f"wave-{wave}-{number}" for number in range(20)))
                until(lambda: many.phase(f"wave-{wave}-19") == "Denied", "the wave")  # noqa: B023
                until(lambda: all(each.events > was for each, was in zip(opened, seen, strict=True)), "its news")  # noqa: B023
            after = used(many)
    grown = {role: after[role] - before[role] for role in before}
    told = {role: f"{before[role] / MIB:.1f} MiB, {grown[role] / MIB:+.1f}" for role in grown}
    print(f"\nwith one page and {MANY} tasks, and for {PAGES} more:", told)
    assert len(opened) == PAGES
    assert max(grown.values()) <= MOST_GROWTH, told
