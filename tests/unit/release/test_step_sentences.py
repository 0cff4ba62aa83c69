"""Tests the message of status during a step."""

from __future__ import annotations

import datetime
from typing import get_args

import pytest

from remit.api.deployment import DeploymentSpec, Hook
from remit.release.model import HookKey, Revision, Snapshot
from remit.release.steps import (
    Drain,
    Finish,
    Prepare,
    Preview,
    Provision,
    Retire,
    RunHook,
    Scale,
    Step,
    Switch,
    Wait,
    sentence,
)

SPEC = DeploymentSpec.model_validate({"artifact": {"image": "shop:v2"}, "target": {"docker": {}}})
TWO = Revision(2, Snapshot("v2", SPEC, "hash"))
HOOK = Hook.model_validate({"name": "smoke", "task": {"command": {"argv": ["true"]}}})
TOLD: list[tuple[Step, str]] = [
    (Wait("Baking", "bakes for 30 s", datetime.datetime.now(datetime.UTC)), "bakes for 30 s"),
    (Prepare(TWO), "fetches what revision 2 runs"),
    (Provision("green", TWO, 1), "starts revision 2 on green, with 1 instance"),
    (Provision("green", TWO, 3), "starts revision 2 on green, with 3 instances"),
    (Scale("blue", 0), "gives blue 0 instances"),
    (Switch("green"), "sends all requests to green"),
    (Switch("blue", 20), "sends 20 % of the requests past blue"),
    (Preview("green"), "lets the preview lead to green"),
    (Preview(None), "lets the preview lead to nothing"),
    (RunHook(HookKey(2, "PrePromotion", "smoke"), HOOK), "starts the hook smoke"),
    (Drain("blue"), "lets blue finish the requests it has"),
    (Retire("blue"), "stops what is on blue"),
    (Finish("Promoted", "Promoted", "revision 2 is live"), "revision 2 is live"),
]


@pytest.mark.parametrize(("step", "told"), [pytest.param(*each, id=each[1]) for each in TOLD])
def test_each_step_is_reported_in_a_sentence(step: Step, told: str) -> None:
    assert sentence(step) == told


def test_none_is_left_out() -> None:
    assert {type(step) for step, _ in TOLD} == set(get_args(Step))
