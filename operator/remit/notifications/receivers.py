"""The ways out: Apprise's services, and the API of an Alertmanager."""

from __future__ import annotations

import asyncio
import datetime
import functools
import gc
import logging
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp

from remit.errors import InvalidInput, RemitError
from remit.notifications.alert import Alert, AlertKey
from remit.notifications.config import AlertmanagerReceiver, AppriseReceiver
from remit.regularfile import read_text
from remit.telemetry.logs import escape

SECONDS: Final = 30.0
"""How long one delivery may take."""
_MOST_DETAIL: Final = 300
_SUCCESS: Final = 300


class DeliveryFailed(RemitError):
    """A receiver did not take a message."""

    retryable = True


class Apprise:
    """Sends to every URL. Where one of several fails, the message counts as failed and goes to all of them again."""

    def __init__(self, config: AppriseReceiver) -> None:
        self._config = config
        self._sending: asyncio.Future[None] | None = None

    def urls(self) -> list[str]:
        """Raises `InvalidInput` where the file cannot be read or has none."""
        if self._config.urls_file is None:
            return list(self._config.urls or ())
        try:
            lines = read_text(Path(self._config.urls_file)).splitlines()
        except OSError as error:
            raise InvalidInput(f"{self._config.urls_file} cannot be read: {error.strerror or error}") from None
        urls = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not urls:
            raise InvalidInput(f"{self._config.urls_file} has no URL")
        return urls

    def check(self) -> None:
        """Raises `InvalidInput` for a URL that Apprise cannot use. It takes a second: Apprise loads its services."""
        _load(self.urls())

    async def send(self, title: str, body: str, *, failure: bool) -> None:
        """`failure`: something is wrong, rather than over. Raises `DeliveryFailed`."""
        if self._sending is not None and not self._sending.done():
            raise DeliveryFailed("the message before is still on its way")
        self._sending = asyncio.ensure_future(asyncio.to_thread(self._send, title, body, failure))
        done, _ = await asyncio.wait([self._sending], timeout=SECONDS)
        if not done:
            self._sending.add_done_callback(_take_exception)  # its thread cannot be ended
            raise DeliveryFailed(f"no answer within {SECONDS:g} s")
        self._sending.result()

    def _send(self, title: str, body: str, failure: bool) -> None:
        import apprise

        kind = apprise.NotifyType.FAILURE if failure else apprise.NotifyType.SUCCESS
        try:
            servers = _load(self.urls())
            failed = [
                server for server in servers if not _alone(server).notify(body, title, kind, apprise.NotifyFormat.TEXT)
            ]
        except InvalidInput as error:
            raise DeliveryFailed(str(error)) from None
        except Exception as error:  # an error of any service, whose text may contain the URL
            raise DeliveryFailed(f"Apprise failed with a {type(error).__name__}") from None
        if failed:
            names = ", ".join(sorted({str(server.service_name) for server in failed}))
            raise DeliveryFailed(f"{names} did not take it ({len(failed)} of {len(servers)} URLs)")


def _alone(server: Any) -> Any:
    """It escapes for each service what would be markup there."""
    import apprise

    alone = apprise.Apprise(asset=server.asset)
    alone.add(server)
    return alone


def _take_exception(sending: asyncio.Future[None]) -> None:
    """Nobody waits for it any more, so nobody else would."""
    if not sending.cancelled():
        sending.exception()


def _load(urls: Sequence[str]) -> Any:
    """Apprise's servers. Raises `InvalidInput`."""
    import apprise

    # Apprise logs responses and addresses, which can contain tokens.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    asset = apprise.AppriseAsset(app_id="Remit", app_desc="Remit", app_url="", async_mode=False)
    loaded = apprise.Apprise(asset=asset)
    for number, url in enumerate(urls, 1):
        if not loaded.add(url):
            scheme, is_url, _ = url.partition("://")
            which = f" ({scheme[:32]}://…)" if is_url and scheme.isalnum() else ""
            raise InvalidInput(f"URL {number}{which} is none that Apprise knows; see its documentation")
    _keep_services()
    return loaded


@functools.cache
def _keep_services() -> None:
    """Once they are loaded: 40,000 objects that stay. Each collection of garbage that goes over them would hold up the
    operator for 20 ms."""
    gc.freeze()


class Alertmanager:
    """Posts alerts to `/api/v2/alerts`. One that is no longer repeated ends by itself at what was told as its end."""

    def __init__(self, config: AlertmanagerReceiver, session: aiohttp.ClientSession) -> None:
        self._config = config
        self._session = session

    async def send(
        self, alerts: Sequence[Alert], over: Sequence[Alert], now: datetime.datetime, valid: datetime.timedelta
    ) -> None:
        """`valid`: how long what is active counts as such unless it is sent again. Raises `DeliveryFailed`."""
        entries = [_entry(alert, now + valid) for alert in alerts] + [_entry(alert, now) for alert in over]
        await self._post(entries)

    async def test(self, now: datetime.datetime) -> None:
        """Raises `DeliveryFailed`."""
        labels = {"alertname": "RemitTest", "severity": "none"}
        annotations = {"summary": "A test of Remit's notifications. Nothing is wrong."}
        ends = (now + datetime.timedelta(minutes=1)).isoformat()
        await self._post([{"labels": labels, "annotations": annotations, "startsAt": now.isoformat(), "endsAt": ends}])

    async def _post(self, entries: list[dict[str, Any]]) -> None:
        url = f"{self._config.url.rstrip('/')}/api/v2/alerts"
        try:
            async with (
                asyncio.timeout(SECONDS),
                self._session.post(
                    url, json=entries, headers=self._headers(), ssl=self._trust(), allow_redirects=False
                ) as response,
            ):
                if response.status >= _SUCCESS:
                    detail = (await response.content.read(_MOST_DETAIL)).decode(errors="replace").strip()
                    raise DeliveryFailed(f"the Alertmanager answered {response.status}: {escape(detail)}")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            what = str(error) or f"no answer within {SECONDS:g} s"
            raise DeliveryFailed(f"the Alertmanager cannot be reached: {what}") from None

    def _headers(self) -> dict[str, str]:
        if self._config.token_file is None:
            return {}
        return {"Authorization": f"Bearer {read_text(Path(self._config.token_file)).strip()}"}

    def _trust(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self._config.ca_file) if self._config.ca_file else True


def labels_of(key: AlertKey, severity: str) -> dict[str, str]:
    kind, _, name = key.subject.partition("/")
    labels = {"alertname": f"Remit{key.name}", "severity": severity, "namespace": key.namespace, kind: name}
    return {label: value for label, value in labels.items() if value}


def _entry(alert: Alert, ends_at: datetime.datetime) -> dict[str, Any]:
    where = f" in {alert.key.namespace}" if alert.key.namespace else ""
    return {
        "labels": labels_of(alert.key, alert.severity),
        "annotations": {"summary": f"{alert.key.name}: {alert.key.subject}{where}", "description": alert.message},
        "startsAt": alert.started_at.isoformat(),
        "endsAt": max(ends_at, alert.started_at).isoformat(),
    }
