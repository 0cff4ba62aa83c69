"""Which tasks a list shows, and in which order. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from remit.web.rows import ENDED, FAILED, PHASES, SCHEDULED, WAITING, TaskRow

PAGE_SIZE: Final = 100
GROUPS: Final[Mapping[str, Sequence[str]]] = {"waiting": WAITING, "failed": FAILED, "ended": ENDED}
_ORDERS: Final[Mapping[str, Callable[[TaskRow], tuple[float | str, ...]]]] = {
    "created": lambda row: (-row.created, row.namespace, row.name),
    "changed": lambda row: (-row.changed, row.namespace, row.name),
    "name": lambda row: (row.namespace, row.name),
    "longest": lambda row: (-_seconds(row), row.namespace, row.name),
}
ORDERS: Final = tuple(_ORDERS)


@dataclass(frozen=True, slots=True)
class Asked:
    """The understood parts of a query string; the rest is ignored."""

    phase: str = ""
    """A phase, or one of `GROUPS`; empty: all but schedules."""
    namespace: str = ""
    text: str = ""
    """A part of a name, a reason, a policy or a message, in any case of letters."""
    order: str = "created"
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Asked:
        phase, order, page = query.get("phase", ""), query.get("sort", ""), query.get("page", "1")
        return cls(
            phase=phase if phase in PHASES or phase in GROUPS else "",
            namespace=query.get("namespace", "")[:63],
            text=query.get("text", "").strip()[:200],
            order=order if order in ORDERS else "created",
            page=int(page) if page.isascii() and page.isdecimal() and 0 < len(page) < 7 and int(page) else 1,
        )

    def url(self, page: int) -> str:
        given = {"phase": self.phase, "namespace": self.namespace, "text": self.text, "page": str(page)}
        given |= {"sort": self.order if self.order != "created" else ""}
        return "/tasks?" + urlencode({name: value for name, value in given.items() if value})

    def takes(self, row: TaskRow) -> bool:
        phases = GROUPS.get(self.phase, (self.phase,))
        if row.phase not in phases if self.phase else row.phase == SCHEDULED:
            return False
        if self.namespace and row.namespace != self.namespace:
            return False
        if not self.text:
            return True
        words = self.text.casefold()
        return any(words in part.casefold() for part in (row.key, row.reason, row.policy, row.message, row.operation))


@dataclass(frozen=True)
class Listing:
    rows: Sequence[TaskRow]
    """The rows of the page that is shown."""
    found: int
    page: int
    pages: int
    first: int
    """The number of the first row, counted from 1."""
    counts: Mapping[str, int]
    """How many there are of each phase in the namespace, whatever else is asked for."""
    namespaces: Sequence[str]


def listing(rows: Iterable[TaskRow], asked: Asked) -> Listing:
    counts: Counter[str] = Counter()
    namespaces: set[str] = set()
    found = []
    for row in rows:
        namespaces.add(row.namespace)
        if not asked.namespace or row.namespace == asked.namespace:
            counts[row.phase] += 1
        if asked.takes(row):
            found.append(row)
    found.sort(key=_ORDERS[asked.order])
    pages = max(1, -(-len(found) // PAGE_SIZE))
    page = min(asked.page, pages)
    begin = (page - 1) * PAGE_SIZE
    return Listing(
        found[begin : begin + PAGE_SIZE], len(found), page, pages, begin + 1 if found else 0, counts, sorted(namespaces)
    )


def _seconds(row: TaskRow) -> float:
    return (row.ended or float(1 << 40)) - row.started if row.started is not None else 0.0
