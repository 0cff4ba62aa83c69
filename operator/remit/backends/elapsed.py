"""Measures how long a state has lasted by the machine's uptime, not by the time of day, which may be set."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from remit.sandbox import boot_id
from remit.sandbox.fencing import now as boot_time

_KEEP_SECONDS: Final = 3600.0


class ElapsedTime:
    """Reads and makes marks, which are kept on disk. `boot` is CLOCK_BOOTTIME, in seconds.

    Marks are to be made anew every hour, so that a machine which starts anew goes on counting.
    """

    def __init__(self, boot: Callable[[], float] = boot_time) -> None:
        self._boot, self._boot_id = boot, boot_id()

    def mark(self, seconds: float = 0.0) -> dict[str, Any]:
        """A record that the state has lasted for `seconds` by now."""
        return {"boot": self._boot_id, "at": self._boot(), "seconds": seconds}

    def seconds(self, mark: object) -> tuple[float, bool]:
        """How long the state has lasted, and whether a new mark is needed. An invalid mark counts as made now."""
        match mark:
            case {"boot": self._boot_id, "at": int(at) | float(at), "seconds": int(before) | float(before)}:
                more = max(0.0, self._boot() - at)
                return before + more, more >= _KEEP_SECONDS
            case {"seconds": int(before) | float(before)}:
                return before, True
            case _:
                return 0.0, True
