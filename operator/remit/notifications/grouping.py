"""Which message goes to whom, and when, by Alertmanager's rules: alerts of one name and namespace make a group for each
receiver; a new group waits for others, a changed one for its interval, an unchanged one is repeated. Pure."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple, Self

from remit.notifications.alert import Alert, AlertKey, AlertName
from remit.notifications.config import NotificationConfig, Route
from remit.policy.selector import selects

_FIRST_RETRY, _LONGEST_RETRY = datetime.timedelta(seconds=15), datetime.timedelta(minutes=10)
_HOUR: Final = datetime.timedelta(hours=1)


def receivers_of(alert: Alert, routes: Iterable[Route]) -> frozenset[str]:
    """Names of the receivers that an alert goes to."""
    return frozenset(name for route in routes if _matches(route, alert) for name in route.receivers)


def _matches(route: Route, alert: Alert) -> bool:
    namespace = alert.key.namespace
    return (
        (not route.alerts or alert.key.name in route.alerts)
        and route.severity in {None, alert.severity}
        and (not route.namespaces or any(namespace and fnmatchcase(namespace, glob) for glob in route.namespaces))
        and selects(route.selector, alert.labels)
    )


class GroupKey(NamedTuple):
    receiver: str
    name: AlertName
    namespace: str


@dataclass(frozen=True, slots=True)
class Notification:
    """One message that is due."""

    group: GroupKey
    firing: tuple[Alert, ...]
    resolved: tuple[AlertKey, ...]
    """Alerts that were notified and have ended."""


@dataclass(slots=True)
class _Group:
    """The alerts of one name and namespace that one receiver was notified of."""

    firing: dict[AlertKey, Alert] = field(default_factory=dict)
    since: datetime.datetime | None = None
    """When its first alert came, while nobody was told of any."""
    told: dict[AlertKey, bool] = field(default_factory=dict)
    """What the last message called firing; whether its end is worth a message."""
    told_at: datetime.datetime | None = None
    failures: int = 0
    not_before: datetime.datetime | None = None
    """After a failed delivery."""

    def forget_future(self, now: datetime.datetime) -> None:
        """A clock that was ahead and was set back must not silence anybody until then."""
        self.since = min(self.since, now) if self.since else None
        self.told_at = min(self.told_at, now) if self.told_at else None
        self.not_before = min(self.not_before, now + _LONGEST_RETRY) if self.not_before else None

    def resolved(self) -> tuple[AlertKey, ...]:
        return tuple(key for key, tell in self.told.items() if tell and key not in self.firing)


class Groups:
    """The groups of all receivers whose messages Remit groups itself."""

    def __init__(self, config: NotificationConfig) -> None:
        self._config = config
        self._receivers = frozenset(receiver.name for receiver in config.receivers if receiver.apprise is not None)
        self._groups: dict[GroupKey, _Group] = {}
        self._sent: dict[str, deque[datetime.datetime]] = {
            name: deque(maxlen=config.most_an_hour) for name in self._receivers
        }

    def update(self, active: Sequence[Alert], now: datetime.datetime) -> list[Notification]:
        """Take the alerts that are active now, and give the messages that are due, at most one for each receiver."""
        for group in self._groups.values():
            group.firing = {}
        for alert in active:
            for name in receivers_of(alert, self._config.routes) & self._receivers:
                key = GroupKey(name, alert.key.name, alert.key.namespace)
                self._groups.setdefault(key, _Group()).firing[alert.key] = alert
        due: dict[str, Notification] = {}
        for key, group in sorted(self._groups.items(), key=lambda item: item[0].namespace != ""):
            resolved = group.resolved()
            if not group.firing and not resolved:
                del self._groups[key]
            elif self._is_due(key, group, resolved, now):
                due.setdefault(key.receiver, Notification(key, tuple(group.firing.values()), resolved))
        return list(due.values())

    def delivered(self, notification: Notification, now: datetime.datetime) -> None:
        group = self._groups.setdefault(notification.group, _Group())  # all alerts of the group may have ended since
        group.told = {alert.key: alert.ends_at is None for alert in notification.firing}
        group.told_at, group.failures, group.not_before = now, 0, None
        self._sent[notification.group.receiver].append(now)
        if not notification.firing:
            self._groups.pop(notification.group, None)

    def failed(self, notification: Notification, now: datetime.datetime) -> None:
        """It is tried again, with what is so by then."""
        group = self._groups.get(notification.group)
        if group is None:
            return
        group.not_before = now + min(_FIRST_RETRY * 2**group.failures, _LONGEST_RETRY)
        group.failures = min(group.failures + 1, 10)

    def _is_due(self, key: GroupKey, group: _Group, resolved: tuple[AlertKey, ...], now: datetime.datetime) -> bool:
        group.forget_future(now)
        if group.not_before is not None and now < group.not_before:
            return False
        changed = bool(resolved) or any(alert not in group.told for alert in group.firing)
        if group.told_at is None:
            group.since = group.since or now
            due = now >= group.since + self._seconds("group_wait")
        elif changed:
            due = now >= group.told_at + self._seconds("group_interval")
        else:
            due = now >= group.told_at + self._seconds("repeat_interval")
        # The operator's own alerts are few, and a namespace with many alerts must not delay them.
        return due and (not key.namespace or self._within_rate(key.receiver, now))

    def _within_rate(self, receiver: str, now: datetime.datetime) -> bool:
        sent = self._sent[receiver]
        while sent and not now - _HOUR < sent[0] <= now:
            sent.popleft()
        return len(sent) < self._config.most_an_hour

    def _seconds(self, name: Any) -> datetime.timedelta:
        return datetime.timedelta(seconds=self._config.seconds(name))

    def told(self) -> frozenset[AlertKey]:
        """The alerts that somebody was notified of as firing."""
        return frozenset(key for group in self._groups.values() for key in group.told)

    def as_json(self) -> list[dict[str, Any]]:
        """The sent notifications, for an operator that comes after this one."""
        return [
            {
                **key._asdict(),
                "told": [[alert.subject, tell] for alert, tell in group.told.items()],
                "toldAt": group.told_at.isoformat(),
            }
            for key, group in self._groups.items()
            if group.told_at is not None
        ]

    @classmethod
    def from_json(cls, config: NotificationConfig, told: Iterable[Mapping[str, Any]]) -> Self:
        """Raises `KeyError`, `TypeError` or `ValueError` where `told` is not what `as_json` gave."""
        groups = cls(config)
        for entry in told:
            key = GroupKey(entry["receiver"], AlertName(entry["name"]), entry["namespace"])
            if key.receiver not in groups._receivers:
                continue
            told_at = datetime.datetime.fromisoformat(entry["toldAt"])
            if told_at.tzinfo is None:
                raise ValueError(f"{told_at} has no time zone")
            groups._groups[key] = _Group(
                told={AlertKey(key.name, key.namespace, subject): bool(tell) for subject, tell in entry["told"]},
                told_at=told_at,
            )
        return groups
