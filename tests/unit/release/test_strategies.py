"""Tests how each strategy takes over: what runs and where requests go, at every moment."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from releases import Sim, hook, live
from remit.release.model import SlotView, StepError
from remit.release.steps import Finish, Prepare, Preview, Provision, Retire, RunHook, Scale, Switch, Wait

pytestmark = pytest.mark.no_cover

CANARY = {"type": "Canary", "canary": {"steps": [{"weight": 20, "pauseSeconds": 60}, {"weight": 50}]}}


def moments(sim: Sim) -> Iterator[Sim]:
    """Yields every moment of a release until its end."""
    for _ in range(500):
        step = sim.step()
        yield sim
        if isinstance(step, Finish):
            return
        sim.breathe()
    raise AssertionError("no end")


def blue_green(**settings: Any) -> dict[str, Any]:
    return {"type": "BlueGreen", "blueGreen": settings}


def test_blue_green_keeps_the_old_side_for_its_delay_and_no_longer() -> None:
    strategy = blue_green(scaleDownDelaySeconds=100)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.finish()
    end = sim.now
    sim.until(Retire)
    assert datetime.timedelta(seconds=100) <= sim.now - end <= datetime.timedelta(seconds=103)


def test_blue_green_retires_what_was_aborted_without_a_delay() -> None:
    strategy = blue_green(autoPromote=False, scaleDownDelaySeconds=100)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("AwaitingPromotion")
    sim.ask("abort").finish()
    end = sim.now
    sim.until(Retire)
    assert sim.now - end <= datetime.timedelta(seconds=3)
    assert sim.serving == "v1"


def test_blue_green_shows_the_new_side_as_a_preview_until_it_is_live() -> None:
    strategy = blue_green(autoPromote=False)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("AwaitingPromotion")
    assert (sim.observed.preview, sim.status.preview, sim.status.active) == ("green", "shop:v2 (2)", "shop:v1 (1)")
    sim.ask("promote").settle()
    assert Preview(None) in sim.steps
    assert sim.observed.preview is None


@pytest.mark.parametrize("auto", [True, False])
def test_blue_green_previews_with_few_replicas_and_switches_with_all(auto: bool) -> None:
    strategy = blue_green(autoPromote=auto, previewReplicas=1, autoPromoteAfterSeconds=60 if auto else 0)
    sim = live("v1", strategy=strategy, replicas=3).apply(version="v2", strategy=strategy, replicas=3)
    sim.waits_for("AwaitingPromotion")
    assert (sim.observed.green.wanted, sim.observed.green.healthy, sim.observed.live) == (1, 1, "blue")
    if not auto:
        sim.ask("promote")
    for moment in moments(sim):
        if moment.observed.live == "green":
            assert moment.observed.green.healthy == 3
    assert sim.serving == "v2"
    assert Scale("green", 3) in sim.steps


def test_blue_green_promoted_in_full_waits_for_nothing_more_but_its_hooks() -> None:
    manual = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}
    stages = {"prePromotion": [hook("pre")], "postPromotion": [hook("post")], "bakeSeconds": 600}
    sim = live("v1").apply(version="v2", strategy=manual, stages=stages)
    sim.until(RunHook)
    sim.ask("promote", full=True).finish()
    waits = {step.reason for step in sim.steps if isinstance(step, Wait)}
    assert not waits & {"AwaitingPromotion", "Baking"}
    assert sim.serving == "v2"
    assert [step.key.name for step in sim.steps if isinstance(step, RunHook)] == ["pre", "post"]


def test_blue_green_aborted_tried_again_and_promoted() -> None:
    manual = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}
    sim = live("v1").apply(version="v2", strategy=manual)
    sim.waits_for("AwaitingPromotion")
    sim.ask("abort").finish()
    sim.settle()
    assert (sim.serving, sim.status.phase) == ("v1", "Degraded")
    sim.ask("retry")
    sim.waits_for("AwaitingPromotion")
    assert sim.serving == "v1"
    sim.ask("promote").finish()
    assert (sim.serving, [record.outcome for record in sim.state.history]) == (
        "v2",
        ["Promoted", "Aborted", "Promoted"],
    )


def test_blue_green_past_its_deadline_without_automatic_rollback_leaves_the_old_side_live() -> None:
    changes = {"progressDeadlineSeconds": 60, "rollback": {"automatic": False}}
    sim = live("v1").apply(version="v2", **changes)
    sim.behaviour["v2"] = "unhealthy"
    finish = sim.finish()
    assert (finish.outcome, finish.reason, sim.serving) == ("Failed", "ProgressDeadlineExceeded", "v1")


def test_blue_green_brings_all_replicas_of_a_preview_that_is_promoted_in_full() -> None:
    strategy = blue_green(autoPromote=False, previewReplicas=1)
    sim = live("v1", strategy=strategy, replicas=3).apply(version="v2", strategy=strategy, replicas=3)
    sim.waits_for("AwaitingPromotion")
    sim.ask("promote", full=True).settle()
    assert (sim.serving, sim.observed.green.healthy) == ("v2", 3)


def test_blue_green_rolls_back_with_all_replicas_at_once() -> None:
    strategy = blue_green(previewReplicas=1, scaleDownDelaySeconds=0)
    sim = live("v1", strategy=strategy, replicas=3).apply(version="v2", strategy=strategy, replicas=3).settle()
    sim.steps.clear()
    sim.ask("rollback").settle()
    assert (sim.serving, [step.replicas for step in sim.steps if isinstance(step, Provision)]) == ("v1", [3])


def test_blue_green_goes_on_with_the_next_version_after_an_abort() -> None:
    strategy = blue_green(autoPromote=False)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("AwaitingPromotion")
    sim.ask("abort").settle()
    assert sim.serving == "v1"
    sim.apply(version="v3", strategy=strategy)
    sim.waits_for("AwaitingPromotion")
    sim.ask("promote").settle()
    assert sim.serving == "v3"


def test_blue_green_promotes_by_itself_after_its_time() -> None:
    strategy = blue_green(autoPromoteAfterSeconds=90)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    wait, since = sim.waits_for("AwaitingPromotion"), sim.now
    assert wait.until == since + datetime.timedelta(seconds=90)
    sim.until(Switch)
    assert sim.now == wait.until


def test_blue_green_does_not_promote_a_side_that_broke_while_it_waited() -> None:
    strategy = blue_green(autoPromote=False)
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("AwaitingPromotion")
    sim.behaviour["v2"] = "unhealthy"
    sim.breathe()
    sim.ask("promote")
    step = sim.step()
    assert isinstance(step, Wait)
    assert step.reason == "Unhealthy"
    assert sim.finish().reason == "ProgressDeadlineExceeded"
    assert sim.serving == "v1"


def test_turning_on_auto_promotion_promotes_what_waits() -> None:
    sim = live("v1").apply(version="v2", strategy=blue_green(autoPromote=False))
    sim.waits_for("AwaitingPromotion")
    sim.apply(version="v2", strategy=blue_green(autoPromote=True))
    assert sim.step() == Switch("green", failover=True)


def test_canary_goes_step_by_step() -> None:
    sim = live("v1", strategy=CANARY).apply(version="v2", strategy=CANARY)
    wait = sim.waits_for("CanaryPause")
    assert (sim.observed.live, sim.observed.share) == ("blue", 20)
    sim.waits_for("AwaitingPromotion")
    assert wait.until is not None
    assert sim.now >= wait.until
    assert (sim.observed.live, sim.observed.share) == ("blue", 50)
    sim.breathe(9999)
    assert isinstance(sim.step(), Wait)
    sim.ask("promote")
    assert sim.step() == Switch("green", failover=True)
    assert sim.finish().outcome == "Promoted"


def test_canary_skips_its_pauses_when_fully_promoted() -> None:
    sim = live("v1", strategy=CANARY).apply(version="v2", strategy=CANARY)
    sim.waits_for("CanaryPause")
    sim.ask("promote", full=True)
    assert sim.step() == Switch("green", failover=True)


def test_canary_takes_its_share_back_when_it_fails() -> None:
    sim = live("v1", strategy=CANARY).apply(version="v2", strategy=CANARY)
    sim.waits_for("CanaryPause")
    sim.behaviour["v2"] = "unhealthy"
    sim.breathe()
    assert sim.step() == Switch("blue")
    finish = sim.finish()
    assert (finish.outcome, finish.reason, sim.observed.share) == ("Failed", "InstanceFailed", 0)


def test_canary_rolls_back_in_one_switch() -> None:
    sim = live("v1", strategy=CANARY).apply(version="v2", strategy=CANARY)
    sim.waits_for("AwaitingPromotion")
    sim.ask("promote").finish()
    sim.waits_for("ScaleDownDelay")
    sim.steps.clear()
    sim.ask("rollback").finish()
    assert [step for step in sim.steps if isinstance(step, Switch)] == [Switch("blue")]


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "least", "most"),
    [
        (4, 1, 0, 4, 5),
        (4, 0, 1, 3, 4),
        (5, "40%", "20%", 4, 7),
        (1, 1, 0, 1, 2),
        (1, 0, "100%", 0, 1),
        (3, 0, "10%", 2, 3),
    ],
)
def test_rolling_stays_within_its_allowance(
    replicas: int, surge: int | str, unavailable: int | str, least: int, most: int
) -> None:
    strategy = {"type": "Rolling", "rolling": {"maxSurge": surge, "maxUnavailable": unavailable}}
    sim = live("v1", strategy=strategy, replicas=replicas).apply(version="v2", strategy=strategy, replicas=replicas)
    for moment in moments(sim):
        if moment.observed.live == "green":
            break
        blue, green = moment.observed.blue, moment.observed.green
        assert least <= min(blue.healthy, blue.wanted) + green.healthy
        assert blue.started + max(green.wanted, green.started) <= most
        if moment.observed.share:
            assert green.healthy
    assert sim.finish().outcome == "Promoted"
    assert (sim.serving, sim.active.healthy) == ("v2", replicas)


def test_rolling_gives_requests_to_new_instances_before_old_ones_go() -> None:
    strategy = {"type": "Rolling"}
    sim = live("v1", strategy=strategy, replicas=4).apply(version="v2", strategy=strategy, replicas=4)
    sim.finish()
    moves = [step for step in sim.steps if isinstance(step, Switch) or step in [Scale("blue", n) for n in range(4)]]
    assert moves[:4] == [Switch("blue", 25), Scale("blue", 3), Switch("blue", 50), Scale("blue", 2)]
    assert moves[-1] == Switch("green", failover=True)


def test_rolling_that_fails_half_way_brings_the_old_side_back_whole() -> None:
    strategy = {"type": "Rolling"}
    sim = live("v1", strategy=strategy, replicas=4).apply(version="v2", strategy=strategy, replicas=4)
    sim.until(Switch)
    sim.until(Switch)
    sim.behaviour["v2"] = "unhealthy"
    finish = sim.finish()
    assert (finish.outcome, finish.reason) == ("Failed", "InstanceFailed")
    assert (sim.serving, sim.active.healthy, sim.observed.share) == ("v1", 4, 0)


@pytest.mark.parametrize(("healthy", "ends"), [(1, False), (0, True)])
def test_rolling_waits_for_an_instance_that_is_slow_to_begin_and_not_for_one_that_it_had(
    healthy: int, ends: bool
) -> None:
    strategy = {"type": "Rolling"}
    sim = live("v1", strategy=strategy, replicas=4).apply(version="v2", strategy=strategy, replicas=4)
    sim.until(Switch)
    sim.step()
    sim.put("green", replace(sim.observed.green, wanted=2, started=2, healthy=healthy, failed=1))
    release = sim.decide().state.release
    assert release is not None
    assert (release.failure is not None) is ends


def test_recreate_never_runs_both() -> None:
    strategy = {"type": "Recreate"}
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    for moment in moments(sim):
        assert not (moment.observed.blue.started and moment.observed.green.wanted)
    assert sim.serving == "v2"


def test_recreate_never_runs_both_on_the_way_back_either() -> None:
    strategy = {"type": "Recreate"}
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("Baking")
    sim.crash("green")
    for moment in moments(sim):
        assert not (moment.observed.blue.wanted and moment.observed.green.started)
    assert (sim.serving, sim.active.healthy) == ("v1", 2)


def test_recreate_waits_on_the_way_back_for_what_a_retired_side_still_runs() -> None:
    sim = live("v1", strategy={"type": "Recreate"}).apply(version="v2", strategy={"type": "Recreate"})
    sim.waits_for("Baking")
    sim.ask("abort")
    assert sim.until(Retire) == Retire("green")
    sim.put("green", SlotView(started=1))  # pods end with a delay, after their workload is gone
    step = sim.step()
    assert isinstance(step, Wait)
    assert step.reason == "Stopping"
    sim.put("green", SlotView())
    sim.finish()
    assert (sim.serving, sim.active.healthy) == ("v1", 2)


def test_recreate_starts_the_old_one_even_when_the_failed_one_does_not_stop() -> None:
    strategy = {"type": "Recreate"}
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.waits_for("Baking")
    sim.errors[Retire] = StepError("Stuck", "it does not stop", retryable=True)
    sim.crash("green")
    assert sim.finish().outcome == "RolledBack"
    assert (sim.serving, sim.active.healthy) == ("v1", 2)


def test_recreate_does_not_stop_anything_for_an_artifact_that_does_not_exist() -> None:
    strategy = {"type": "Recreate"}
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    sim.errors[Prepare] = StepError("ImageNotFound", "no such image", retryable=False)
    for moment in moments(sim):
        assert moment.observed.blue.healthy == 2
    assert sim.serving == "v1"


@pytest.mark.parametrize("kind", ["BlueGreen", "Canary", "Rolling", "Recreate"])
def test_replicas_0_is_followed(kind: str) -> None:
    strategy = CANARY if kind == "Canary" else {"type": kind}
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy, replicas=0)
    if kind == "Canary":
        sim.waits_for("AwaitingPromotion")
        sim.ask("promote")
    sim.finish()
    assert (sim.serving, sim.active.wanted) == ("v2", 0)
    sim.apply(version="v2", strategy=strategy, replicas=3).settle()
    assert sim.active.healthy == 3


@pytest.mark.parametrize("kind", ["Canary", "Rolling", "Recreate"])
def test_a_change_of_strategy_in_mid_release_is_for_the_next_one(kind: str) -> None:
    sim = live("v1").apply(version="v2", strategy=blue_green(autoPromote=False))
    sim.until(Provision)
    sim.apply(version="v2", strategy=CANARY if kind == "Canary" else {"type": kind})
    for moment in moments(sim):
        assert moment.active.healthy == 2
        assert moment.observed.share == 0
    assert sim.serving == "v2"
