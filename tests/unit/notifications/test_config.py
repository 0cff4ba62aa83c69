"""Tests the configuration of notifications, and the messages about an invalid one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.errors import InvalidInput
from remit.notifications.config import NotificationConfig

RIGHT: dict[str, Any] = {
    "receivers": [{"name": "ops", "apprise": {"urls": ["json://localhost"]}}],
    "routes": [{"receivers": ["ops"]}],
}


def load(tmp_path: Path, text: str) -> NotificationConfig:
    (file := tmp_path / "notifications.yaml").write_text(text)
    return NotificationConfig.load(file)


def test_defaults(tmp_path: Path) -> None:
    config = load(tmp_path, yaml.safe_dump(RIGHT))
    assert (config.seconds("group_wait"), config.seconds("group_interval")) == (10, 300)
    assert (config.seconds("repeat_interval"), config.seconds("task_failed_for")) == (14_400, 3600)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"receivers": []}, "receivers: must have at least 1 item"),
        ({"routes": [{"receivers": ["oops"]}]}, "a route names the receiver 'oops', which is not among: ops"),
        ({"receivers": [*RIGHT["receivers"], *RIGHT["receivers"]]}, "two receivers are called 'ops'"),
        ({"receivers": [{"name": "ops"}]}, "set exactly one of apprise or alertmanager; none given"),
        ({"receivers": [{"name": "ops", "apprise": {}}]}, "set exactly one of urls or urlsFile"),
        ({"receivers": [{"name": "ops", "alertmanager": {"url": "ftp://am"}}]}, "receivers[0].alertmanager.url: "),
        ({"receivers": [{"name": "ops", "alertmanager": {"url": "http://u:p@am"}}]}, "receivers[0].alertmanager.url: "),
        ({"groupWaits": "1s"}, "groupWaits: is not a known field; did you mean groupWait?"),
        ({"routes": [{"receivers": ["ops"], "alerts": ["TaskFail"]}]}, "routes[0].alerts[0]: "),
        ({"groupWait": "soon"}, "groupWait: "),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        load(tmp_path, yaml.safe_dump(RIGHT | change))
    assert says in str(raised.value)
    assert "notifications.yaml" in str(raised.value)


@pytest.mark.parametrize("text", ["", "a: 1\n---\nb: 2\n", "- 1\n", "{"])
def test_what_is_no_configuration(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidInput):
        load(tmp_path, text)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        NotificationConfig.load(tmp_path / "none.yaml")
