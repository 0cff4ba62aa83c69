"""The progress display of `make test`: available parts at the start, then progress in lines of 80 columns, and the
messages of workers that it needs."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

import pytest
from xdist.remote import WorkerInteractor

import parts

LINE_SECONDS = 15.0
"""Time between two lines in a log, in seconds. On a terminal, one line is updated each second."""
SECONDS_PER_TEST = {
    "tests/conformance": 0.9,
    "tests/e2e": 4.5,
    "tests/integration/agent": 2.0,
    "tests/integration/docker": 2.5,
    "tests/integration/hostile": 0.3,
    "tests/integration/operations": 0.4,
    "tests/integration/operator": 2.5,
    "tests/integration/release": 1.4,
    "tests/integration/sandbox": 0.3,
    "tests/integration": 0.5,
}
"""Approximate duration of a test, by folder, which weights tests. Others, mostly in tests/unit, take OTHER_SECONDS."""
OTHER_SECONDS = 0.05


def weight(nodeid: str) -> float:
    found = (seconds for folder, seconds in SECONDS_PER_TEST.items() if nodeid.startswith(f"{folder}/"))
    return next(found, OTHER_SECONDS)


def line(done: int, total: int, share: float, elapsed: float) -> str:
    """Returns one line of the display. `share` is the completed part of the work, from 0 to 1."""
    left = f", about {_clock(elapsed / share - elapsed)} left" if 0.02 < share < 1 else ""
    return f"{share:4.0%}  {_clock(elapsed)} elapsed{left}  ({done:,} of {total:,} tests)"


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class Progress:
    """A plugin for the reporting process. It replaces pytest's dots."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self._reporter = reporter
        self._start = self._shown = time.monotonic()
        self._weights: dict[str, float] = {}
        self._done: set[str] = set()

    def pytest_sessionstart(self) -> None:
        self._reporter.write_line("What tests need besides Python, as found on this machine:")
        for text in parts.report():
            self._reporter.write_line(text)
        self._reporter.write_line("All tests take 10 to 15 minutes on two cores.")

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._begin(ids)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._begin([item.nodeid for item in session.items])

    def _begin(self, ids: Sequence[str]) -> None:
        self._weights = {nodeid: weight(nodeid) for nodeid in ids}

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_report_teststatus(self) -> Generator[None, tuple[str, str, object], tuple[str, str, object]]:
        category, _, word = yield
        return category, "", word

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._reporter.ensure_newline()
            self._reporter.write_line(f"FAILED {report.nodeid}", red=True)
        if report.when != "teardown":
            return
        self._done.add(report.nodeid)
        now, finished = time.monotonic(), len(self._done) == len(self._weights)
        if now - self._shown >= (1 if self._reporter.isatty else LINE_SECONDS) or finished:
            self._shown = now
            self._show(now - self._start)

    def _show(self, elapsed: float) -> None:
        everything = sum(self._weights.values())
        share = sum(self._weights.get(nodeid, 0) for nodeid in self._done) / everything if everything else 0
        text = line(len(self._done), len(self._weights), min(share, 1), elapsed)
        if self._reporter.isatty:
            self._reporter.rewrite(text, erase=True)
        else:
            self._reporter.write_line(text)


def tell_what_is_shown(config: pytest.Config) -> None:
    """Reduces reports of passed tests in a worker to the fields that `Progress` shows. Sending complete reports would
    take as long as many tests do."""
    for plugin in config.pluginmanager.get_plugins():
        if isinstance(plugin, WorkerInteractor):
            plugin.sendevent = functools.partial(_send, plugin.sendevent)  # type: ignore[method-assign]


def _send(send: Callable[..., None], name: str, **given: Any) -> None:
    report = given.get("data", {})
    if name in {"logstart", "logfinish"}:
        return
    if name == "testreport" and report["outcome"] == "passed":
        if report["when"] == "setup":
            return
        given["data"] = report | {"keywords": {}, "sections": []}
    send(name, **given)
