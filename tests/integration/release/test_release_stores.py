"""Tests the driver with both of its stores: an API server and a folder record the same about the same release."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from releases import Sim, hook, spec
from remit.api.definitions import crds
from remit.api.deployment import Deployment
from remit.api.deploymentstatus import DeploymentStatus
from remit.controllers.deployments import DeploymentReconciler
from remit.controllers.intake import reflectors
from remit.controllers.reporting import Reports
from remit.controlplane.server import ControlPlane
from remit.errors import ApiError, AuditUnavailable, DeploymentError
from remit.kube.access import Access
from remit.kube.client import CRDS, DEPLOYMENTS, TASKS, Kube
from remit.kube.events import Recorder
from remit.release import configuration
from remit.release.driver import ReleaseDriver
from remit.release.folderstore import FolderStore
from remit.release.model import HookKey, HookView, ObservedState, Revision, SpecProblem
from remit.release.places import Place
from remit.release.revisions import LocalRevisions
from remit.release.steps import Drain, Prepare, Preview, Provision, Retire, Scale, Switch
from remit.release.target import Material
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import Anchor, AuditEvent
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor

pytestmark = pytest.mark.no_cover

MOST_STEPS = 400


class Instances(Sim):
    """The instances on the target. Only the driver decides which revisions are kept."""

    def keep(self) -> None:
        pass


class SimulatedTarget:
    """A target whose clock advances by a second at each observation."""

    leftovers = "instances that nobody has"

    def __init__(self) -> None:
        self.sim, self.looks, self.unreachable = Instances(), 0, ""
        self.fails: dict[type, DeploymentError] = {}
        """The exception that the next call of each kind raises."""

    async def observe(self) -> ObservedState:
        self.looks += 1
        self.sim.breathe()
        return ObservedState(unreachable=self.unreachable) if self.unreachable else self.sim.observed

    def _do(self, step: Any) -> None:
        if (error := self.fails.pop(type(step), None)) is not None:
            raise error
        self.sim.perform(step)

    async def prepare(self, revision: Revision) -> None:
        self._do(Prepare(revision))

    async def provision(self, slot: Any, revision: Revision, replicas: int, material: Material) -> None:
        self._do(Provision(slot, revision, replicas))

    async def scale(self, slot: Any, replicas: int) -> None:
        self._do(Scale(slot, replicas))

    async def switch(self, live: Any, share: int = 0, *, failover: bool = False) -> None:
        self._do(Switch(live, share, failover))

    async def preview(self, slot: Any) -> None:
        self._do(Preview(slot))

    async def drain(self, slot: Any) -> None:
        self._do(Drain(slot))

    async def retire(self, slot: Any) -> None:
        self._do(Retire(slot))

    async def keep(self, revisions: Iterable[int]) -> None: ...
    async def remove(self) -> None: ...
    async def abandon(self) -> None: ...
    async def close(self) -> None: ...


class OnePlace:
    """A registry with a single place."""

    def __init__(self, target: SimulatedTarget, folder: Path) -> None:
        self.place = Place(target, LocalRevisions(folder))
        self.ends: list[str] = []

    def of(self, deployment: Deployment) -> Place:
        return self.place

    async def remove(self, deployment: Deployment) -> None:
        self.ends.append("removed")

    async def abandon(self, deployment: Deployment) -> None:
        self.ends.append("abandoned")

    async def forget(self, key: str) -> None: ...
    async def forget_other(self, deployment: Deployment) -> None: ...


class FlakyAudit(AuditLog):
    """An audit trail that fails for the first record of each of these verdicts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.path, self.refuses = path, set[str]()

    async def append_async(self, event: AuditEvent) -> Anchor:
        if event.verdict in self.refuses:
            self.refuses.remove(event.verdict)
            raise AuditUnavailable("No space left on device")
        return await super().append_async(event)

    @property
    def verdicts(self) -> list[str]:
        return [json.loads(line)["verdict"] for line in self.path.read_text().splitlines()]


class Stage:
    """A Deployment, its target, and a driver whose steps the test triggers."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.target, self.audit = SimulatedTarget(), FlakyAudit(folder / "audit.jsonl")
        self.places: Any = OnePlace(self.target, folder / "revisions")
        self.missing: SpecProblem | None = None
        self.hooks_fail = False
        self.clock_was_set_by = datetime.timedelta()

    def problem(self, deployment: Deployment, material: Material) -> SpecProblem | None:
        return self.missing

    def now(self) -> Any:
        return self.target.sim.now + self.clock_was_set_by

    def boot(self) -> float:
        return float(self.target.sim.now.timestamp())

    async def deploy(self, version: str, **changes: Any) -> None:
        raise NotImplementedError

    async def ask(self, kind: Any) -> None:
        raise NotImplementedError

    async def delete(self) -> None:
        raise NotImplementedError

    async def step(self) -> None:
        raise NotImplementedError

    async def status(self) -> DeploymentStatus | None:
        """Returns the status, or None once the Deployment is gone."""
        raise NotImplementedError

    async def until(self, reached: Callable[[DeploymentStatus], bool]) -> DeploymentStatus:
        for _ in range(MOST_STEPS):
            await self.step()
            status = await self.status()
            if status is not None and reached(status):
                return status
        raise AssertionError(await self.status())

    async def settle(self) -> DeploymentStatus:
        return await self.until(
            lambda status: (
                any((each.type, each.status) == ("Reconciling", "False") for each in status.conditions)
                and len(status.slots) <= 1
            )
        )

    async def gone(self) -> None:
        for _ in range(MOST_STEPS):
            if await self.status() is None:
                return
            await self.step()
        raise AssertionError("it is still there")


class FolderStage(Stage):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        body = {"metadata": {"name": "shop", "uid": "u"}, "spec": written("v1")}
        self.store = FolderStore(Deployment.parse(body), folder, "tester", self.hook, lambda: None)
        self.driver = ReleaseDriver(self.store, self.places, self.problem, self.audit, Redactor(), self.now, self.boot)

    async def hook(self, key: HookKey, hook: Any) -> HookView:
        message = f"task shop-{key.revision}-pre-{key.name}: it ran"
        return HookView("Failed" if self.hooks_fail else "Succeeded", message)

    async def deploy(self, version: str, **changes: Any) -> None:
        snapshot, material = await configuration.read(Any, spec(version, **changes))  # type: ignore[arg-type]
        await self.store.deploy(snapshot, material)

    async def ask(self, kind: Any) -> None:
        self.store.ask(kind)

    async def delete(self) -> None:
        self.store.delete()

    async def step(self) -> None:
        await self.driver.step()
        await asyncio.sleep(0)  # a hook ends

    async def status(self) -> DeploymentStatus | None:
        return self.store.status if self.store.latest is not None else None


class ApiStage(Stage):
    def __init__(self, folder: Path, kube: Kube) -> None:
        super().__init__(folder)
        self.kube, metrics = kube, Metrics()
        known = reflectors((), "remit-system")
        self.deployments, self.tasks = known[DEPLOYMENTS], known[TASKS]
        events = Recorder(kube, metrics)
        self.events = events
        self.reconciler = DeploymentReconciler(
            kube,
            self.deployments,
            self.tasks,
            metrics,
            events,
            self.places,
            self.problem,
            self.audit,
            Redactor(),
            lambda _: "tester",
            Reports(folder, events, lambda _: None, self.now),
            now=self.now,
            boot=self.boot,
        )

    async def deploy(self, version: str, **changes: Any) -> None:
        if await self._read() is None:
            body = {"apiVersion": "remit.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "shop"}}
            await self.kube.create(DEPLOYMENTS, "default", {**body, "spec": written(version, **changes)})
        else:
            await self.kube.patch(DEPLOYMENTS, "default", "shop", {"spec": written(version, **changes)})

    async def ask(self, kind: Any) -> None:
        patch = {"metadata": {"annotations": {"remit.dev/request": kind}}}
        await self.kube.patch(DEPLOYMENTS, "default", "shop", patch)

    async def delete(self) -> None:
        await self.kube.delete(DEPLOYMENTS, "default", "shop")

    async def step(self) -> None:
        await self._read()
        await self.tasks.list(self.kube)
        await self.reconciler.reconcile("default/shop")
        for task in await self.kube.list(TASKS, "default"):  # a hook ends
            if (task.get("status") or {}).get("phase") in {None, "Pending"}:
                status = {"phase": "Failed" if self.hooks_fail else "Succeeded", "message": "it ran"}
                name = task["metadata"]["name"]
                await self.kube.patch(TASKS, "default", name, {"status": status}, subresource="status")

    async def status(self) -> DeploymentStatus | None:
        obj = await self._read()
        return None if obj is None else Deployment.parse(obj).status

    async def _read(self) -> dict[str, Any] | None:
        await self.deployments.list(self.kube)
        return self.deployments.objects.get("default/shop")


def written(version: str, **changes: Any) -> dict[str, Any]:
    document: dict[str, Any] = spec(version, **changes).model_dump(mode="json", by_alias=True, exclude_unset=True)
    return document


@contextlib.asynccontextmanager
async def api_stage(folder: Path) -> AsyncIterator[Stage]:
    async with (
        ControlPlane(folder / "controlplane") as control_plane,
        Kube(await Access.load(control_plane.kubeconfig)) as kube,
    ):
        for crd in crds():
            await kube.create(CRDS, None, crd)
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(ApiError):
                    for resource in (DEPLOYMENTS, TASKS):
                        await kube.list(resource, "default")
                    break
                await asyncio.sleep(0.01)
        stage = ApiStage(folder / "api", kube)
        yield stage
        await stage.events.drain()
        stage.audit.close()


@contextlib.asynccontextmanager
async def folder_stage(folder: Path) -> AsyncIterator[Stage]:
    stage = FolderStage(folder / "folder")
    yield stage
    await stage.store.close()
    stage.audit.close()


STAGES = [api_stage, folder_stage]
QUICK = {"strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}}, "stages": {"bakeSeconds": 0}}


async def first_release(stage: Stage) -> None:
    await stage.deploy("v1", **QUICK)


async def failed_health(stage: Stage) -> None:
    stage.target.sim.behaviour["v2"] = "crashing"
    await stage.deploy("v1", **QUICK)
    await stage.settle()
    await stage.deploy("v2", **QUICK)


async def rolled_back(stage: Stage) -> None:
    for version in ("v1", "v2"):
        await stage.deploy(version, **QUICK)
        await stage.settle()
    await stage.ask("rollback")
    await stage.until(lambda status: status.pinned_revision == 1)


async def failed_hook(stage: Stage) -> None:
    await stage.deploy("v1", **QUICK)
    await stage.settle()
    stage.hooks_fail = True
    await stage.deploy("v2", **{**QUICK, "stages": {"prePromotion": [hook("gate")], "bakeSeconds": 0}})


async def superseded(stage: Stage) -> None:
    stage.target.sim.behaviour["v2"] = "unhealthy"
    await stage.deploy("v1", **QUICK)
    await stage.settle()
    await stage.deploy("v2", **QUICK)
    await stage.until(lambda status: status.stage == "Health")
    await stage.deploy("v3", **QUICK)
    await stage.until(lambda status: status.active.startswith("shop:v3"))


async def refused(stage: Stage) -> None:
    await stage.deploy("v1", **QUICK)
    await stage.settle()
    await stage.ask("abort")
    await stage.until(lambda status: status.request is not None)


def shown(status: DeploymentStatus) -> dict[str, Any]:
    """Returns everything about the progress of the release except times and identifiers of revisions."""
    release, answer = status.pipeline.release, status.request
    return {
        "summary": (status.phase, status.active, status.preview, status.ready, status.message, status.pinned_revision),
        "conditions": [(each.type, each.status, each.reason, each.message) for each in status.conditions],
        "stages": [(each.name, each.state, each.message) for each in status.stages],
        "history": [(each.revision, each.artifact, each.outcome, each.replicas) for each in status.history],
        "slots": status.slots,
        "answer": answer and (answer.kind, answer.accepted, answer.message),
        "release": release
        and (release.outcome, release.reason, release.message, release.failure and release.failure.reason),
        "hooks": release and [(each.stage, each.name) for each in release.hooks],
    }


@pytest.mark.parametrize(
    ("scenario", "verdict"),
    [
        (first_release, "Promoted"),
        (failed_health, "Failed"),
        (rolled_back, "Requested"),
        (failed_hook, "Failed"),
        (superseded, "Superseded"),
        (refused, "RequestRefused"),
    ],
)
async def test_both_stores_record_the_same(
    tmp_path: Path, scenario: Callable[[Stage], Awaitable[None]], verdict: str
) -> None:
    told = []
    for make in STAGES:
        async with make(tmp_path) as stage:
            await scenario(stage)
            said = shown(await stage.settle())
            told.append((said, stage.audit.verdicts))
    (by_api, audited), (by_folder, recorded) = told
    if scenario is failed_hook:  # only an API server identifies hooks by a uid
        assert by_api.pop("hooks") == [("PrePromotion", "gate")]
        assert by_folder.pop("hooks") == []
    assert by_folder == by_api
    assert recorded == audited
    assert verdict in audited


@pytest.mark.parametrize("make", STAGES)
async def test_a_clock_that_is_set_in_the_midst_of_a_release_changes_nothing(tmp_path: Path, make: Any) -> None:
    slow = {"strategy": {"blueGreen": {"scaleDownDelaySeconds": 20}}, "stages": {"bakeSeconds": 20}}
    told = []
    for hours in (0, 1, -1):
        (folder := tmp_path / f"{hours} hours").mkdir()
        async with make(folder) as stage:
            await stage.deploy("v1", **slow)
            await stage.settle()
            for at in ("Health", "Bake"):
                if at == "Health":
                    stage.target.sim.behaviour[at] = "unhealthy"
                await stage.deploy(at, **slow)
                await stage.until(lambda status, at=at: status.stage == at)  # type: ignore[misc]
                stage.clock_was_set_by += datetime.timedelta(hours=hours)
                for _ in range(5):
                    await stage.step()
                stage.target.sim.behaviour.clear()
                told.append((shown(await stage.settle()), stage.target.looks, stage.audit.verdicts))
    assert told[:2] == told[2:4] == told[4:]


@pytest.mark.parametrize("make", STAGES)
async def test_a_step_that_follows_a_failed_one_is_on_the_audit_trail(tmp_path: Path, make: Any) -> None:
    async with make(tmp_path) as stage:
        await stage.deploy("v1", **QUICK)
        await stage.settle()
        stage.target.fails[Provision] = DeploymentError("the engine is busy", reason="Busy", retryable=True)
        await stage.deploy("v2", **QUICK)
        await stage.until(lambda _: not stage.target.fails)
        live = stage.target.sim.observed.blue
        stage.target.sim.put("blue", replace(live, wanted=1))
        before = len(stage.audit.verdicts)
        await stage.until(lambda status: status.active.startswith("shop:v2"))
        assert stage.audit.verdicts[before:][:2] == ["Scale", "Provision"]


@pytest.mark.parametrize("make", STAGES)
async def test_an_answer_waits_for_the_audit_trail(tmp_path: Path, make: Any) -> None:
    async with make(tmp_path) as stage:
        await stage.deploy("v1", **QUICK)
        await stage.settle()
        stage.audit.refuses.add("RequestRefused")
        await stage.ask("abort")
        with pytest.raises(AuditUnavailable):
            await stage.settle()
            await stage.step()
        for _ in range(3):
            await stage.step()
        assert stage.audit.verdicts.count("RequestRefused") == 1


@pytest.mark.parametrize("make", STAGES)
async def test_a_target_is_not_contacted_before_policy_allows_it(tmp_path: Path, make: Any) -> None:
    async with make(tmp_path) as stage:
        stage.missing = SpecProblem("NoPolicy", "no policy selects it")
        await stage.deploy("v1", **QUICK)
        status = await stage.until(lambda status: status.phase is not None)
        assert (status.phase, status.message.partition(";")[0]) == ("Pending", "no policy selects it")
        assert (stage.target.looks, stage.target.sim.steps) == (0, [])
        await stage.delete()
        await stage.gone()
        assert stage.places.ends == ["abandoned"]


@pytest.mark.parametrize("make", STAGES)
async def test_a_deletion_gives_up_on_a_target_that_stays_out_of_reach(tmp_path: Path, make: Any) -> None:
    async with make(tmp_path) as stage:
        await stage.deploy("v1", progressDeadlineSeconds=5, **QUICK)
        await stage.settle()
        stage.target.unreachable = "connection refused"
        await stage.delete()
        await stage.gone()
        assert stage.places.ends == ["abandoned"]
        assert stage.audit.verdicts[-1] == "Deleted"
