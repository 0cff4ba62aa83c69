"""The records that an egress gateway writes to its log: one JSON object a line, each with all that went over so far.
Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import orjson

from remit.backends.egress.usage import NetworkUse


@dataclass(frozen=True, slots=True)
class GatewayRecord:
    """The first one says that the gateway accepts connections; after the one that is `over` nothing goes through."""

    use: NetworkUse
    over: bool = False

    def line(self) -> bytes:
        return orjson.dumps({"use": self.use, "over": self.over}) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> Self | None:
        """None for anything else that stands on the log."""
        try:
            found = orjson.loads(line)
            return cls(NetworkUse.restored(found["use"]), found["over"] is True)
        except (ValueError, TypeError, LookupError):
            return None
