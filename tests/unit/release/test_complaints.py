"""Tests that common complaints about other release tools do not apply here, as far as decisions can show it."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest

from releases import Sim, hook, live
from remit.release.model import HookView
from remit.release.steps import Drain, Finish, Provision, Retire, RunHook, Scale, Switch, Wait

pytestmark = pytest.mark.no_cover


def test_a_crash_loop_never_leaves_requests_without_a_side() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "crashing"
    for _ in range(200):
        sim.step()
        sim.breathe()
        assert sim.serving == "v1"


def test_a_side_that_crash_loops_after_promotion_is_switched_back_from_at_once() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.behaviour["v2"] = "crashing"
    sim.breathe()
    assert sim.step() == Switch("blue")


def test_an_abort_works_while_the_new_side_is_not_saturated() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.put("green", replace(sim.observed.green, healthy=0, started=0))
    sim.ask("abort")
    assert sim.step() == Switch("blue")


def test_a_rollback_within_the_delay_is_a_switch_and_not_a_redeployment() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("ScaleDownDelay")
    sim.steps.clear()
    sim.ask("rollback").finish()
    assert [type(s) for s in sim.steps if not isinstance(s, Wait | Finish)] in ([Switch],)
    assert (sim.serving, sim.state.pin) == ("v1", 1)


def test_a_rollback_outside_the_delay_provisions_what_was_kept() -> None:
    sim = live("v1").apply(version="v2").settle()
    sim.ask("rollback").finish()
    assert sim.serving == "v1"
    assert any(isinstance(step, Provision) and step.revision.number == 1 for step in sim.steps)


def test_configuration_and_replicas_are_rolled_back_with_the_artifact() -> None:
    sim = live("v1", replicas=3)
    sim.secret = "rotated"
    sim.apply(version="v2", replicas=1).settle()
    assert (sim.serving, sim.active.wanted) == ("v2", 1)
    sim.ask("rollback").finish()
    assert (sim.serving, sim.active.wanted) == ("v1", 3)
    assert sim.state.live is not None
    assert sim.state.live.spec_hash == "shop:v1/"


def test_a_changed_secret_alone_is_a_new_revision_and_can_be_undone() -> None:
    sim = live("v1")
    sim.secret = "rotated"
    sim.settle()
    assert (sim.state.latest, sim.state.live and sim.state.live.spec_hash) == (2, "shop:v1/rotated")
    sim.ask("rollback").finish()
    assert sim.state.live is not None
    assert sim.state.live.spec_hash == "shop:v1/"


def test_replicas_that_come_with_a_new_revision_do_not_reach_the_live_side_before_promotion() -> None:
    sim = live("v1", replicas=10).apply(version="v2", replicas=2)
    sim.waits_for("Baking")
    assert not [step for step in sim.steps if isinstance(step, Scale)]
    assert (sim.idle.wanted, sim.active.wanted) == (10, 2)


def test_a_lost_hook_is_no_success_and_runs_again() -> None:
    sim = live("v1").apply(version="v2", stages={"prePromotion": [hook("analysis")]})
    sim.until(RunHook)
    sim.observed = replace(sim.observed, hooks={})
    assert isinstance(sim.step(), RunHook)
    assert sim.serving == "v1"


def test_a_release_is_not_over_before_its_last_hook() -> None:
    stages = {"postPromotion": [hook("first"), hook("last")], "bakeSeconds": 0}
    sim = live("v1").apply(version="v2", stages=stages)
    sim.until(RunHook)
    sim.until(RunHook)
    key = next(key for key in sim.observed.hooks if key.name == "last")
    sim.observed = replace(sim.observed, hooks={**sim.observed.hooks, key: HookView("Running")})
    step = sim.step()
    assert isinstance(step, Wait)
    assert step.why == "hook last runs"
    sim.apply(version="v3", stages=stages)
    assert isinstance(sim.step(), Wait), "a newer spec does not take its turn either"


def test_a_failed_promotion_takes_nothing_down() -> None:
    sim = live("v1").apply(version="v2", stages={"postPromotion": [hook("verify")]})
    sim.hooks_fail = {"verify"}
    sim.finish()
    assert (sim.serving, sim.active.healthy) == ("v1", 2)


def test_the_old_side_is_drained_only_after_the_data_plane_follows() -> None:
    sim = live("v1").apply(version="v2", stages={"bakeSeconds": 0})
    sim.until(Switch)
    for _ in range(50):
        step = sim.step()
        assert isinstance(step, Wait)
        assert step.reason == "Converging"
    sim.observed = replace(sim.observed, converged=True)
    assert isinstance(sim.step(), Finish)


def test_a_drain_is_observed_and_bounded() -> None:
    sim = live("v1").apply(version="v2")
    sim.until(Drain)
    sim.put("blue", replace(sim.observed.blue, connections=3))
    step = sim.step()
    assert isinstance(step, Wait)
    assert step.reason == "Draining"
    sim.now += datetime.timedelta(seconds=31)
    assert sim.step() == Retire("blue")


def test_a_stuck_release_does_not_write_or_act_again_and_again() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "unhealthy"
    sim.finish()
    sim.settle()
    state, steps = sim.state, len(sim.steps)
    for _ in range(20):
        assert sim.step() == Wait("Settled", "nothing to do", held=True)
        sim.breathe(600)
    assert (sim.state, len(sim.steps)) == (state, steps + 20)


def test_memory_does_not_grow_with_releases() -> None:
    sim = live("v0", revisionHistoryLimit=3)
    for number in range(1, 12):
        sim.apply(version=f"v{number}", revisionHistoryLimit=3).settle()
    assert [record.revision for record in sim.state.history] == [12, 11, 10, 9]


@pytest.mark.parametrize(("limit", "kept"), [(0, [2, 1]), (1, [2, 1])])
def test_a_revision_that_still_runs_is_not_forgotten_under_it(limit: int, kept: list[int]) -> None:
    sim = live("v1", revisionHistoryLimit=limit).apply(version="v2", revisionHistoryLimit=limit)
    sim.finish()
    assert [record.revision for record in sim.state.history] == kept
    sim.ask("rollback").finish()
    assert sim.serving == "v1"
    sim.apply(version="v3", revisionHistoryLimit=limit).settle()
    assert [record.revision for record in sim.state.history] == [3, 1][: 1 + limit]


def test_failed_releases_do_not_push_out_what_a_rollback_returns_to() -> None:
    sim = live("v1", revisionHistoryLimit=2).apply(version="v2", revisionHistoryLimit=2).settle()
    for number in range(3, 9):
        sim.behaviour[f"v{number}"] = "crashing"
        sim.apply(version=f"v{number}", revisionHistoryLimit=2).settle()
    assert [record.revision for record in sim.state.history] == [8, 7, 2, 1]
    sim.ask("rollback").finish()
    assert sim.serving == "v1"


def test_a_rollback_edits_no_spec_and_holds_until_the_spec_changes() -> None:
    sim = live("v1").apply(version="v2").settle()
    wish = sim.wish
    sim.ask("rollback").finish()
    sim.settle()
    sim.breathe(100_000)
    assert isinstance(sim.step(), Wait)
    assert (sim.wish, sim.serving, sim.status.pinned_revision) == (wish, "v1", 1)
    sim.apply(version="v3").settle()
    assert (sim.serving, sim.status.pinned_revision) == ("v3", None)


@pytest.mark.parametrize("kind", ["promote", "abort"])
def test_a_request_is_consumed_once(kind: str) -> None:
    manual = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}
    sim = live("v1").apply(version="v2", strategy=manual)
    sim.waits_for("AwaitingPromotion")
    sim.ask(kind).finish()
    sim.settle()
    sim.apply(version="v3", strategy=manual)
    sim.waits_for("AwaitingPromotion")
    assert sim.serving == ("v2" if kind == "promote" else "v1")


def test_a_request_that_cannot_be_followed_is_answered() -> None:
    sim = live("v1").ask("abort")
    sim.step()
    assert sim.status.request is not None
    assert (sim.status.request.accepted, sim.status.request.message) == (False, "there is no release to abort")


def test_what_failed_is_not_tried_again_by_itself_but_on_request() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "unhealthy"
    sim.finish()
    sim.settle()
    sim.behaviour.clear()
    sim.ask("retry").finish()
    assert sim.serving == "v2"


def test_nothing_reads_as_current_before_it_is() -> None:
    sim = Sim()
    seen = []
    for _ in range(60):
        step = sim.step()
        conditions = {c.type: c.status for c in sim.status.conditions}
        seen.append(conditions["Reconciling"])
        if isinstance(step, Finish):
            break
        assert conditions["Reconciling"] == "True"
        sim.breathe()
    sim.settle()
    sim.step()
    assert {c.type: c.status for c in sim.status.conditions} == {
        "Available": "True",
        "Progressing": "False",
        "Healthy": "True",
        "Reconciling": "False",
        "Stalled": "False",
    }
    assert (sim.status.active, sim.status.ready, sim.status.phase) == ("shop:v1 (1)", "2/2", "Healthy")


def test_what_was_never_live_is_not_returned_to_around_its_checks() -> None:
    stages = {"prePromotion": [hook("smoke")]}
    sim = live("v1").apply(version="v2", stages=stages)
    sim.hooks_fail = {"smoke"}
    sim.finish()
    sim.ask("rollback", revision=2).step()
    assert sim.status.request is not None
    assert not sim.status.request.accepted
    sim.apply(version="v2", stages=stages, rollbackTo={"revision": 2})
    assert sim.finish().reason == "HookFailed"
    assert sim.serving == "v1"
