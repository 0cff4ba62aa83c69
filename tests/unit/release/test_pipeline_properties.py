"""Tests that the pipeline keeps its promises under any sequence of events."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from releases import Sim, hook, live, spec
from remit.api.slots import other
from remit.release.model import SlotView, StepError
from remit.release.steps import Drain, Finish, Preview, Provision, Retire, Scale, Step, Switch, Wait
from support import repetitions, soaking

VERSIONS = st.sampled_from(["v1", "v2", "v3", "v4"])
FATES = st.sampled_from(["well", "flapping", "unhealthy", "crashing"])
KINDS = st.sampled_from(["promote", "abort", "rollback", "retry", "pause", "resume"])
BREAKABLE = st.sampled_from([Provision, Scale, Switch, Drain, Retire, Preview])
MANUAL = {"type": "BlueGreen", "blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 60}}
TIMED = {"type": "BlueGreen", "blueGreen": {"autoPromoteAfterSeconds": 90, "previewReplicas": 1}}
CANARY = {"type": "Canary", "canary": {"steps": [{"weight": 20, "pauseSeconds": 60}, {"weight": 50}]}}
BOUND = 400


class Chaos(RuleBasedStateMachine):
    """One Deployment and all events that can affect it."""

    strategies: tuple[dict[str, Any], ...] = ()

    @initialize(data=st.data(), hooks=st.booleans(), automatic=st.booleans(), under_way=st.integers(0, 45))
    def begin(self, data: st.DataObject, hooks: bool, automatic: bool, under_way: int) -> None:
        strategy, limit = data.draw(st.sampled_from(self.strategies)), data.draw(st.sampled_from([0, 1, 10]))
        self.begin_with(strategy, limit, hooks, automatic, under_way)

    def begin_with(self, strategy: dict[str, Any], limit: int, hooks: bool, automatic: bool, under_way: int) -> None:
        stages = {"prePromotion": [hook("pre")], "postPromotion": [hook("post")], "bakeSeconds": 20} if hooks else {}
        self.fixed: dict[str, Any] = {
            "strategy": strategy,
            "stages": stages,
            "rollback": {"automatic": automatic},
            "progressDeadlineSeconds": 120,
            "revisionHistoryLimit": limit,
        }
        self.changing: dict[str, Any] = {"version": "v1", "replicas": 2}
        self.asked_replicas = {2}
        self.crashed: datetime.datetime | None = None
        self.sim = live("v1", **self.fixed) if under_way else Sim(wish=self.wish())
        self.sim.terse = True
        # Most relevant events happen during a release, so the test starts there.
        self.edit_version("v2")
        for _ in range(under_way):
            self.checked_step("")
            self.sim.breathe()

    def wish(self) -> Any:
        return spec(**self.changing, **self.fixed)

    @rule(version=VERSIONS)
    def edit_version(self, version: str) -> None:
        self.changing["version"] = version
        self.sim.wish = self.wish()

    @rule(replicas=st.integers(0, 5))
    def edit_replicas(self, replicas: int) -> None:
        self.changing["replicas"] = replicas
        self.asked_replicas.add(replicas)
        self.sim.wish = self.wish()

    @rule(paused=st.booleans())
    def edit_paused(self, paused: bool) -> None:
        self.changing["paused"] = paused
        self.sim.wish = self.wish()

    @rule(revision=st.none() | st.integers(1, 4))
    def edit_rollback_to(self, revision: int | None) -> None:
        self.changing["rollbackTo"] = revision and {"revision": revision}
        self.sim.wish = self.wish()

    @rule(version=st.sampled_from(["", "a", "b"]))
    def edit_secret(self, version: str) -> None:
        self.sim.secret = version

    @rule(kind=KINDS, revision=st.none() | st.integers(1, 4), full=st.booleans())
    def ask(self, kind: str, revision: int | None, full: bool) -> None:
        self.sim.ask(kind, revision=revision if kind == "rollback" else None, full=full)

    @rule(version=VERSIONS, fate=FATES)
    def fate(self, version: str, fate: str) -> None:
        self.sim.behaviour[version] = fate

    @rule(fails=st.sets(st.sampled_from(["pre", "post"])))
    def hooks_fail(self, fails: set[str]) -> None:
        self.sim.hooks_fail = fails

    @rule(slot=st.sampled_from(["blue", "green"]), left=st.integers(0, 1))
    def instances_are_lost(self, slot: str, left: int) -> None:
        view = getattr(self.sim.observed, slot)
        if view.revision is not None:
            self.sim.put(slot, replace(view, started=left, healthy=left, failed=1))
        self.checked_step("")

    @rule(slot=st.sampled_from(["blue", "green"]), back=st.booleans())
    def an_instance_crashes(self, slot: str, back: bool) -> None:
        sim, view = self.sim, getattr(self.sim.observed, slot)
        if "0" not in view.instances or not view.instances["0"].healthy:
            return
        self.checked_step("")
        release, view = sim.state.releasing, getattr(sim.observed, slot)
        if "0" not in view.instances or not view.instances["0"].healthy:
            return
        sim.crash(slot, back=back)
        if release and release.slot == slot and "0" in release.incarnations and not sim.observed.unreachable:
            self.crashed = release.started_at

    @rule(
        what=st.sampled_from(["emptied", "gone", "back", "breaks", "breaks for good", "works", "clock"]), data=st.data()
    )
    def trouble(self, what: str, data: st.DataObject) -> None:
        sim = self.sim
        match what:
            case "emptied":
                self.empty_target()
            case "gone" | "back":
                sim.observed = replace(sim.observed, unreachable="no route to host" if what == "gone" else "")
            case "breaks" | "breaks for good":
                error = StepError("Broken", "it does not work", retryable=what == "breaks")
                sim.errors[data.draw(BREAKABLE)] = error
            case "works":
                sim.errors.clear()
            case "clock":
                sim.now += datetime.timedelta(seconds=data.draw(st.sampled_from([-100_000, -40, 3600, 100_000])))

    def empty_target(self) -> None:
        sim, empty = self.sim, SlotView()
        sim.observed = replace(sim.observed, blue=empty, green=empty, live=None, share=0, preview=None)
        if sim.state.releasing is not None and sim.state.releasing.failure is None:
            self.crashed = None  # the crash was not observed, and later instances are different ones

    @rule(seconds=st.sampled_from([0, 1, 10, 31, 61, 130]))
    def time_goes_by(self, seconds: int) -> None:
        self.sim.breathe(seconds)

    @rule(count=st.integers(1, 12), kill=st.sampled_from(["", "", "", "before", "between"]))
    def work(self, count: int, kill: str) -> None:
        """Runs the operator for a number of steps, and then kills it or not."""
        for _ in range(count):
            self.checked_step("")
            self.sim.breathe(1)
        self.checked_step(kill)

    @precondition(lambda self: not self.sim.deleted)
    @rule(sure=st.integers(0, 9))
    def delete(self, sure: int) -> None:
        self.sim.deleted = sure == 9

    def checked_step(self, kill: str) -> Step:
        sim, observed, before = self.sim, self.sim.observed, self.sim.state
        decision = sim.decide()
        again = sim.decide()
        assert decision == again, "asked twice about the same, it says the same"
        self.check_live_side(decision.step)
        if isinstance(decision.step, Switch):
            self.check_switch(decision.step)
        if isinstance(decision.step, Finish) and decision.step.outcome != "Deleted":
            release = decision.state.release
            assert release is not None
            assert before.releasing is not None or release.started_at == sim.now
            watched = before.releasing.incarnations if before.releasing else {}
            if release.started_at == self.crashed and "0" in watched:
                assert decision.step.outcome != "Promoted", "promoted although an instance crashed since it was healthy"
            if decision.step.outcome != "Promoted" and decision.state.live is not None:
                # If the target lost even the route and nothing could be restored, no side serves.
                lost = observed.live is None and decision.step.reason == "RollbackFailed"
                assert lost or observed.live == decision.state.live.slot, "what it ends with is what serves"
        return sim.step(kill=kill)

    def check_live_side(self, step: Step) -> None:
        """Asserts that the serving side is not changed before the other side is healthy."""
        sim, observed = self.sim, self.sim.observed
        if observed.live is None or sim.deleted or not isinstance(step, Drain | Retire | Provision | Scale):
            return
        if step.slot != observed.live:
            return
        view = observed.slot(observed.live)
        match step:
            case Provision():
                assert view.revision is None or view.draining, "provisioned over the live side"
            case Scale(_, replicas):
                assert self.may_scale_live(view, replicas)
            case Drain() | Retire():
                assert self.fixed["strategy"].get("type") == "Recreate", "took down what was live"

    def may_scale_live(self, view: SlotView, replicas: int) -> bool:
        kind = self.fixed["strategy"].get("type", "BlueGreen")
        return replicas in self.asked_replicas or kind in {"Recreate", "Rolling"}

    def check_switch(self, step: Switch) -> None:
        """Asserts that requests are sent only to a side with healthy instances, or back to the previous side."""
        sim, observed = self.sim, self.sim.observed
        release = sim.decide().state.releasing
        state = sim.decide().state
        if step.share or (
            state.live is not None and step.live == state.live.slot and observed.live in {None, step.live}
        ):
            return
        assert release is not None or state.live is not None
        view = observed.slot(step.live)
        if release is not None and release.failure is None:
            assert step.live == release.slot
            assert observed.ready(release.revision, release.slot, release.replicas), (
                "switched to a side that is not ready"
            )
        elif release is not None:
            assert view.healthy > 0 or (state.live is not None and state.live.replicas == 0)

    def teardown(self) -> None:
        """Asserts that the release ends under a fair schedule: the target is available, steps succeed, and promotions
        are given.

        A side that failed, stayed live and is not complete is such an end: the other side is kept, and a user has to
        return to it.
        """
        if not hasattr(self, "sim"):
            return
        sim = self.sim
        sim.errors.clear()
        sim.observed = replace(sim.observed, unreachable="")
        self.changing["paused"] = False
        sim.wish = self.wish()
        sim.request = None
        went_back = False
        for _ in range(BOUND):
            step = self.checked_step("")
            if isinstance(step, Wait) and step.reason == "LiveUnhealthy":
                self.check_kept()
                if went_back:
                    return
                went_back = True
                sim.ask("rollback", revision=sim.idle.revision)
                self.checked_step("")
                assert sim.state.answer is not None
                assert sim.state.answer.accepted, sim.state.answer.message
            sim.breathe(5)
            if isinstance(step, Finish) and step.outcome == "Deleted":
                assert sim.observed.blue.revision is None and sim.observed.green.revision is None
                return
            if isinstance(step, Wait) and step.reason in {"Settled", "RevisionUnknown"} and sim.state.releasing is None:
                self.check_settled()
                return
            if isinstance(step, Wait) and step.reason in {"AwaitingPromotion", "Paused"}:
                sim.ask("promote" if step.reason == "AwaitingPromotion" else "resume", full=False)
        raise AssertionError(f"no end; last: {sim.steps[-6:]}")

    def check_settled(self) -> None:
        """Asserts that at most one side is live, and that nothing else remains."""
        sim, observed = self.sim, self.sim.observed
        if sim.state.live is not None:
            assert observed.live == sim.state.live.slot
            assert observed.slot(other(sim.state.live.slot)).revision is None
            assert observed.slot(sim.state.live.slot).revision == sim.state.live.revision
        assert observed.share == 0
        assert observed.preview is None

    def check_kept(self) -> None:
        """Asserts that the release ended and failed, and that the side that it left in place remains available for a
        rollback."""
        sim, last, side = self.sim, self.sim.state.release, self.sim.state.live
        assert last is not None
        assert side is not None
        assert (last.outcome, last.revision, sim.observed.live) == ("Failed", side.revision, side.slot)
        assert sim.active.healthy < side.replicas or sim.active.failed
        assert sim.idle.revision in sim.revisions


class BlueGreenChaos(Chaos):
    strategies = ({"type": "BlueGreen"}, MANUAL, TIMED)


class OtherChaos(Chaos):
    strategies = (
        {"type": "Recreate"},
        CANARY,
        {"type": "Rolling"},
        {"type": "Rolling", "rolling": {"maxSurge": 0, "maxUnavailable": "50%"}},
    )


CHAOS = settings(
    max_examples=repetitions(15, 2000),
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not soaking(),
)
TestBlueGreenChaos = BlueGreenChaos.TestCase
TestBlueGreenChaos.settings = CHAOS
TestOtherChaos = OtherChaos.TestCase
TestOtherChaos.settings = CHAOS


def test_a_side_that_failed_and_stayed_live_is_an_end_from_which_people_go_back() -> None:
    chaos = BlueGreenChaos()
    chaos.begin_with({"type": "BlueGreen"}, 0, hooks=True, automatic=False, under_way=20)
    assert (chaos.sim.serving, chaos.sim.state.releasing is not None) == ("v2", True)
    chaos.fate("v2", "crashing")
    chaos.teardown()
    assert (
        Wait("LiveUnhealthy", "blue is kept, because 0 of 2 instances of green, which failed, are healthy")
        in chaos.sim.steps
    )
    assert (chaos.sim.serving, chaos.sim.state.pin) == ("v1", 1)


@pytest.mark.parametrize(("seen", "serving"), [(True, "v1"), (False, "v2")])
def test_an_unobserved_crash_is_lost_with_the_state_of_the_target(seen: bool, serving: str) -> None:
    chaos = OtherChaos()
    chaos.begin_with(CANARY, 0, hooks=False, automatic=False, under_way=31)
    chaos.an_instance_crashes(slot="green", back=False)
    if seen:
        chaos.checked_step("")
    chaos.empty_target()
    chaos.teardown()
    assert chaos.sim.serving == serving


VIEWS = st.builds(
    SlotView,
    revision=st.none() | st.integers(1, 9),
    wanted=st.integers(0, 9),
    started=st.integers(0, 9),
    healthy=st.integers(0, 9),
    failed=st.integers(0, 9),
    restarts=st.integers(0, 99),
    draining=st.booleans(),
    connections=st.integers(0, 9),
)


@pytest.mark.parametrize("strategy", [{"type": "BlueGreen"}, CANARY, {"type": "Rolling"}])
@given(failed_side=VIEWS, healthy=st.integers(0, 2), late=st.integers(0, 2000))
@settings(deadline=None, max_examples=repetitions(15, 1000))
def test_the_way_back_never_depends_on_the_failed_side(
    strategy: dict[str, Any], failed_side: SlotView, healthy: int, late: int
) -> None:
    sim = live("v1", strategy=strategy).apply(version="v2", strategy=strategy)
    while sim.serving != "v2":
        sim.until(Switch)
        if sim.state.release and sim.state.release.stage == "Promote":
            sim.ask("promote")
        sim.breathe()
    sim.step()
    sim.behaviour["v2"] = "crashing"
    sim.breathe()
    sim.step()
    assert sim.state.release is not None and sim.state.release.failure is not None
    sim.observed = replace(sim.observed, live="green")
    sim.put("blue", replace(sim.observed.blue, healthy=healthy))
    sim.now += datetime.timedelta(seconds=late)
    decided = sim.decide()
    sim.put("green", failed_side)
    assert sim.decide() == decided


@given(versions=st.lists(VERSIONS, min_size=2, max_size=4), kills=st.lists(st.booleans(), min_size=25, max_size=25))
@settings(deadline=None, max_examples=repetitions(10, 500))
def test_an_operator_that_is_killed_at_any_step_comes_to_the_same_end(versions: list[str], kills: list[bool]) -> None:
    spared, killed = live("v0"), live("v0")
    for version in versions:
        spared.apply(version=version).settle()
        killed.apply(version=version)
        for kill in kills:
            killed.step(kill="between" if kill else "before")
            killed.step()
            killed.breathe()
        killed.settle()
    assert killed.serving == spared.serving == versions[-1]
    assert [(r.revision, r.outcome) for r in killed.state.history] == [
        (r.revision, r.outcome) for r in spared.state.history
    ]
