"""Tests that conditions that tools wait for describe the current spec, and never an earlier one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from releases import Sim, hook, live, snapshot, spec
from remit.api.phases import DeploymentPhase
from remit.release.model import ObservedState, SpecProblem
from remit.release.steps import Decision, Finish, RunHook, Switch
from statusreaders import kstatus, waits_for
from support import repetitions

pytestmark = pytest.mark.no_cover

CONDITIONS = ("Available", "Progressing", "Healthy", "Reconciling", "Stalled")
STRATEGIES: list[dict[str, Any]] = [
    {"type": "BlueGreen"},
    {"type": "BlueGreen", "blueGreen": {"autoPromote": False}},
    {"type": "Rolling"},
    {"type": "Canary", "canary": {"steps": [{"weight": 20, "pauseSeconds": 4}]}},
    {"type": "Recreate"},
]
EVENTS = st.one_of(
    st.tuples(st.just("version"), st.sampled_from(["v1", "v2", "v3"])),
    st.tuples(st.just("replicas"), st.integers(0, 4)),
    st.tuples(st.just("paused"), st.booleans()),
    st.tuples(st.just("rollbackTo"), st.sampled_from([None, 1, 2, 99])),
    st.tuples(st.just("secret"), st.sampled_from(["", "a"])),
    st.tuples(st.just("ask"), st.sampled_from(["promote", "abort", "rollback", "retry", "pause", "resume"])),
    st.tuples(st.just("fate"), st.sampled_from(["well", "crashing", "unhealthy"])),
    st.tuples(st.just("away"), st.booleans()),
    st.tuples(st.just("problem"), st.sampled_from([None, True, False])),
    st.tuples(st.just("lost"), st.booleans()),
    st.tuples(st.just("deleted"), st.just(True)),
    st.tuples(st.just("steps"), st.integers(1, 30)),
    st.tuples(st.just("steps"), st.integers(1, 30)),
    st.tuples(st.just("steps"), st.integers(1, 30)),
)


class Watched:
    """A Deployment whose every status is compared with what is declared and what serves."""

    def __init__(self, strategy: dict[str, Any], bakes: bool) -> None:
        stages = {"prePromotion": [hook()], "bakeSeconds": 5} if bakes else {}
        self.fixed = {"strategy": strategy, "stages": stages, "progressDeadlineSeconds": 60}
        self.changing: dict[str, Any] = {"version": "v1", "replicas": 2}
        self.sim = Sim(wish=spec(**self.changing, **self.fixed))

    def happen(self, what: str, value: Any) -> None:
        sim = self.sim
        match what:
            case "version" | "replicas" | "paused":
                self.changing[what] = value
            case "rollbackTo":
                self.changing[what] = value and {"revision": value}
            case "secret":
                sim.secret = value
            case "ask":
                sim.ask(value)
            case "fate":
                sim.behaviour["v2"] = value
            case "away":
                sim.observed = replace(sim.observed, unreachable="no route to host" if value else "")
            case "problem":
                sim.problem = None if value is None else SpecProblem("Unusable", "it cannot be", retryable=value)
            case "lost" if sim.observed.live is not None and not sim.observed.unreachable:
                sim.put(sim.observed.live, replace(sim.active, healthy=0, failed=1))
            case "deleted":
                sim.deleted = True
            case "steps":
                for _ in range(value):
                    self.step()
                    sim.breathe()
        sim.wish = spec(**self.changing, **self.fixed)
        if sim.status.observed_generation != sim.generation:
            assert kstatus(sim.object) in {"InProgress", "Terminating"}
            assert not any(waits_for(sim.object, each) for each in CONDITIONS)

    def step(self) -> None:
        decision = self.sim.decide()
        self.sim.write(decision)
        self.check(decision)
        self.sim.perform(decision.step)

    def check(self, decision: Decision) -> None:
        sim, obj = self.sim, self.sim.object
        status, state = sim.status, sim.state
        truths = {each.type: each.status for each in status.conditions}
        assert tuple(truths) == CONDITIONS
        assert {each.observed_generation for each in status.conditions} == {sim.generation}
        healthy = waits_for(obj, "Healthy")
        assert healthy == (status.phase is DeploymentPhase.HEALTHY)
        if healthy:
            assert self.declared_is_live(), status
        if not sim.deleted:
            assert healthy == (kstatus(obj) == "Current")
        if kstatus(obj) == "Failed":
            blocked = decision.blocked is not None and not decision.blocked.held
            failed = state.release is not None and state.release.key == sim.desired.key
            assert state.releasing is None
            assert blocked or failed or (status.phase is DeploymentPhase.PINNED and not self.declared_is_live())
        if status.phase is DeploymentPhase.PINNED:
            assert status.pinned_revision == status.active_revision
        if self.cannot_begin() and not isinstance(decision.step, Finish):
            assert kstatus(obj) == "Failed"
        if status.stage:
            assert {each.name: each.state for each in status.stages}[status.stage] in {"Running", "Failed"}  # type: ignore[index]

    def cannot_begin(self) -> bool:
        """Returns whether the spec names a revision that is not kept, and nothing else has to be done first."""
        sim, back = self.sim, self.sim.wish.rollback_to
        if back is None or back.revision in sim.revisions or sim.deleted or sim.wish.paused or sim.problem:
            return False
        state, live = sim.state, sim.state.live
        at_rest = state.releasing is None and not state.paused and state.rollback_to is None and not state.settled
        # A release leaves its failover to the step after its end; until then there is work in progress.
        route = (sim.observed.live, sim.observed.share, sim.observed.failover)
        moved = live is not None and route != (live.slot, 0, False)
        return at_rest and not moved and not sim.observed.unreachable

    def declared_is_live(self) -> bool:
        sim, seen = self.sim, self.sim.observed
        if seen.unreachable or seen.live is None or seen.share or sim.deleted or sim.state.releasing:
            return False
        number, back = sim.active.revision, sim.wish.rollback_to
        if number is None:
            return False
        if back is not None:
            return number == back.revision and not sim.active.failed
        same = sim.revisions[number].snapshot.spec_hash == snapshot(sim.wish, sim.secret).spec_hash
        return same and sim.active.healthy >= sim.wish.replicas and not sim.active.failed


@example({"type": "BlueGreen"}, False, 1, [("steps", 25), ("rollbackTo", 99), ("steps", 20)])
@given(st.sampled_from(STRATEGIES), st.booleans(), st.integers(0, 20), st.lists(EVENTS, max_size=8))
@settings(
    max_examples=repetitions(25, soak=1000), deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
def test_what_is_waited_for_is_true_of_the_declared_spec(
    strategy: dict[str, Any], bakes: bool, under_way: int, events: list[tuple[str, Any]]
) -> None:
    # Most relevant events happen during a second release, and show when it ends.
    watched = Watched(strategy, bakes)
    first: list[tuple[str, Any]] = [("steps", 25), ("version", "v2"), ("steps", under_way)] if under_way else []
    for what, value in [*first, *events, ("steps", 20)]:
        watched.happen(what, value)


def truths(sim: Sim) -> dict[str, str]:
    return {each.type: each.status for each in sim.status.conditions}


def test_a_release_that_ends_after_a_newer_edit_is_not_what_is_waited_for() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("Baking")
    sim.apply(version="v3").step()
    assert sim.status.message.endswith("; the spec was edited since, and what it declares now is released after this")
    sim.until(Finish)
    assert (sim.status.active_revision, sim.status.phase) == (2, "Progressing")
    assert (truths(sim)["Healthy"], kstatus(sim.object)) == ("False", "InProgress")
    sim.until(Finish)
    assert (sim.serving, sim.status.phase, kstatus(sim.object)) == ("v3", "Healthy", "Current")


def test_a_failure_of_an_earlier_spec_is_not_reported_for_the_next_one() -> None:
    sim = live("v1").apply(version="v2")
    sim.behaviour["v2"] = "crashing"
    sim.settle()
    assert kstatus(sim.object) == "Failed"
    sim.observed = replace(sim.observed, unreachable="no route to host")
    sim.apply(version="v3").step()
    assert (truths(sim)["Stalled"], truths(sim)["Available"]) == ("False", "Unknown")
    assert kstatus(sim.object) == "InProgress"


def test_what_cannot_begin_is_reported_while_the_old_side_is_kept() -> None:
    sim = live("v1").apply(version="v2")
    sim.waits_for("ScaleDownDelay")
    sim.apply(version="v2", rollbackTo={"revision": 99}).step()
    assert sim.observed.blue.revision == 1  # the scale-down delay has not ended
    assert (sim.status.phase, kstatus(sim.object)) == ("Degraded", "Failed")
    stalled = next(each for each in sim.status.conditions if each.type == "Stalled")
    assert (stalled.reason, stalled.message) == ("RevisionUnknown", "spec.rollbackTo: revision 99 is not kept")


def test_a_spec_that_returns_to_what_is_live_brings_its_replicas() -> None:
    sim = live("v1", replicas=2).apply(version="v2", replicas=4, paused=True)
    sim.waits_for("Paused")
    sim.apply(version="v1", replicas=4).settle()
    assert (sim.active.healthy, sim.status.ready, sim.status.phase) == (4, "4/4", "Healthy")


def test_where_nothing_was_ever_live_nothing_is_degraded() -> None:
    sim = Sim(wish=spec("v1"), observed=ObservedState(unreachable="no route to host"))
    sim.step()
    assert (sim.status.phase, sim.status.ready, sim.status.active) == ("Pending", "", "")
    sim.observed = ObservedState()
    sim.step()
    assert (sim.status.phase, sim.status.ready, sim.status.active) == ("Progressing", "0/2", "")
    blocked = Sim(wish=spec("v1"), problem=SpecProblem("InvalidSpec", "it cannot be", retryable=False))
    blocked.step()
    assert (blocked.status.phase, kstatus(blocked.object)) == ("Failed", "Failed")


def test_all_that_serve_are_ready() -> None:
    rolling = {"replicas": 4, "strategy": {"type": "Rolling", "rolling": {"maxSurge": 1, "maxUnavailable": 0}}}
    sim = live("v1", **rolling).apply(version="v2", **rolling)
    shown = set()
    while not isinstance(sim.step(), Finish):
        if sim.observed.share:
            shown.add(sim.status.ready)
        sim.breathe()
    assert shown <= {"4/4", "5/4"}
    assert shown


def test_a_stage_is_shown_once_it_was_entered() -> None:
    stages = {"postPromotion": [hook()], "bakeSeconds": 5}
    sim = live("v1").apply(version="v2", stages=stages)
    sim.until(RunHook)
    sim.hooks_fail = {"smoke"}
    sim.breathe()
    sim.until(Switch)
    assert (sim.status.phase, sim.status.stage) == ("RollingBack", "PostPromotion")
    states = {each.name: each.state for each in sim.status.stages}
    assert (states["PostPromotion"], states["Bake"]) == ("Failed", "Waiting")
    sim.settle()
    assert {each.name: each.state for each in sim.status.stages}["Bake"] == "Skipped"


def test_the_first_release_has_nothing_to_retire() -> None:
    assert {each.name: each.state for each in live("v1").status.stages}["Retire"] == "Skipped"
