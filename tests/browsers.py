"""A headless browser for tests: Debian's Chromium, controlled by Playwright and checked with axe."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import axe_playwright_python
from playwright.sync_api import Browser, Page, sync_playwright

from parts import chromium, require

_ARGUMENTS: Final = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-default-apps", "--disable-domain-reliability", "--disable-sync", "--no-first-run", "--no-pings"),
    "--disable-dev-shm-usage",
)
_AXE: Final = next(Path(axe_playwright_python.__file__).parent.rglob("axe.min.js"))
SECONDS: Final = 60_000
"""Timeout of browser operations in milliseconds, long enough for a busy machine."""


@contextmanager
def browser() -> Iterator[Browser]:
    require("chromium", chromium(), "apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=[*_ARGUMENTS])
        try:
            yield opened
        finally:
            opened.close()


class Tab:
    """A tab of the browser, which records errors of its pages."""

    def __init__(self, browser: Browser, link: str, **options: Any) -> None:
        self.origin = link.partition("/login")[0]
        self._context = browser.new_context(**options)
        self._context.set_default_timeout(SECONDS)
        self.problems: list[str] = []
        self.outside: list[str] = []
        """Requests to other hosts."""
        self._context.on("request", lambda request: self._asked(request.url))
        self.page: Page = self._context.new_page()
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda told: self.problems.append(told.text) if told.type == "error" else None)
        self.page.goto(link)
        self.base = re.sub(r"^(/s-[^/]+)?/.*$", r"\1", urlsplit(self.page.url).path)
        """Path prefix of the views."""

    def _asked(self, url: str) -> None:
        if not url.startswith((self.origin, "data:", "blob:", "about:")):
            self.outside.append(url)

    def go(self, path: str) -> Page:
        """Opens a view."""
        self.page.goto(self.origin + self.base + path)
        return self.page

    def close(self) -> None:
        self._context.close()


def links(page: Page) -> list[str]:
    """Returns the absolute addresses of everything that a page links to or loads."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("[href], [src], [action], [formaction]")].flatMap(each =>
            ["href", "src", "action", "formaction"].filter(name => each.hasAttribute(name))
                .map(name => new URL(each.getAttribute(name), document.baseURI).href))"""
    )
    return found


def axe(page: Page) -> list[str]:
    """Returns the serious and critical findings of axe, each with its place."""
    # Evaluated and not added as an element, which the page's content security policy would block.
    page.evaluate(_AXE.read_text())
    found = page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
    return [
        f"{each['id']} ({each['impact']}): {' '.join(node['html'].split())[:160]} {node['failureSummary'][:300]}"
        for each in found["violations"]
        if each["impact"] in {"serious", "critical"}
        for node in each["nodes"][:3]
    ]


def findings(tab: Tab) -> list[str]:
    """Lists what is wrong with the open view: serious findings of axe, links that lead elsewhere, its width."""
    page = tab.page
    beneath = (f"{tab.origin}{tab.base}/", f"{tab.origin}/static/")
    found = [*axe(page), *(f"{each} leads elsewhere" for each in links(page) if not each.startswith(beneath))]
    if page.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
        found.append("it is wider than the screen")
    return found
