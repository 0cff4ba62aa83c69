"""Tests the named edge cases of a release in a table: each has one outcome."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest

from releases import Sim, hook, live, spec
from remit.release.model import MalformedRequest, ObservedState, SlotView, SpecProblem, StepError
from remit.release.steps import Drain, Finish, Prepare, Provision, Retire, RunHook, Scale, Switch, Wait

MANUAL = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}


def end(sim: Sim) -> tuple[str, str, str]:
    """Returns outcome, reason, and the version that serves then."""
    finish = sim.finish()
    return finish.outcome, finish.reason, sim.serving


def test_superseded_in_mid_release() -> None:
    sim = live("v1").apply(version="v2")
    sim.until(Provision)
    sim.apply(version="v3")
    assert end(sim) == ("Superseded", "Superseded", "v1")
    assert end(sim) == ("Promoted", "Promoted", "v3")
    assert [record.outcome for record in sim.state.history] == ["Promoted", "Superseded", "Promoted"]


def test_superseded_after_the_switch_is_finished_first() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.apply(version="v3")
    assert end(sim) == ("Promoted", "Promoted", "v2")
    assert end(sim) == ("Promoted", "Promoted", "v3")


def test_the_old_spec_again_during_the_bake_switches_back() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.apply(version="v1")
    assert end(sim) == ("RolledBack", "Superseded", "v1")
    assert sim.settle().serving == "v1"


def test_paused_past_the_deadline_stays_paused_and_goes_on() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.until(Provision)
    sim.apply(version="v2", progressDeadlineSeconds=60, paused=True)
    sim.waits_for("Paused")
    sim.now += datetime.timedelta(days=2)
    assert isinstance(sim.step(), Wait)
    assert (sim.status.phase, sim.serving) == ("Paused", "v1")
    sim.apply(version="v2", progressDeadlineSeconds=60)
    assert end(sim) == ("Promoted", "Promoted", "v2")


def test_awaiting_a_promotion_has_no_deadline() -> None:
    sim = live("v1").apply(version="v2", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.now += datetime.timedelta(days=9)
    assert isinstance(sim.step(), Wait)
    assert sim.status.phase == "AwaitingPromotion"
    sim.ask("promote")
    assert end(sim) == ("Promoted", "Promoted", "v2")


@pytest.mark.parametrize("moment", [Provision, Switch, Drain])
def test_deleted_in_mid_release_leaves_nothing(moment: type) -> None:
    sim = live("v1").apply(version="v2")
    sim.until(moment)
    sim.deleted = True
    assert sim.finish().outcome == "Deleted"
    assert (sim.observed.blue, sim.observed.green) == (SlotView(), SlotView())


def test_a_target_that_is_gone_and_back_goes_on_where_it_was() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.until(Provision)
    sim.observed = replace(sim.observed, unreachable="no route to host")
    assert sim.step() == Wait("TargetUnreachable", "no route to host", held=True)
    sim.now += datetime.timedelta(hours=3)
    sim.step()
    assert sim.status.active_revision == 1
    sim.observed = replace(sim.observed, unreachable="")
    assert end(sim) == ("Promoted", "Promoted", "v2")


def test_what_is_being_deleted_reports_it() -> None:
    sim = live("v1")
    sim.deleted = True
    sim.step()
    assert (sim.status.phase, sim.status.message) == (
        "Terminating",
        "is being deleted; lets blue finish the requests it has",
    )


def test_deleted_while_the_target_is_out_of_reach_waits_and_leaves_nothing_once_it_is_back() -> None:
    sim = live("v1").apply(version="v2")
    sim.until(Provision)
    sim.deleted, sim.observed = True, replace(sim.observed, unreachable="no route to host")
    sim.breathe(100_000)
    assert sim.step() == Wait("TargetUnreachable", "no route to host", held=True)
    sim.observed = replace(sim.observed, unreachable="")
    assert sim.finish().outcome == "Deleted"
    assert (sim.observed.blue, sim.observed.green) == (SlotView(), SlotView())


def test_a_deletion_gives_up_on_a_target_that_stays_out_of_reach_and_not_before() -> None:
    sim = live("v1")
    sim.deleted, sim.observed = True, replace(sim.observed, unreachable="no route to host")
    sim.abandon_at = sim.now + datetime.timedelta(seconds=60)
    assert sim.step() == Wait("TargetUnreachable", "no route to host", sim.abandon_at, held=True)
    assert sim.status.phase == "Terminating"
    assert "no route to host; from 2026-01-01T" in sim.status.message
    sim.breathe(59)
    assert isinstance(sim.step(), Wait)
    sim.breathe(1)
    finish = sim.step()
    assert isinstance(finish, Finish)
    assert (finish.outcome, finish.reason) == ("Deleted", "Abandoned")
    assert "no route to host" in finish.message


def test_what_was_never_released_is_deleted_without_a_look_at_the_target() -> None:
    for changes in (
        {"problem": SpecProblem("NoPolicy", "no")},
        {"observed": ObservedState(unreachable="no route to host")},
    ):
        finish = Sim(deleted=True, **changes).step()
        assert isinstance(finish, Finish)
        assert (finish.outcome, finish.reason) == ("Deleted", "NeverReleased")
    finish = Sim(deleted=True).step()
    assert isinstance(finish, Finish)
    assert finish.reason == "Deleted"


def test_a_target_that_comes_back_empty_is_filled_again() -> None:
    sim = live("v1")
    sim.observed = replace(sim.observed, blue=SlotView(), green=SlotView(), live=None)
    sim.settle()
    assert (sim.serving, sim.active.wanted) == ("v1", 2)


@pytest.mark.parametrize(("step", "reason"), [(Prepare, "ImageNotFound"), (Provision, "PortTaken")])
@pytest.mark.parametrize("strategy", ["BlueGreen", "Rolling", "Recreate"])
def test_a_step_that_can_never_work_fails_at_once(step: type, reason: str, strategy: str) -> None:
    sim = live("v1", strategy={"type": strategy}).apply(version="v2", strategy={"type": strategy})
    sim.errors[step] = StepError(reason, f"{reason} it is", retryable=False)
    before = sim.now
    assert end(sim) == ("Failed", reason, "v1")
    assert sim.now - before < datetime.timedelta(seconds=30)
    assert sim.active.healthy == 2
    sim.errors.clear()
    sim.settle()
    assert (sim.active.healthy, sim.status.phase) == (2, "Degraded")


def test_a_step_that_may_work_later_is_tried_until_the_deadline() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.errors[Prepare] = StepError("RegistryUnreachable", "the registry does not answer", retryable=True)
    finish = sim.finish()
    assert (finish.outcome, finish.reason, sim.serving) == ("Failed", "ProgressDeadlineExceeded", "v1")
    assert "the registry does not answer" in finish.message


def test_health_that_flaps_ends_at_the_deadline() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.until(Provision)
    for second in range(200):
        one_of_two = SlotView(2, wanted=2, started=2, healthy=second % 2, failed=1)
        sim.now += datetime.timedelta(seconds=1)
        sim.observed = replace(sim.observed, green=one_of_two)
        if isinstance(step := sim.step(), Finish):
            assert (step.reason, sim.serving, second < 70) == ("ProgressDeadlineExceeded", "v1", True)
            return
    raise AssertionError("flapped for ever")


def test_health_that_flaps_during_the_bake_goes_back() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.put("green", replace(sim.observed.green, healthy=1, failed=1))
    assert sim.step() == Switch("blue")
    assert end(sim) == ("RolledBack", "InstanceFailed", "v1")


def test_an_instance_that_dies_and_comes_back_during_the_bake_goes_back() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.crash("green")
    assert end(sim) == ("RolledBack", "InstanceRestarted", "v1")


def test_a_crash_loop_is_given_up_before_the_deadline() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "crashing"
    assert end(sim) == ("Failed", "CrashLoop", "v1")


@pytest.mark.parametrize("when", ["prePromotion", "postPromotion"])
def test_a_hook_that_fails_stops_the_release(when: str) -> None:
    sim = live("v1").apply(version="v2", stages={when: [hook("smoke")]})
    sim.hooks_fail = {"smoke"}
    outcome = "Failed" if when == "prePromotion" else "RolledBack"
    assert end(sim) == (outcome, "HookFailed", "v1")


def test_without_automatic_rollback_a_failed_bake_is_only_reported() -> None:
    sim = live("v1").apply(version="v2", rollback={"automatic": False})
    sim.waits_for("Baking")
    sim.crash("green")
    assert end(sim) == ("Failed", "InstanceRestarted", "v2")
    sim.ask("rollback")
    assert end(sim) == ("Promoted", "Promoted", "v1")


def test_the_good_side_is_kept_while_the_one_that_failed_and_stayed_live_is_not_healthy() -> None:
    sim = live("v1").apply(version="v2", rollback={"automatic": False})
    sim.waits_for("Baking")
    sim.crash("green", back=False)
    sim.behaviour["v2"] = "crashing"
    assert sim.finish().outcome == "Failed"
    wait = sim.waits_for("LiveUnhealthy")
    sim.breathe(9999)
    assert sim.step() == wait
    assert (sim.version("blue"), sim.observed.blue.healthy) == ("v1", 2)
    sim.behaviour["v2"] = "well"
    sim.settle()
    assert sim.version("blue") == ""


def test_a_side_is_switched_to_once_it_has_been_healthy_for_min_ready_seconds() -> None:
    sim = live("v1").apply(version="v2", minReadySeconds=20)
    wait = sim.waits_for("MinReady")
    assert wait.until is not None
    sim.behaviour["v2"] = "unhealthy"
    sim.waits_for("Unhealthy")
    sim.behaviour["v2"] = "well"
    again = sim.waits_for("MinReady")
    assert again.until is not None
    assert again.until > wait.until, "it is counted anew"
    sim.until(Switch)
    assert sim.now >= again.until


@pytest.mark.no_cover
def test_where_nothing_counts_requests_health_decides_the_bake() -> None:
    """On Kubernetes, a Service does not count requests."""
    for behaviour, outcome in (("well", "Promoted"), ("unhealthy", "RolledBack")):
        target = {"docker": None, "kubernetes": {}}
        sim = live("v1", target=target).apply(version="v2", target=target, stages={"bakeSeconds": 600})
        sim.waits_for("Baking")
        assert sim.observed.green.requests is None
        sim.behaviour["v2"] = behaviour
        assert sim.finish().outcome == outcome


@pytest.mark.parametrize(
    ("percent", "before", "after", "outcome"),
    [
        (None, (0, 0), (100, 6), "RolledBack"),
        (None, (0, 0), (100, 5), "Promoted"),
        (5, (1000, 500), (1100, 506), "RolledBack"),
        (5, (0, 0), (100, 5), "Promoted"),
        (5, (0, 0), (5, 4), "Promoted"),
        (100, (0, 0), (50, 50), "Promoted"),
        (0, (0, 0), (1000, 5), "RolledBack"),
        (5, (1000, 0), (50, 6), "RolledBack"),  # another proxy counts from 0
    ],
)
def test_failed_requests_in_the_bake_send_a_release_back(
    percent: int | None, before: tuple[int, int], after: tuple[int, int], outcome: str
) -> None:
    def serve(requests: int, failed: int) -> None:
        sim.put("green", replace(sim.observed.green, requests=requests, failed_requests=failed))

    sim = live("v1").apply(version="v2", stages={"failureThresholdPercent": percent})
    sim.until(Switch)
    serve(*before)
    sim.waits_for("Baking")
    serve(*after)
    assert sim.finish().outcome == outcome
    release = sim.state.release
    assert release is not None
    first = before if after[0] >= before[0] else (0, 0)
    assert (release.requests, release.failed_requests) == (after[0] - first[0], after[1] - first[1])
    assert (release.reason == "RequestsFailed") == (outcome == "RolledBack")


@pytest.mark.parametrize(
    ("good", "bad", "outcome"),
    [
        (0, 5, "RolledBack"),
        (100, 6, "RolledBack"),  # more than 5 % recently, far fewer since the switch
        (100, 4, "Promoted"),  # too few to count
        (200, 6, "Promoted"),  # 3 % recently
    ],
)
def test_requests_that_fail_late_in_a_long_bake_are_not_outweighed_by_earlier_ones(
    good: int, bad: int, outcome: str
) -> None:
    def serve(requests: int, failed: int) -> None:
        green = sim.observed.green
        counts = {"requests": (green.requests or 0) + requests, "failed_requests": green.failed_requests + failed}
        sim.put("green", replace(green, **counts))

    sim = live("v1").apply(version="v2", stages={"bakeSeconds": 1000})
    sim.until(Switch)
    serve(0, 0)
    sim.waits_for("Baking")
    for _ in range(10):
        serve(1000, 0)
        sim.breathe(30)
        sim.step()
    for _ in range(2):
        sim.breathe(60)
        sim.step()
    serve(good + bad, bad)
    finish = sim.until(Finish, seconds=60)
    assert isinstance(finish, Finish)
    assert finish.outcome == outcome
    assert sim.state.release is not None
    assert sim.state.release.reason == ("RequestsFailed" if outcome == "RolledBack" else "Promoted")
    assert sim.state.release.marks == ()


def test_a_first_release_that_fails_has_nowhere_to_return_to() -> None:
    sim = Sim(behaviour={"v1": "crashing"})
    assert end(sim) == ("Failed", "CrashLoop", "")
    sim.settle()
    assert (sim.status.phase, sim.observed.blue) == ("Failed", SlotView())


def test_the_old_side_gone_as_well_ends_with_rollback_failed() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.waits_for("Baking")
    sim.behaviour |= {"v1": "unhealthy", "v2": "unhealthy"}
    sim.breathe()
    assert end(sim) == ("Failed", "RollbackFailed", "v2")
    assert sim.status.phase == "Failed"
    sim.behaviour.clear()
    sim.ask("retry")
    assert end(sim) == ("Promoted", "Promoted", "v2")
    assert sim.state.live is not None
    assert sim.state.live.revision == 3


def test_some_of_the_old_side_is_better_than_none() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.waits_for("Baking")
    sim.behaviour |= {"v1": "unhealthy", "v2": "unhealthy"}
    sim.breathe()
    sim.step()
    sim.put("blue", replace(sim.observed.blue, healthy=1, failed=1))
    sim.now += datetime.timedelta(seconds=70)
    assert sim.step() == Switch("blue")


def test_promote_during_the_bake_ends_it() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.ask("promote")
    assert sim.step() == Finish("Promoted", "Promoted", "revision 2 is live")


STAGES_AND_MOMENTS: dict[str, Any] = {
    "Prepare": Prepare,
    "Provision": Provision,
    "PrePromotion": RunHook,
    "Promote": Switch,
    "Finish": Finish,
    "Drain": Drain,
    "Retire": Retire,
}


@pytest.mark.no_cover
@pytest.mark.parametrize("kill", ["before", "between"])
@pytest.mark.parametrize("moment", STAGES_AND_MOMENTS.values(), ids=STAGES_AND_MOMENTS.keys())
def test_the_operator_killed_at_every_step_comes_to_the_same_end(moment: type, kill: str) -> None:
    stages = {"prePromotion": [hook("pre")], "postPromotion": [hook("post")]}
    sim = live("v1").apply(version="v2", stages=stages)
    for _ in range(500):
        if isinstance(sim.decide().step, moment):
            sim.step(kill=kill)
            break
        sim.step()
        sim.breathe()
    sim.settle()
    assert (sim.serving, sim.idle, sim.state.history[0].outcome) == ("v2", SlotView(), "Promoted")
    assert sum(isinstance(step, RunHook) for step in sim.steps) <= 2


def test_a_status_that_was_wiped_is_worked_out_again() -> None:
    sim = live("v1")
    sim.status = type(sim.status)()
    sim.state = replace(sim.state, live=None, release=None, history=(), latest=0, key="", settled=False)
    sim.settle()
    assert (sim.serving, [type(step) for step in sim.steps]) == ("v1", [Wait])


def test_a_clock_that_is_set_back_does_not_delay_a_release() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.now -= datetime.timedelta(days=30)
    before = sim.now
    assert end(sim)[0] == "Promoted"
    assert sim.now - before < datetime.timedelta(minutes=2)


def test_scaling_alone_reaches_the_live_side_at_once() -> None:
    sim = live("v1").apply(version="v1", replicas=5)
    assert sim.step() == Scale("blue", 5)
    assert sim.settle().state.latest == 1


def test_scaling_reaches_both_sides_while_a_promotion_is_awaited() -> None:
    sim = live("v1").apply(version="v2", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.apply(version="v2", strategy=MANUAL, replicas=4)
    assert [sim.step(), sim.step()] == [Scale("blue", 4), Scale("green", 4)]


def test_a_spec_that_cannot_be_resolved_starts_nothing() -> None:
    sim = Sim(wish=spec("v1", rollbackTo={"revision": 7}))
    step = sim.step()
    assert isinstance(step, Wait)
    assert step.reason == "RevisionUnknown"
    assert {c.type: c.status for c in sim.status.conditions}["Stalled"] == "True"


def test_a_live_side_that_cannot_be_repaired_does_not_stop_its_successor() -> None:
    sim = live("v1")
    sim.put("blue", SlotView())
    sim.errors[Provision] = StepError("Broken", "the engine refuses", retryable=True)
    sim.step()
    assert sim.observed.error is not None
    sim.apply(version="v2")
    assert isinstance(sim.step(), Prepare)


def test_a_way_back_that_never_works_ends_after_twice_the_deadline() -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=60)
    sim.waits_for("Baking")
    sim.crash("green")
    sim.errors[Switch] = StepError("ProxyGone", "the proxy does not answer", retryable=True)
    failed = sim.now
    assert end(sim) == ("Failed", "RollbackFailed", "v2")
    assert sim.now - failed == datetime.timedelta(seconds=120)


def test_a_rollback_is_asked_for_in_mid_release() -> None:
    sim = live("v0").apply(version="v1").settle().apply(version="v2")
    sim.until(Provision)
    sim.ask("rollback", revision=1)
    assert end(sim) == ("Aborted", "RollbackRequested", "v1")
    assert end(sim) == ("Promoted", "Promoted", "v0")
    assert sim.status.pinned_revision == 1


def test_a_rollback_that_is_asked_for_twice_in_a_hurry_goes_back_once() -> None:
    sim = live("v1").apply(version="v2").settle()
    sim.ask("rollback")
    sim.until(Provision)
    sim.ask("rollback").step()
    assert sim.status.request is not None
    assert sim.status.request.message == "the rollback to revision 1 goes on already"
    assert end(sim) == ("Promoted", "Promoted", "v1")


def test_a_rollback_to_what_is_live_only_pins_it() -> None:
    sim = live("v1").apply(version="v2")
    sim.until(Provision)
    sim.ask("rollback")
    assert end(sim) == ("Aborted", "RollbackRequested", "v1")
    sim.settle()
    assert (sim.serving, sim.status.pinned_revision, sim.status.phase) == ("v1", 1, "Pinned")


def test_a_rollback_in_git_is_followed_and_taken_back() -> None:
    sim = live("v1").apply(version="v2").settle()
    sim.apply(version="v2", rollbackTo={"revision": 1}).settle()
    assert (sim.serving, sim.status.pinned_revision, sim.status.phase) == ("v1", None, "Healthy")
    sim.apply(version="v2").settle()
    assert sim.serving == "v2"


def test_a_rollback_goes_on_while_paused() -> None:
    sim = live("v1").apply(version="v2").settle()
    sim.apply(version="v2", paused=True)
    sim.ask("rollback")
    assert end(sim) == ("Promoted", "Promoted", "v1")


def test_pause_and_resume_by_request() -> None:
    sim = live("v1").apply(version="v2")
    sim.until(Provision)
    sim.ask("pause")
    sim.waits_for("Paused")
    sim.ask("resume")
    assert end(sim) == ("Promoted", "Promoted", "v2")


@pytest.mark.parametrize(
    ("kind", "details", "why"),
    [
        ("rollback", {}, "there is no earlier revision that was live"),
        ("rollback", {"revision": 9}, "revision 9 is not kept; kept are: 1"),
        ("promote", {}, "there is no release to promote"),
        ("resume", {}, "spec.paused is true; set it to false to go on"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_the_reason(kind: str, details: dict[str, Any], why: str) -> None:
    sim = live("v1").apply(version="v1", paused=True)
    sim.ask(kind, **details).step()
    assert sim.status.request is not None
    assert (sim.status.request.accepted, sim.status.request.message) == (False, why)


@pytest.mark.parametrize("kind", ["promote", "abort", "retry"])
def test_a_release_that_goes_back_cannot_be_turned_around(kind: str) -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.ask("abort").step()
    sim.ask(kind).step()
    assert sim.status.request is not None
    assert not sim.status.request.accepted
    assert (sim.finish().outcome, sim.status.active_revision) == ("RolledBack", 1)


@pytest.mark.parametrize("kind", ["promote", "abort"])
def test_a_request_that_means_another_revision_is_refused(kind: str) -> None:
    sim = live("v1").apply(version="v2", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.apply(version="v3", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    sim.ask(kind, revision=2).step()
    assert sim.status.request is not None
    assert sim.status.request.message == "revision 3 is on its way by now, not revision 2"
    assert sim.serving == "v1"
    sim.ask(kind, revision=3)
    assert end(sim)[2] == ("v3" if kind == "promote" else "v1")


def test_a_problem_with_the_spec_is_waited_for_or_reported() -> None:
    sim = live("v1").apply(version="v2")
    for retryable, stalled, phase in ((True, "False", "Pending"), (False, "True", "Degraded")):
        sim.problem = SpecProblem("SecretNotFound", "Secret db is not there", retryable)
        sim.waits_for("SecretNotFound")
        assert {c.type: c.status for c in sim.status.conditions}["Stalled"] == stalled
        assert (sim.serving, sim.status.phase) == ("v1", phase)
    sim.problem = None
    assert end(sim) == ("Promoted", "Promoted", "v2")


def test_a_revision_that_is_released_again_within_a_second_is_another_release() -> None:
    """Its hooks and its report are distinguished from the earlier ones by the time when it began."""
    sim = live("v1")
    sim.behaviour["v2"] = "unhealthy"
    sim.apply(version="v2").finish()
    sim.settle()
    before = sim.state.release
    assert before is not None
    sim.now = before.started_at
    sim.apply(version="v2", rollbackTo={"revision": 2})
    for _ in range(9):
        sim.step()
        sim.now = before.started_at
    again = sim.state.releasing
    assert again is not None
    assert again.revision == before.revision
    assert again.started_at > before.started_at


GONE = SpecProblem("ArtifactChanged", "/srv/shop of revision 1 has changed since", retryable=False)


@pytest.mark.parametrize("revision", [None, 1])
def test_a_rollback_to_what_cannot_be_brought_back_is_refused_before_anything_is_touched(revision: int | None) -> None:
    sim = live("v1").apply(version="v2").settle().apply(version="v3", strategy=MANUAL)
    sim.waits_for("AwaitingPromotion")
    before, sim.obstacles = sim.observed, {1: GONE, 2: GONE}
    target = revision or 2
    if revision is None:  # None means the live revision, which needs nothing
        sim.ask("abort").finish()
        sim.settle()
        before, target = sim.observed, 1
    sim.ask("rollback", revision=revision).step()
    assert sim.status.request is not None
    assert (sim.status.request.accepted, sim.status.request.message) == (
        False,
        f"revision {target} cannot be returned to: {GONE.message}",
    )
    assert sim.observed == before


@pytest.mark.parametrize("retryable", [True, False])
def test_a_spec_that_returns_to_what_cannot_be_brought_back_waits_and_gives_the_reason(retryable: bool) -> None:
    sim = live("v1").apply(version="v2").settle()
    sim.obstacles = {1: replace(GONE, retryable=retryable)}
    before = sim.observed
    sim.apply(version="v2", rollbackTo={"revision": 1})
    waits = sim.waits_for("ArtifactChanged")
    assert "spec.rollbackTo: revision 1 cannot be returned to" in waits.why
    assert (sim.observed, sim.serving) == (before, "v2")
    assert {c.type: c.status for c in sim.status.conditions}["Stalled"] == str(not retryable)
    sim.obstacles = {}
    assert end(sim) == ("Promoted", "Promoted", "v1")


def test_the_digest_of_a_revision_is_in_its_history_and_never_changes() -> None:
    sim = live("v1")
    for digest in ("sha256:1", "sha256:2"):
        sim.observed = replace(sim.observed, digests={1: digest})
        sim.step()
        assert [each.digest for each in sim.status.history] == ["sha256:1"]


def test_a_request_with_a_mistake_in_it_is_refused_once_and_changes_nothing() -> None:
    sim = live("v1", strategy={"blueGreen": {"autoPromote": False}})
    sim.apply(version="v2", strategy={"blueGreen": {"autoPromote": False}}).waits_for("AwaitingPromotion")
    sim.request = MalformedRequest("typo", "promote.revison is not a known field; did you mean revision?")
    sim.step()
    answer = sim.status.request
    assert answer is not None
    assert (answer.id, answer.kind, answer.accepted) == ("typo", None, False)
    assert "did you mean revision?" in answer.message
    assert isinstance(sim.step(), Wait)
    assert sim.serving == "v1"


def test_a_release_remembers_the_tasks_of_its_hooks_and_the_next_one_does_not() -> None:
    sim = live("v1", stages={"bakeSeconds": 0, "prePromotion": [hook("smoke")], "postPromotion": [hook("check")]})
    assert sim.state.release is not None
    assert {task.name: task.uid for task in sim.state.release.hooks} == {"smoke": "task-smoke", "check": "task-check"}
    sim.apply(version="v2").until(Provision)
    assert sim.state.release.hooks == ()
