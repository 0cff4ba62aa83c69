"""Tests crashes of new instances: an instance may be retried until it is healthy for the first time; after that a crash
fails the release."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from releases import Sim, hook, live
from remit.release.model import InstanceView, SlotView
from remit.release.steps import RunHook, Scale

MANUAL = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}
CANARY = {"type": "Canary", "canary": {"steps": [{"weight": 20, "pauseSeconds": 60}, {"weight": 50}]}}
PRE, POST = {"prePromotion": [hook("pre")]}, {"postPromotion": [hook("post")]}


@pytest.mark.parametrize("back", [True, False], ids=["restarted", "down"])
@pytest.mark.parametrize(
    ("strategy", "stages", "reason", "outcome"),
    [
        ({}, PRE, "HookRunning", "Failed"),
        (MANUAL, {}, "AwaitingPromotion", "Failed"),
        (CANARY, {}, "CanaryPause", "Failed"),
        (CANARY, {}, "AwaitingPromotion", "Failed"),
        ({}, POST, "HookRunning", "RolledBack"),
        ({}, {"bakeSeconds": 60}, "Baking", "RolledBack"),
        (CANARY, {"bakeSeconds": 60}, "Baking", "RolledBack"),
        ({"type": "Rolling"}, {"bakeSeconds": 60}, "Baking", "RolledBack"),
        ({"type": "Recreate"}, {"bakeSeconds": 60}, "Baking", "RolledBack"),
    ],
)
def test_a_crash_of_an_instance_that_was_healthy_fails_the_release_in_every_stage(
    strategy: dict[str, Any], stages: dict[str, Any], reason: str, outcome: str, back: bool
) -> None:
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy, stages=stages)
    if stages and strategy == CANARY:  # its last step waits for a promotion
        sim.waits_for("AwaitingPromotion")
        sim.ask("promote")
    if reason == "HookRunning":
        sim.until(RunHook)
    else:
        sim.waits_for(reason)
    sim.crash("green", back=back)
    failed = sim.finish()
    assert (failed.outcome, failed.reason) == (outcome, "InstanceRestarted" if back else "InstanceFailed")
    assert "an instance crashed after being healthy" in failed.message
    assert sim.settle().serving == "v1"


def test_a_crash_in_the_middle_of_a_rolling_release_fails_it() -> None:
    strategy = {"type": "Rolling", "rolling": {"maxSurge": 1, "maxUnavailable": 0}}
    sim = live("v1", replicas=3, strategy=strategy).apply(version="v2", replicas=3, strategy=strategy)
    while not 0 < sim.observed.share < 99:
        sim.step()
        sim.breathe()
    sim.step()
    sim.crash("green")
    assert sim.finish().reason == "InstanceRestarted"
    assert sim.settle().serving == "v1"


def test_a_crash_is_known_to_an_operator_that_was_not_there() -> None:
    """The incarnations are in status, so a restarted operator has them."""
    sim = live("v1").apply(version="v2", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    restarted = Sim(
        wish=sim.wish, now=sim.now, observed=sim.observed, state=sim.state, revisions=sim.revisions, status=sim.status
    )
    restarted.crash("green")
    assert restarted.finish().reason == "InstanceRestarted"


def test_a_crash_during_a_pause_fails_the_release_once_it_is_resumed() -> None:
    sim = live("v1").apply(version="v2", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.apply(version="v2", strategy=MANUAL, paused=True)
    sim.waits_for("Paused")
    sim.crash("green")
    sim.waits_for("Paused")
    sim.apply(version="v2", strategy=MANUAL)
    assert sim.finish().reason == "InstanceRestarted"


@pytest.mark.parametrize("replicas", [1, 6])
def test_crashes_of_a_slow_start_are_counted_for_each_instance(replicas: int) -> None:
    """Each instance may crash equally often before it is healthy for the first time, whatever the number of
    instances."""
    sim = live("v1", replicas=replicas).apply(version="v2", replicas=replicas)
    sim.behaviour["v2"] = "crashing"
    while not sim.observed.green.instances or sim.observed.green.instances["0"].restarts < 4:
        sim.step()
        sim.breathe()
    sim.behaviour["v2"] = "well"
    assert sim.finish().outcome == "Promoted"


def test_one_instance_that_keeps_crashing_is_given_up_beside_others_that_are_well() -> None:
    sim = live("v1", replicas=6).apply(version="v2", replicas=6)
    sim.behaviour["v2"] = "unhealthy"
    sim.waits_for("Unhealthy")
    crashing = {"5": InstanceView("run", healthy=False, restarts=5)}
    sim.put("green", SlotView(2, wanted=6, started=6, healthy=5, failed=1, restarts=5, instances=crashing))
    assert sim.finish().reason == "CrashLoop"


def test_an_instance_that_is_taken_away_has_not_crashed() -> None:
    """The instance was scaled down or evicted, or the target came back empty; its successor starts anew."""
    sim = live("v1", replicas=2).apply(version="v2", replicas=2, strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.apply(version="v2", replicas=1, strategy=MANUAL)
    sim.until(Scale)
    sim.until(Scale)
    sim.apply(version="v2", replicas=2, strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    moved = {f"moved-{name}": each for name, each in sim.observed.green.instances.items()}
    sim.put("green", replace(sim.observed.green, instances=moved))
    sim.step()
    sim.put("green", SlotView())
    sim.waits_for("AwaitingPromotion")
    sim.ask("promote")
    assert sim.finish().outcome == "Promoted"


def test_a_release_that_ended_keeps_no_incarnations_in_status() -> None:
    sim = live("v1", replicas=4)
    assert sim.status.pipeline.release is not None
    assert sim.status.pipeline.release.incarnations == {}
