"""Tests that an operator sends notifications of what it observes."""

from __future__ import annotations

import datetime
import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from remit.controllers.operator import Operator
from remit.kube.client import EVENTS
from remit.notifications import notifier
from webhooks import web_hook

from .conftest import World

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # Apprise imports it


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notifier, "LOOK_SECONDS", 0.1)


def configured(folder: Path, url: str) -> Path:
    config: dict[str, Any] = {
        "receivers": [{"name": "team", "apprise": {"urls": [url]}}],
        "routes": [{"receivers": ["team"], "namespaces": ["default"], "selector": {"matchLabels": {"team": "shop"}}}],
        "groupWait": "0s",
    }
    (file := folder / "notifications.yaml").write_text(json.dumps(config))
    return file


def delivered(operator: Operator) -> float | None:
    labels = {"receiver": "team", "outcome": "delivered"}
    return operator.metrics.registry.get_sample_value("remit_notifications_total", labels)


async def test_a_task_that_fails(world: World, tmp_path: Path) -> None:
    await world.policy("false", "true")
    async with web_hook() as hook:
        async with world.operator(notifications=configured(tmp_path, hook.url)) as first:
            await world.finished(await world.task("false"))
            await world.finished(await world.task("true", labels={"team": "shop"}))
            name = await world.task("false", labels={"team": "shop"})
            await world.operator_has(lambda: delivered(first))  # the operator records it then
        async with world.operator(notifications=configured(tmp_path, hook.url)) as again:
            await world.operator_has(lambda: again.notifier and again.notifier.active.at(datetime.datetime.now(UTC)))
            await world.finished(await world.task("true"))
    assert [message["title"] for message in hook.taken] == ["[1 firing] TaskFailed in default"]
    assert hook.taken[0]["message"].startswith(f"task/{name}: ")


async def test_a_receiver_that_fails_is_reported_by_an_event(world: World, tmp_path: Path) -> None:
    await world.policy("false")
    namespace = world.settings.operator_namespace
    async with web_hook() as hook:
        hook.status = 403
        async with world.operator(notifications=configured(tmp_path, hook.url)):
            await world.task("false", labels={"team": "shop"})
            await world.operator_has(lambda: hook.refused)
        (event,) = await world.kube.list(EVENTS, namespace, field_selector="reason=NotificationFailed")
    assert event["involvedObject"]["kind"] == "Lease"
    assert event["message"] == "team: JSON did not take it (1 of 1 URLs)"
