"""Which objects `remit get` shows, and in which order. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from remit.api.phases import DeploymentPhase, Phase
from remit.didyoumean import did_you_mean

Object = dict[str, Any]
ORDERS: Final = ("name", "created", "changed", "phase")
_PATH: Final = re.compile(r"\{?((?:\.[A-Za-z][A-Za-z0-9]*)+)\}?")
PHASES: Final[Mapping[str, Sequence[str]]] = {
    "tasks": [str(phase) for phase in Phase],
    "deployments": [str(phase) for phase in DeploymentPhase],
}
_TIMES: Final = ("startTime", "completionTime", "lastScheduleTime")


@dataclass(frozen=True)
class Selection:
    """Objects in one of `phases`, of which something happened at `since` or later, in `order`. With `unusual`, only
    tasks that differ much from those before."""

    phases: frozenset[str] = frozenset()
    since: datetime.datetime | None = None
    order: str = ""
    """One of `ORDERS`, or a path such as `.status.exitCode`; empty: by name."""
    unusual: bool = False

    def of(self, objects: Sequence[Object]) -> list[Object]:
        chosen = sorted((obj for obj in objects if self.takes(obj)), key=_name)
        match self.order:
            case "" | "name":
                return chosen
            case "created":
                return sorted(chosen, key=lambda obj: str(obj["metadata"].get("creationTimestamp") or ""), reverse=True)
            case "changed":
                return sorted(chosen, key=lambda obj: int(obj["metadata"]["resourceVersion"]), reverse=True)
            case "phase":
                return sorted(chosen, key=phase_of)
            case path:
                return sorted(chosen, key=lambda obj: _sortable(_at(obj, path)))

    def takes(self, obj: Object) -> bool:
        chosen = (not self.phases or phase_of(obj) in self.phases) and (not self.unusual or bool(unusual(obj)))
        return chosen and (self.since is None or _last_moment(obj) >= self.since)


def phases(text: str, plurals: Sequence[str]) -> frozenset[str]:
    """The phases of a list such as `Failed,Denied`, in any case of letters. Raises `ValueError` for one that none of
    the kinds has."""
    known = {phase.lower(): phase for plural in plurals for phase in PHASES.get(plural, ())}
    if not known:
        raise ValueError(f"{' and '.join(plurals)} have no phases; leave it out")
    chosen = [word.strip() for word in text.split(",")]
    for word in chosen:
        if word.lower() not in known:
            meant = did_you_mean(word.capitalize(), known.values())
            there_are = " There are" if meant else "; there are"
            raise ValueError(
                f"{word!r} is no phase of {' and '.join(plurals)}{meant}{there_are} {', '.join(known.values())}"
            )
    return frozenset(known[word.lower()] for word in chosen)


def order(text: str) -> str:
    """Parse the order for `Selection`. Raises `ValueError`."""
    if text in ORDERS:
        return text
    if path := _PATH.fullmatch(text):
        return path[1]
    raise ValueError(f"{text!r} is none of {', '.join(ORDERS)}, nor a path such as .status.exitCode")


def phase_of(obj: Object) -> str:
    return str((obj.get("status") or {}).get("phase") or "Pending")


def unusual(obj: Object) -> str:
    """In what a task differs much from those before that are like it; empty where it does not."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    return next((str(each.get("message")) for each in conditions if _is_unusual(each)), "")


def _is_unusual(condition: Object) -> bool:
    return (condition.get("type"), condition.get("status")) == ("Unusual", "True")


def _name(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _at(obj: Any, path: str) -> Any:
    for name in path.removeprefix(".").split("."):
        obj = obj.get(name) if isinstance(obj, Mapping) else None
    return obj


def _sortable(value: Any) -> tuple[int, float, str]:
    """Numbers before texts, and what is not there last."""
    if value is None:
        return 2, 0.0, ""
    return (0, float(value), "") if isinstance(value, int | float) else (1, 0.0, str(value))


def _last_moment(obj: Object) -> datetime.datetime:
    """When it was created, started or ended, whichever came last."""
    status = obj.get("status") or {}
    texts = [obj["metadata"].get("creationTimestamp"), *(status.get(name) for name in _TIMES)]
    texts += [record.get("deployedAt") for record in status.get("history") or []]
    found = [datetime.datetime.fromisoformat(text) for text in texts if isinstance(text, str)]
    return max(found, default=datetime.datetime.max.replace(tzinfo=datetime.UTC))
