"""Tests that docs/notifications.md documents every alert with its severity, and every field of the configuration."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic.alias_generators import to_camel

from remit.notifications.alert import CRITICAL, AlertName
from remit.notifications.config import NotificationConfig, Route

PAGE = (Path(__file__).parents[3] / "docs/notifications.md").read_text()


def test_every_alert_is_reported_with_its_severity() -> None:
    told = re.findall(r"^\| `(\w+)` \| (critical|warning) \|", PAGE, re.M)
    assert told == [(str(name), "critical" if name in CRITICAL else "warning") for name in AlertName]


@pytest.mark.parametrize("model", [NotificationConfig, Route])
def test_every_field_has_a_row_or_is_in_the_example(model: type[NotificationConfig | Route]) -> None:
    named = {*re.findall(r"^\| `(\w+)` \|", PAGE, re.M), "receivers", "routes"}
    assert {to_camel(name) for name in model.model_fields} <= named
