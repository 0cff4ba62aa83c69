"""Tests that the default policy of an agent is that of the manifests with the additions that docs/python-api.md
names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from remit.agent.starter import STARTER

MANIFEST = Path(__file__).parents[3] / "manifests" / "examples" / "00-starter-policy.yaml"


def _rule(rule: dict[str, Any]) -> dict[str, Any]:
    """Returns the rule without its `reason`."""
    return {name: value for name, value in rule.items() if name != "reason"}


def test_it_is_the_starter_policy_and_its_documented_additions() -> None:
    theirs = yaml.safe_load(MANIFEST.read_text())["spec"]
    rules = [_rule(rule) for rule in STARTER["commands"]["allow"]]
    shipped = [_rule(rule) for rule in theirs["commands"]["allow"]]
    anything = ["-c", "(?s).*", "…"]
    assert rules[: len(shipped)] == shipped
    assert rules[len(shipped) :] == [
        {"pattern": r"sleep [0-9]{1,9}(\.[0-9]{1,9})?"},
        {"executable": "python3", "args": anything},
        {"executable": "python", "args": anything},
    ]
    assert theirs.pop("rate").keys() == {"perMinute", "burst", "maxConcurrent"}
    assert {**theirs, "commands": {}} == {**STARTER, "commands": {}}
    assert STARTER["commands"].keys() == theirs["commands"].keys() == {"allow"}
