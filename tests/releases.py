"""A simulated target for releases, which carries out steps, loses instances, and can be made to fail."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field, replace
from typing import Any

from remit.api.deployment import DeploymentSpec
from remit.api.deploymentstatus import DeploymentStatus, PipelineState
from remit.api.slots import other
from remit.kube.status import as_wire
from remit.release.model import (
    Desired,
    HookKey,
    HookView,
    InstanceView,
    ObservedState,
    ReleaseRequest,
    Revision,
    SlotView,
    Snapshot,
    SpecProblem,
    StepError,
)
from remit.release.pipeline import next_step
from remit.release.status import status_after
from remit.release.steps import (
    Decision,
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
)

EPOCH = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)


def spec(version: str = "v1", **changes: Any) -> DeploymentSpec:
    """Returns a spec for `shop:VERSION` with two replicas. `changes` are fields named as in YAML."""
    return DeploymentSpec.model_validate(
        {"artifact": {"image": f"shop:{version}"}, "target": {"docker": {}}, "replicas": 2, **changes}
    )


def hook(name: str = "smoke") -> dict[str, Any]:
    return {"name": name, "task": {"command": {"argv": ["true"]}}}


def snapshot(wish: DeploymentSpec, secret: str = "", former: str = "") -> Snapshot:
    """Returns the snapshot of a spec with a Secret of this version."""
    image = str(wish.artifact.image)
    return Snapshot(image, wish, f"{image}/{secret}", former_hash=former and f"{former}/{image}/{secret}")


@dataclass
class Sim:
    """A target, a clock and an operator that follows `next_step`.

    `behaviour` is the behaviour of a version once it runs: `well`, `flapping`, `unhealthy` or `crashing`. Each `step`
    is one observation, one decision and its action; `kill` says at which point of it the operator dies.
    """

    wish: DeploymentSpec = field(default_factory=spec)
    secret: str = ""
    former: str = ""
    """Prefix of `former_hash`. Empty: there is none."""
    now: datetime.datetime = EPOCH
    observed: ObservedState = field(default_factory=ObservedState)
    state: PipelineState = field(default_factory=PipelineState)
    revisions: dict[int, Revision] = field(default_factory=dict)
    behaviour: dict[str, str] = field(default_factory=dict)
    hooks_fail: set[str] = field(default_factory=set)
    request: ReleaseRequest | None = None
    deleted: bool = False
    problem: SpecProblem | None = None
    obstacles: dict[int, SpecProblem] = field(default_factory=dict)
    abandon_at: datetime.datetime | None = None
    errors: dict[type, StepError] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    requests: int = 0
    runs: int = 0
    terse: bool = False
    """Whether to write status only if the pipeline's state changed."""
    status: DeploymentStatus = field(default_factory=DeploymentStatus)
    specs: list[DeploymentSpec] = field(default_factory=list)
    """All specs that were declared, in order."""

    @property
    def generation(self) -> int:
        if not self.specs or self.specs[-1] != self.wish:
            self.specs.append(self.wish)
        return len(self.specs)

    @property
    def object(self) -> dict[str, Any]:
        """Returns the object as the API server stores it."""
        ended = {"deletionTimestamp": "2026-01-01T13:00:00Z"} if self.deleted else {}
        return {
            "metadata": {"generation": self.generation, **ended},
            "spec": self.wish.model_dump(mode="json", by_alias=True, exclude_none=True),
            "status": as_wire(self.status),
        }

    @property
    def desired(self) -> Desired:
        return Desired(
            snapshot(self.wish, self.secret, self.former),
            self.revisions,
            self.request,
            self.problem,
            self.obstacles,
            self.deleted,
            self.abandon_at,
        )

    def apply(self, **changes: Any) -> Sim:
        self.wish = spec(**changes)
        return self

    def ask(self, kind: Any, **details: Any) -> Sim:
        self.requests += 1
        self.request = ReleaseRequest(f"r{self.requests}", kind, **details)
        return self

    def decide(self) -> Decision:
        return next_step(self.desired, self.observed, self.state, self.now)

    def step(self, *, kill: str = "") -> Step:
        """Observes, decides and carries out one step. `kill`: the operator dies `before` writing, `between` writing and
        acting, or not at all ("")."""
        decision = self.decide()
        if kill == "before":
            return decision.step
        self.write(decision)
        if kill != "between":
            self.perform(decision.step)
            self.steps.append(decision.step)
        return decision.step

    def write(self, decision: Decision) -> None:
        """Stores the state as the API server does, as JSON in status."""
        if self.terse and decision.state == self.state:
            return
        desired, before = self.desired, self.status
        self.status = status_after(desired, self.observed, decision, before, generation=self.generation, now=self.now)
        self.status = DeploymentStatus.model_validate_json(self.status.model_dump_json(by_alias=True))
        self.state = self.status.pipeline
        assert self.state == decision.state, "status forgets something"

    def perform(self, step: Step) -> None:
        error = self.errors.get(type(step))
        self.observed = replace(self.observed, error=None)
        if error is not None:
            number = step.revision.number if isinstance(step, Prepare | Provision) else error.revision
            self.observed = replace(self.observed, error=replace(error, revision=number))
            return
        match step:
            case Prepare(revision):
                self.revisions[revision.number] = revision
                self.observed = replace(self.observed, prepared=self.observed.prepared | {revision.number})
            case Provision(slot, revision, replicas):
                view = self.observed.slot(slot)
                assert view.revision in {None, revision.number}, "provisioned over another revision"
                self.revisions.setdefault(revision.number, revision)
                self.put(slot, replace(view, revision=revision.number, wanted=replicas, draining=False))
            case Scale(slot, replicas):
                view = self.observed.slot(slot)
                assert view.revision is not None
                started = min(view.started, replicas)
                healthy, failed = min(view.healthy, replicas), min(view.failed, replicas)
                left = {name: each for name, each in view.instances.items() if int(name) < replicas}
                changed = replace(view, wanted=replicas, started=started, healthy=healthy, failed=failed)
                self.put(slot, replace(changed, instances=left))
            case Switch(live, share, failover):
                self.observed = replace(self.observed, live=live, share=share, failover=failover, converged=False)
            case Preview(slot):
                self.observed = replace(self.observed, preview=slot)
            case RunHook(key):
                self.observed = replace(
                    self.observed, hooks={key: HookView("Running", uid=f"task-{key.name}"), **self.observed.hooks}
                )
            case Drain(slot):
                self.put(slot, replace(self.observed.slot(slot), draining=True))
            case Retire(slot):
                self.put(slot, SlotView())
                if self.state.releasing is None:
                    self.keep()
            case Finish():
                self.keep()
            case Wait():
                pass

    def keep(self) -> None:
        kept = {record.revision for record in self.state.history}
        self.revisions = {number: each for number, each in self.revisions.items() if number in kept}

    def put(self, slot: str, view: SlotView) -> None:
        self.observed = replace(self.observed, **{slot: view})

    def version(self, slot: str) -> str:
        """Returns the version on a slot, such as `v1`. Empty: none."""
        number = getattr(self.observed, slot).revision
        return "" if number is None else str(self.revisions[number].snapshot.artifact).partition(":")[2]

    def breathe(self, seconds: float = 1) -> None:
        """Advances the time: instances start and behave as their version determines, hooks end, and requests drain."""
        self.now += datetime.timedelta(seconds=seconds)
        self.observed = replace(self.observed, converged=True)
        for slot in ("blue", "green"):
            view: SlotView = getattr(self.observed, slot)
            if view.revision is None:
                continue
            fate, n = self.behaviour.get(self.version(slot), "well"), view.wanted
            up = {"well": n, "flapping": n if self.now.second % 3 else n // 2}.get(fate, 0)
            found = {str(i): self.aged(view.instances.get(str(i)), fate, healthy=i < up) for i in range(n)}
            restarts = sum(each.restarts for each in found.values())
            view = replace(view, started=n, connections=0, healthy=up, failed=n - up)
            self.put(slot, replace(view, instances=found, restarts=restarts))
        hooks = {key: self.ended(key, view) for key, view in self.observed.hooks.items()}
        self.observed = replace(self.observed, hooks=hooks)

    def aged(self, instance: InstanceView | None, fate: str, *, healthy: bool) -> InstanceView:
        """Returns an instance a moment later, started or restarted."""
        before = instance or InstanceView()
        restarts = before.restarts + (fate == "crashing")
        goes_on = before.incarnation and fate != "crashing"
        return InstanceView(before.incarnation if goes_on else self.run(), healthy, restarts)

    def run(self) -> str:
        self.runs += 1
        return f"run {self.runs}"

    def crash(self, slot: str, name: str = "0", *, back: bool = True) -> None:
        """Ends an instance. With `back`, it runs again and is healthy before the next observation."""
        view = self.observed.slot(slot)
        again = InstanceView(self.run() if back else "", back, view.instances[name].restarts + 1)
        lost = 0 if back else 1
        self.put(
            slot,
            replace(
                view,
                healthy=view.healthy - lost,
                failed=view.failed + lost,
                restarts=view.restarts + 1,
                instances={**view.instances, name: again},
            ),
        )

    def ended(self, key: HookKey, view: HookView) -> HookView:
        if view.state != "Running":
            return view
        fails = key.name in self.hooks_fail
        return replace(view, state="Failed", message="exit code 1") if fails else replace(view, state="Succeeded")

    def until(self, *kinds: type, seconds: float = 1, bound: int = 3000) -> Step:
        """Runs steps until one of these types was taken."""
        for _ in range(bound):
            step = self.step()
            if isinstance(step, kinds):
                return step
            self.breathe(seconds)
        raise AssertionError(f"none of {kinds} within {bound} steps; last: {self.steps[-3:]}")

    def waits_for(self, reason: str, bound: int = 3000) -> Wait:
        """Runs steps until the pipeline waits for this reason."""
        for _ in range(bound):
            step = self.step()
            if isinstance(step, Wait) and step.reason == reason:
                return step
            self.breathe()
        raise AssertionError(f"never waited for {reason}; last: {self.steps[-3:]}")

    def finish(self) -> Finish:
        step = self.until(Finish)
        assert isinstance(step, Finish)
        return step

    def settle(self) -> Sim:
        self.waits_for("Settled")
        return self

    @property
    def serving(self) -> str:
        """Returns the version that requests go to."""
        return self.version(self.observed.live) if self.observed.live else ""

    @property
    def idle(self) -> SlotView:
        return self.observed.slot(other(self.observed.live)) if self.observed.live else SlotView()

    @property
    def active(self) -> SlotView:
        assert self.observed.live is not None
        return self.observed.slot(self.observed.live)


def live(version: str = "v1", **changes: Any) -> Sim:
    """Returns a target on which only this version exists, and is live."""
    sim = Sim(wish=spec(version, **changes))
    assert sim.finish().outcome == "Promoted"
    sim.settle().steps.clear()
    return sim
