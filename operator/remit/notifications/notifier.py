"""The notifier: looks at the alerts now and then, and has what is due delivered, each receiver by itself."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import aiohttp
import structlog

from remit.errors import InvalidInput, RemitError
from remit.notifications import message
from remit.notifications.alert import Alert, AlertKey
from remit.notifications.config import NotificationConfig
from remit.notifications.grouping import Groups, Notification, receivers_of
from remit.notifications.receivers import Alertmanager, Apprise
from remit.notifications.sources import ActiveAlerts
from remit.privatefiles import read_private, replace_private
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 5.0
_RESEND: Final = datetime.timedelta(minutes=1)
_VALID: Final = 4 * _RESEND
"""How long an alert is valid. As with Prometheus, Alertmanager resolves one that is not repeated in this time."""
_MOST_STORED: Final = 1 << 20
"""Bytes, as `read_private` takes them."""

Checks = Callable[[], Awaitable[Mapping[str, str]]]
"""The health checks that fail, and why."""
OnFailure = Callable[[str, str], Awaitable[None]]
"""Called with the name of a receiver and the reason when its first delivery in a row fails."""


async def _ignore(receiver: str, why: str) -> None:
    return


@dataclass(slots=True)
class _ToAlertmanager:
    """The alerts that were sent to an Alertmanager."""

    alertmanager: Alertmanager
    told: dict[AlertKey, Alert]
    told_at: datetime.datetime | None = None


class Notifier:
    """Runs in the operator that works. `folder` is where it remembers what was told already."""

    def __init__(
        self,
        config: NotificationConfig,
        folder: Path,
        *,
        checks: Checks,
        metrics: Metrics,
        redactor: Redactor,
        on_failure: OnFailure = _ignore,
    ) -> None:
        self._config = config
        self._path = folder / "notifications.json"
        self._checks = checks
        self._metrics = metrics
        self._redactor = redactor
        self._on_failure = on_failure
        self._groups = self._restored()
        self.active: Final = ActiveAlerts(config, self._groups.told())
        self._apprise = {r.name: Apprise(r.apprise) for r in config.receivers if r.apprise is not None}
        self._alertmanagers: dict[str, _ToAlertmanager] = {}
        self._busy: set[str] = set()
        self._storing = asyncio.Lock()
        self._failing: set[str] = set()
        self._deliveries: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Without end."""
        async with aiohttp.ClientSession(trust_env=True) as session:
            for receiver in self._config.receivers:
                if receiver.alertmanager is not None:
                    self._alertmanagers[receiver.name] = _ToAlertmanager(
                        Alertmanager(receiver.alertmanager, session), {}
                    )
            try:
                while True:
                    await self.look(datetime.datetime.now(datetime.UTC))
                    await asyncio.sleep(LOOK_SECONDS)
            finally:
                for delivery in self._deliveries:
                    delivery.cancel()
                await asyncio.gather(*self._deliveries, return_exceptions=True)

    async def look(self, now: datetime.datetime) -> None:
        """Begin the deliveries that are due. One receiver gets one message at a time."""
        self.active.observe_checks(await self._checks(), now)
        alerts = self.active.at(now)
        for notification in self._groups.update(alerts, now):
            if (name := notification.group.receiver) not in self._busy:
                self._begin(name, self._send(notification, now))
        for name, told in self._alertmanagers.items():
            if name not in self._busy:
                routed = {a.key: a for a in alerts if name in receivers_of(a, self._config.routes)}
                if routed.keys() != told.told.keys() or (routed and _is_old(told.told_at, now)):
                    self._begin(name, self._post(told, routed, now))

    async def settle(self) -> None:
        """Wait for the deliveries that are under way."""
        await asyncio.gather(*self._deliveries, return_exceptions=True)

    def _begin(self, name: str, delivery: Awaitable[None]) -> None:
        self._busy.add(name)
        task = asyncio.create_task(self._deliver(name, delivery), name=f"notification to {name}")
        self._deliveries.add(task)
        task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, name: str, delivery: Awaitable[None]) -> None:
        try:
            await delivery
        except Exception as error:  # an error of a receiver or of its configuration, whose text may contain a token
            self._metrics.notifications.labels(name, "failed").inc()
            self._metrics.notifications_failing.labels(name).set(1)
            known = isinstance(error, RemitError)
            why = self._redactor.redact(str(error)) if known else f"it failed with a {type(error).__name__}"
            log.warning("a notification was not delivered and is tried again", receiver=name, reason=why)
            if name not in self._failing:
                self._failing.add(name)
                await self._on_failure(name, why)
        else:
            self._metrics.notifications.labels(name, "delivered").inc()
            self._metrics.notifications_failing.labels(name).set(0)
            self._failing.discard(name)
        finally:
            self._busy.discard(name)

    async def _send(self, notification: Notification, now: datetime.datetime) -> None:
        try:
            redacted = replace(notification, firing=tuple(map(self._redacted, notification.firing)))
            title = self._redactor.redact(message.title(redacted))
            body = self._redactor.redact(message.body(redacted))
            await self._apprise[notification.group.receiver].send(title, body, failure=bool(notification.firing))
        except Exception:
            self._groups.failed(notification, now)
            raise
        self._groups.delivered(notification, now)
        await self._store()

    async def _post(self, told: _ToAlertmanager, routed: dict[AlertKey, Alert], now: datetime.datetime) -> None:
        over = [alert for key, alert in told.told.items() if key not in routed]
        redacted = [self._redacted(alert) for alert in routed.values()]
        await told.alertmanager.send(redacted, [self._redacted(alert) for alert in over], now, _VALID)
        told.told, told.told_at = routed, now

    def _redacted(self, alert: Alert) -> Alert:
        return Alert(alert.key, self._redactor.redact(alert.message), alert.started_at, alert.ends_at, alert.labels)

    def _restored(self) -> Groups:
        try:
            return Groups.from_json(self._config, json.loads(read_private(self._path)))
        except FileNotFoundError:
            return Groups(self._config)
        except (OSError, InvalidInput, KeyError, TypeError, ValueError) as error:
            log.warning("what was notified before is not known; some may be told again", reason=str(error))
            return Groups(self._config)

    async def _store(self) -> None:
        """Store it in a thread, because a disk may hang."""
        try:
            async with self._storing:
                content = _stored(self._groups.as_json())
                await asyncio.to_thread(replace_private, self._path, content, sync=False)
        except OSError as error:
            log.warning("what was notified cannot be remembered; some may be told again", reason=str(error))


def _stored(told: list[dict[str, Any]]) -> bytes:
    """Groups that are too large to be read again are left out, and told of once more."""
    groups, room = [], _MOST_STORED - 2
    for group in sorted(map(json.dumps, told), key=len):
        room -= len(group) + 1
        if room < 0:
            break
        groups.append(group)
    return f"[{','.join(groups)}]".encode()


def _is_old(told_at: datetime.datetime | None, now: datetime.datetime) -> bool:
    return told_at is None or not told_at <= now < told_at + _RESEND
