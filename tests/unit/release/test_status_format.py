"""Tests the format of status. The previous version wrote `statuses.json`; such files and objects are still in use."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from releases import Sim, hook, live, spec
from remit.api.deploymentstatus import DeploymentStatus, ReleaseReport
from remit.release.model import ReleaseRequest
from remit.release.report import reported
from remit.release.steps import Finish, Provision, RunHook

pytestmark = pytest.mark.no_cover

STATUSES: dict[str, Any] = json.loads(Path(__file__).with_name("statuses.json").read_bytes())


def hooks_run() -> Sim:
    sim = live("v1")
    sim.apply(version="v2", stages={"prePromotion": [hook()], "bakeSeconds": 60})
    sim.until(RunHook)
    sim.breathe()
    sim.waits_for("Baking")
    return sim


def pinned() -> Sim:
    sim = live("v1")
    sim.apply(version="v2").until(Finish)
    sim.step()
    sim.ask("rollback").until(Finish)
    sim.settle()
    return sim


def failed() -> Sim:
    sim = live("v1", progressDeadlineSeconds=30)
    sim.behaviour["v2"] = "crashing"
    sim.apply(version="v2", progressDeadlineSeconds=30).until(Finish)
    sim.step()
    return sim


def refused() -> Sim:
    sim = live("v1", strategy={"type": "Canary"})
    sim.apply(version="v2", strategy={"type": "Canary"})
    sim.until(Finish)
    sim.request = ReleaseRequest("r1", "abort")
    sim.step()
    return sim


def with_report() -> Sim:
    sim = live("v1")
    report = ReleaseReport(revision=1, stage_seconds={"Health": 1.5}, missing=["The probe."], ref="report.html")
    sim.status = reported(sim.status, report)
    sim.state = sim.status.pipeline
    sim.apply(version="v2").until(Provision)
    return sim


SCENARIOS: list[Callable[[], Sim]] = [lambda: Sim(spec("v1")), hooks_run, pinned, failed, refused, with_report]
NAMES = ["nothing", "hooks_run", "pinned", "failed", "refused", "with_report"]


@pytest.mark.parametrize(("name", "scenario"), list(zip(NAMES, SCENARIOS, strict=True)), ids=NAMES)
def test_status_is_written_as_before(name: str, scenario: Callable[[], Sim]) -> None:
    assert json.loads(scenario().status.model_dump_json(by_alias=True)) == STATUSES[name]


@pytest.mark.parametrize("name", NAMES)
def test_status_of_the_previous_version_is_read_and_kept(name: str) -> None:
    text = json.dumps(STATUSES[name], separators=(",", ":"))
    assert DeploymentStatus.model_validate_json(text).model_dump_json(by_alias=True) == text
