"""A circuit breaker: what has failed again and again is left alone for a while."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from remit.backends.failure import OperationFailed

FAILURES = 5
OPEN_SECONDS = 30.0
MAX_CIRCUITS = 1000
"""Names that are remembered. Beyond that, the one whose last failure is longest ago is forgotten."""


@dataclass(slots=True)
class Circuit:
    """Closed: calls go through. Open after `FAILURES` failures in a row. After `OPEN_SECONDS` one call may try: if it
    succeeds the circuit is closed, if not it stays open as long again."""

    failures: int = 0
    opened_at: float | None = None
    trying: bool = False

    def wait(self, now: float) -> float:
        """Seconds until a call may go through; 0.0: now."""
        if self.opened_at is None:
            return 0.0
        left = self.opened_at + OPEN_SECONDS - now
        return left if left > 0 else (1.0 if self.trying else 0.0)


@dataclass(slots=True)
class Call:
    """A call in flight. `answered`: whether there was an answer that does not count as a failure; None: given up.
    `silent`: where it is given up, whether that was for want of any answer."""

    answered: bool | None = True
    silent: bool = False


@dataclass
class Breaker:
    """Circuits by name, such as a host and a port."""

    what: str
    on_trip: Callable[[], None] = lambda: None
    """Called whenever a circuit opens."""
    _circuits: dict[str, Circuit] = field(default_factory=dict)
    """The circuits of names whose last call failed, the latest failure last."""

    def open(self) -> list[str]:
        """The names of circuits that are open."""
        return [name for name, circuit in self._circuits.items() if circuit.opened_at is not None]

    def open_count(self) -> float:
        return len(self.open())

    @contextlib.contextmanager
    def calling(self, name: str) -> Iterator[Call]:
        """One call. An `OperationFailed` of the category Infrastructure counts against the circuit; any other answer
        is one. Raises `OperationFailed` when no call may be made now."""
        self.enter(name, time.monotonic())
        call = Call()
        try:
            yield call
        except BaseException as error:
            if isinstance(error, OperationFailed):
                call.answered = error.category != "Infrastructure"
            else:
                call.answered = False if call.silent else None
            raise
        finally:
            self._leave(name, call.answered)

    def _leave(self, name: str, answered: bool | None) -> None:
        if answered is None:
            self.unknown(name)
        elif answered:
            self.succeeded(name)
        else:
            self.failed(name, time.monotonic())

    def enter(self, name: str, now: float) -> None:
        """Before a call. Raises `OperationFailed` when none may be made now; else `succeeded`, `failed` or `unknown`
        must follow."""
        circuit = self._circuits.get(name)
        if circuit is None:
            return
        if wait := circuit.wait(now):
            raise OperationFailed(
                "CircuitOpen",
                f"{self.what} {name} failed {circuit.failures} times in a row; it is left alone for {wait:.0f} s more",
            )
        circuit.trying = circuit.opened_at is not None

    def succeeded(self, name: str) -> None:
        self._circuits.pop(name, None)

    def failed(self, name: str, now: float) -> None:
        circuit = self._circuits[name] = self._circuits.pop(name, Circuit())
        if len(self._circuits) > MAX_CIRCUITS:
            del self._circuits[next(iter(self._circuits))]
        circuit.failures += 1
        if circuit.trying or (circuit.failures >= FAILURES and circuit.opened_at is None):
            circuit.opened_at, circuit.trying = now, False
            self.on_trip()

    def unknown(self, name: str) -> None:
        """The call was given up before it could tell."""
        if circuit := self._circuits.get(name):
            circuit.trying = False
