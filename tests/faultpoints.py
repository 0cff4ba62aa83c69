"""Faults at each point where a coroutine waits, and at each line that it runs: one fault a run, one point after the
other, until a run ends undisturbed."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType, coroutine
from typing import Any, Literal

from remit.backends.outcome import Outcome

Moment = Literal["instead", "after", "meanwhile"]
Overdue = Callable[[], None]


@dataclass
class Fault:
    """Something that happens at the `point`-th wait, counted from 1: `error` is raised there once what is waited for
    has come about. Without an error, `overdue` is called, and the cancellation that follows meets the wait before
    (`instead`) or after that; `meanwhile` waits for no cancellation."""

    point: int
    error: BaseException | None
    moment: Moment = "after"
    met: bool = False


@dataclass
class Tally:
    """What became of the tasks whose first attempt met a fault."""

    injected: int = 0
    retried: int = 0
    refused: int = 0
    """Not retried, because the effect may have taken place."""
    took_place: int = 0
    """Of the refused ones."""
    undisturbed: list[str] = field(default_factory=list)

    def was_refused(self, outcomes: list[Outcome], count: int, where: str) -> bool:
        """Whether it was not retried. `outcomes` are those of its attempts; `count`: how often it took place."""
        last = outcomes[-1]
        assert count <= 1, f"{where}: it took place {count} times: {outcomes}"
        if last.reason == "Completed":
            assert count == 1, f"{where}: it says that it took place: {outcomes}"
            self.retried += len(outcomes) > 1
            return False
        assert len(outcomes) == 1, f"{where}: a retry was to succeed: {outcomes}"
        self.refused += 1
        self.took_place += count
        return True


@coroutine
def disturbed(running: Coroutine[Any, Any, Any], fault: Fault, overdue: Overdue) -> Generator[Any, Any, Any]:
    """What `running` gives, unless the fault keeps it from that."""
    waits, error = 0, None
    while True:
        try:
            awaited = running.send(None) if error is None else running.throw(error)
        except StopIteration as done:
            return done.value
        error, waits = None, waits + 1
        here = waits == fault.point
        if here and fault.error is None and fault.moment == "instead":
            fault.met = True
            error = yield from _cancelled(overdue)
            if isinstance(awaited, asyncio.Future):
                awaited.cancel()
            continue
        if here and fault.moment == "meanwhile":
            fault.met, here = True, False
            overdue()
        try:
            yield awaited
        except BaseException as raised:
            error = raised
        if here and error is None:
            fault.met = True
            error = fault.error or (yield from _cancelled(overdue))


def _cancelled(overdue: Overdue) -> Generator[Any, Any, BaseException]:
    """Wait for the cancellation that being overdue brings."""
    never = asyncio.get_running_loop().create_future()
    overdue()
    try:
        yield from never
    except asyncio.CancelledError as cancelled:
        return cancelled
    raise AssertionError("it was not cancelled")


class Lines:
    """Raises `RuntimeError` at the `point`-th line of the modules below `folder`, in whatever thread runs it."""

    def __init__(self, folder: Path, point: int) -> None:
        self._start, self._left = f"{folder}/", point
        self._counting = threading.Lock()
        self.met = ""

    @contextmanager
    def armed(self) -> Iterator[None]:
        before = sys.gettrace()
        threading.settrace_all_threads(self._enter) if sys.version_info >= (3, 12) else threading.settrace(self._enter)
        sys.settrace(self._enter)
        try:
            yield
        finally:
            sys.settrace(before)
            threading.settrace(before)  # type: ignore[arg-type]

    def _enter(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(self._start) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event != "line":
            return self._line
        with self._counting:
            self._left -= 1
            if self._left:
                return self._line
            self.met = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
        raise RuntimeError(f"a fault at {self.met}")
