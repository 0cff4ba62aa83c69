"""Tests the notifier with a real web hook and Debian's Alertmanager."""

from __future__ import annotations

import asyncio
import datetime
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

import monitoring
from ports import free_port
from remit.notifications.config import NotificationConfig
from remit.notifications.notifier import Notifier
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor
from webhooks import Hook, web_hook

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it

PATIENCE = 60
NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    async with web_hook() as hook:
        yield hook


@dataclass
class Stage:
    notifier: Notifier
    metrics: Metrics
    failing: dict[str, str]
    told: list[tuple[str, str]]
    now: datetime.datetime = NOW

    async def after(self, **span: float) -> None:
        self.now += datetime.timedelta(**span)
        await self.notifier.look(self.now)
        await self.notifier.settle()

    async def tell(self, message: str = "needs a person") -> None:
        """Reports a release that waits, long enough for the group's wait time."""
        self.notifier.active.observe_deployment(deployment("AwaitingPromotion", message), self.now)
        await self.after(seconds=0)
        await self.after(seconds=10)

    def counted(self, outcome: str, receiver: str = "r") -> float | None:
        labels = {"receiver": receiver, "outcome": outcome}
        return self.metrics.registry.get_sample_value("remit_notifications_total", labels)


def stage(receiver: dict[str, Any], folder: Path, redactor: Redactor | None = None) -> Stage:
    config = NotificationConfig.model_validate(
        {"receivers": [{"name": "r", **receiver}], "routes": [{"receivers": ["r"]}]}
    )
    metrics, failing, told = Metrics(), dict[str, str](), list[tuple[str, str]]()

    async def checks() -> dict[str, str]:
        return failing

    async def on_failure(name: str, why: str) -> None:
        told.append((name, why))

    notifier = Notifier(
        config, folder, checks=checks, metrics=metrics, redactor=redactor or Redactor(), on_failure=on_failure
    )
    return Stage(notifier, metrics, failing, told)


def deployment(phase: str, message: str = "needs a person") -> dict[str, Any]:
    return {"metadata": {"name": "web", "namespace": "shop"}, "status": {"phase": phase, "message": message}}


async def test_a_web_hook_receives_an_alert_and_its_end(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    await at.after(seconds=0)
    assert hook.taken == []
    await at.after(seconds=10)
    await at.after(minutes=1)
    (message,) = hook.taken
    assert (message["title"], message["type"]) == ("[1 firing] ReleaseWaiting in shop", "failure")
    assert message["message"] == "deployment/web: needs a person"
    at.notifier.active.observe_deployment(deployment("Healthy"), at.now)
    await at.after(minutes=5)
    assert (hook.taken[1]["title"], hook.taken[1]["type"]) == ("[1 resolved] ReleaseWaiting in shop", "success")
    assert at.counted("delivered") == 2


async def test_what_is_not_delivered_is_tried_again_and_reported_once(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    hook.status = 500
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    await at.after(seconds=0)
    for _ in range(4):
        await at.after(seconds=10)
    assert hook.refused == 2  # attempts after 10 s and 15 s later
    assert at.told == [("r", "JSON did not take it (1 of 1 URLs)")]
    assert (at.counted("failed"), at.counted("delivered")) == (2, None)
    hook.status = 200
    await at.after(minutes=1)
    assert len(hook.taken) == 1
    failing = at.metrics.registry.get_sample_value("remit_notifications_failing", {"receiver": "r"})
    assert failing == 0


async def test_secrets_are_redacted(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path, Redactor(["hunter22"]))
    await at.tell("the password is hunter22")
    assert hook.taken[0]["message"] == "deployment/web: the password is [redacted]"


async def test_a_restarted_operator_repeats_nothing(hook: Hook, tmp_path: Path) -> None:
    for _ in range(2):
        at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
        await at.tell()
    assert len(hook.taken) == 1


async def test_the_memory_of_a_storm_can_be_read_again(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    for number in range(1000):
        name = f"{number}-{'x' * 1200}"
        failed = {"metadata": {"name": name, "namespace": "shop"}, "status": {"phase": "Degraded"}}
        at.notifier.active.observe_deployment(failed, at.now)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    for _ in range(4):
        await at.after(seconds=10)
    before = len(hook.taken)
    again = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    again.now = at.now
    again.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    for _ in range(3):
        await again.after(seconds=10)
    assert [each["title"] for each in hook.taken[before:]] == []


async def test_a_disk_that_hangs_does_not_delay_other_work(
    hook: Hook, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answers = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> None:
        asked.set()
        assert answers.wait(PATIENCE)

    monkeypatch.setattr("remit.notifications.notifier.replace_private", hang)
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    await at.after(seconds=0)
    telling = asyncio.create_task(at.after(seconds=10))
    try:
        assert await asyncio.to_thread(asked.wait, PATIENCE)
        assert not telling.done()
    finally:
        answers.set()
        await telling
    assert len(hook.taken) == 1
    assert at.counted("delivered") == 1, "it did not wait for the disk in the thread that all wait for"


async def test_a_damaged_memory_is_left(hook: Hook, tmp_path: Path) -> None:
    (tmp_path / "notifications.json").write_text('[{"receiver": 1}]')
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    await at.tell()
    assert len(hook.taken) == 1


async def test_a_restart_tells_no_end_of_what_fails_on(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    at.failing["audit"] = "the disk is full"
    for _ in range(5):
        await at.after(seconds=10)
    assert len(hook.taken) == 1
    again = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    again.now = at.now
    again.failing["audit"] = "the disk is full"
    await again.after(minutes=10)
    await again.after(seconds=5)
    assert len(hook.taken) == 1
    again.failing.clear()
    await again.after(seconds=5)
    assert hook.taken[1]["title"] == "[1 resolved] AuditUnavailable"


async def test_text_is_no_markup(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [f"{hook.url}?format=html"]}}, tmp_path, Redactor(["hunter\ntwenty-two"]))
    text = "<a href='http://evil'>all is well</a> hunter\ntwenty-two"
    await at.tell(text)
    assert "<a" not in hook.taken[0]["message"]
    assert "[redacted]" in hook.taken[0]["message"]


@pytest.mark.parametrize("content", [b"two\nlines", b"\xff", b"x" * (5 << 20)])
async def test_an_invalid_token(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "token").write_bytes(content)
    at = stage({"alertmanager": {"url": "http://127.0.0.1:1", "tokenFile": f"{tmp_path}/token"}}, tmp_path)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    running = asyncio.create_task(at.notifier.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while not at.told:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    ((name, why),) = at.told
    assert name == "r"
    assert "two" not in why
    assert at.counted("failed") == 1


async def test_what_an_alertmanager_answers_drives_no_terminal(hook: Hook, tmp_path: Path) -> None:
    hook.status, hook.answer = 500, "\x1b[2J\nall is well"
    at = stage({"alertmanager": {"url": hook.url.replace("json:", "http:")}}, tmp_path)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), at.now)
    running = asyncio.create_task(at.notifier.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while not at.told:
                await asyncio.sleep(0.01)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert at.told == [("r", r"the Alertmanager answered 500: \x1b[2J\nall is well")]


async def test_a_line_that_is_no_url_stays_secret(tmp_path: Path) -> None:
    (tmp_path / "urls").write_text("hunter22-the-token\n")
    at = stage({"apprise": {"urlsFile": f"{tmp_path}/urls"}}, tmp_path)
    await at.tell()
    ((_, why),) = at.told
    assert "URL 1" in why
    assert "hunter22" not in why


async def test_urls_from_a_file_that_comes_later(hook: Hook, tmp_path: Path) -> None:
    file = tmp_path / "urls"
    at = stage({"apprise": {"urlsFile": str(file)}}, tmp_path)
    await at.tell()
    assert at.told == [("r", f"{file} cannot be read: No such file or directory")]
    file.write_text(f"# the team's hook\n{hook.url}\n")
    await at.after(minutes=1)
    assert len(hook.taken) == 1


async def test_it_runs_until_it_is_cancelled(hook: Hook, tmp_path: Path) -> None:
    at = stage({"apprise": {"urls": [hook.url]}}, tmp_path)
    long_ago = NOW - datetime.timedelta(hours=1)
    at.notifier.active.observe_checks({"watching": "no watch"}, long_ago)
    at.failing["watching"] = "no watch"
    await at.notifier.look(long_ago + datetime.timedelta(minutes=1))
    running = asyncio.create_task(at.notifier.run())
    async with asyncio.timeout(PATIENCE):
        while not hook.taken:
            await asyncio.sleep(0.05)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert hook.taken[0]["title"] == "[1 firing] OperatorUnhealthy"


@pytest.fixture(scope="module")
def alertmanager(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with monitoring.alertmanager(tmp_path_factory.mktemp("alertmanager")) as url:
        yield url


@pytest.fixture
async def alerts(alertmanager: str) -> AsyncIterator[Any]:
    async with aiohttp.ClientSession() as session:

        async def get() -> list[dict[str, Any]]:
            async with session.get(f"{alertmanager}/api/v2/alerts", params={"active": "true"}) as response:
                found: list[dict[str, Any]] = await response.json()
                return found

        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await get()
                    break
                except aiohttp.ClientError:
                    await asyncio.sleep(0.05)
        yield get


async def test_an_alertmanager_has_what_is_active(alertmanager: str, alerts: Any, tmp_path: Path) -> None:
    at = stage({"alertmanager": {"url": alertmanager}}, tmp_path, Redactor(["hunter22"]))
    running = asyncio.create_task(at.notifier.run())
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion", "with hunter22"), NOW)
    try:
        async with asyncio.timeout(PATIENCE):
            while not (found := await alerts()):
                await asyncio.sleep(0.05)
            (alert,) = found
            assert alert["labels"] == {
                "alertname": "RemitReleaseWaiting",
                "severity": "warning",
                "namespace": "shop",
                "deployment": "web",
            }
            assert alert["annotations"]["description"] == "with [redacted]"
            at.notifier.active.observe_deployment(deployment("Healthy"), NOW)
            while await alerts():
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert at.told == []


async def test_an_alertmanager_that_is_away(tmp_path: Path) -> None:
    at = stage({"alertmanager": {"url": f"http://127.0.0.1:{free_port()}"}}, tmp_path)
    at.notifier.active.observe_deployment(deployment("AwaitingPromotion"), NOW)
    running = asyncio.create_task(at.notifier.run())
    try:
        async with asyncio.timeout(PATIENCE):
            while not at.told:
                await asyncio.sleep(0.05)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert at.told[0][1].startswith("the Alertmanager cannot be reached: ")
