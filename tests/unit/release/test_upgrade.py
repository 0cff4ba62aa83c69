"""Tests releases that version 0.1 began and this version continues: the old status contains restarts, and no
incarnations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from releases import Sim, hook, spec
from remit.api.deploymentstatus import DeploymentStatus
from remit.release.configuration import with_recorded_hashes
from remit.release.steps import Finish, RunHook


def of_version_0_1(status: DeploymentStatus, restarts: int) -> DeploymentStatus:
    written = json.loads(status.model_dump_json(by_alias=True, exclude_none=True))
    release = written["pipeline"]["release"]
    del release["incarnations"], release["hooks"]
    for record in written["history"]:
        del record["digest"]
    return DeploymentStatus.model_validate(
        {**written, "pipeline": {**written["pipeline"], "release": release | {"restarts": restarts}}}
    )


def baking(**stages: object) -> Sim:
    """The second version is live and in the bake stage, and its first instance had been restarted three times
    before."""
    sim = Sim(spec("v1"))
    sim.finish()
    sim.apply(version="v2", stages={"bakeSeconds": 60, **stages})
    sim.waits_for("Baking")
    for _ in range(3):
        sim.crash("green")
    sim.state = of_version_0_1(sim.status, restarts=3).pipeline
    return sim


def test_restarts_before_the_upgrade_are_no_crashes() -> None:
    sim = baking()
    ended = sim.finish()
    assert (ended.outcome, sim.observed.live) == ("Promoted", "green")


@pytest.mark.parametrize("back", [True, False])
def test_a_crash_after_the_upgrade_is_one(back: bool) -> None:
    sim = baking()
    sim.step()
    sim.crash("green", back=back)
    ended = sim.finish()
    assert (ended.outcome, sim.observed.live) == ("RolledBack", "blue")


def test_a_hook_that_the_previous_version_had_begun_runs_again() -> None:
    sim = Sim(spec("v1", stages={"prePromotion": [hook()]}))
    sim.until(RunHook)
    sim.state = of_version_0_1(sim.status, restarts=0).pipeline
    sim.observed = replace(sim.observed, hooks={})
    assert isinstance(sim.until(RunHook), RunHook)
    ended = sim.until(Finish)
    assert isinstance(ended, Finish)
    assert ended.outcome == "Promoted"


@pytest.mark.parametrize("under_way", [False, True])
def test_what_version_0_1_released_with_a_secret_is_released_by_no_new_revision(under_way: bool) -> None:
    sim = Sim(spec("v1", stages={"bakeSeconds": 60}), secret="a")
    sim.waits_for("Baking")
    if not under_way:
        sim.settle()
    written = sim.status.model_dump_json(by_alias=True).replace("shop:v1/a", "0.1/shop:v1/a")
    sim.state = DeploymentStatus.model_validate_json(written).pipeline
    sim.former = "0.1"
    sim.settle()
    assert (sim.state.latest, sim.status.phase) == (1, "Healthy")
    assert "0.1/" not in sim.status.model_dump_json(by_alias=True)
    sim.secret = "b"
    sim.settle()
    assert (sim.state.latest, sim.serving) == (2, "v1")
    sim.secret = "a"
    sim.settle()
    assert (sim.state.latest, sim.serving) == (3, "v1")


def test_kept_revisions_go_by_the_digest_that_the_history_has_of_them() -> None:
    sim = Sim(spec("v1"), secret="a")
    sim.settle()
    kept = {1: replace(sim.revisions[1], snapshot=replace(sim.revisions[1].snapshot, spec_hash="of 0.1"))}
    found = with_recorded_hashes(kept, sim.state)
    assert found == sim.revisions
