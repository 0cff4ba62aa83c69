"""A whole Remit in this process: the embedded control plane, the CRDs, and operators that tests start and stop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from parts import require
from remit.api.definitions import crds
from remit.controllers import policies, probing
from remit.controllers.operator import Operator, running_operator
from remit.controllers.settings import Settings
from remit.controlplane.server import ControlPlane
from remit.errors import ApiError
from remit.execution import waiting
from remit.kube.access import Access
from remit.kube.client import CRDS, EVENTS, LEASES, POLICIES, TASKS, Kube, Object, Resource
from remit.kube.lease import LEASE_NAME
from remit.release import clock
from remit.sandbox import Layer, probe_host
from remit.telemetry.redact import Redactor
from support import pauses, unmeasured

PATIENCE = 60
"""Timeout in seconds, far longer than any step takes, for busy machines."""
_names = itertools.count(1)


@pytest.fixture(scope="session", autouse=True)
def _sandbox() -> None:
    ability = probe_host().abilities[Layer.NAMESPACES]
    require("bwrap", ability.available, ability.remedy)


@pytest.fixture(autouse=True)
def _sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shortens the operator's periods of some seconds to fractions of a second, and the timeouts of its probes."""
    monkeypatch.setattr(policies, "STATUS_DELAY", 0.2)
    monkeypatch.setattr(waiting, "AUDIT_RETRY", 0.2)
    monkeypatch.setattr(clock, "LOOK_SECONDS", 0.3)
    monkeypatch.setattr(probing, "_AFTER_SECONDS", 2.0)


@dataclass
class World:
    """An API server with Remit's kinds, and helpers to work with it."""

    kube: Kube
    settings: Settings
    control_plane: ControlPlane | Any
    redactor: Redactor = field(default_factory=Redactor)

    @contextlib.asynccontextmanager
    async def operator(self, **changes: Any) -> AsyncIterator[Operator]:
        """Runs an operator. Successive operators share their state on disk."""
        async with running_operator(self.kube.access, replace(self.settings, **changes), self.redactor) as operator:
            yield operator

    async def restart_api_server(self) -> None:
        """Restarts the API server on the same port with its stored objects. All connections and watches are lost."""
        await self.control_plane.stop()
        await self.control_plane.start()

    async def policy(self, *allow: str | dict[str, Any], namespace: str = "default", **spec: Any) -> str:
        """Creates a policy that allows these programs (or rules)."""
        rules = [{"executable": rule} if isinstance(rule, str) else rule for rule in allow]
        name = f"p{next(_names)}"
        body = {"metadata": {"name": name}, "spec": {"commands": {"allow": rules}, **spec}}
        await self.kube.create(POLICIES, namespace, _typed("CommandPolicy", body))
        return name

    async def ceiling(self, *allow: str | dict[str, Any], **spec: Any) -> str:
        """Creates a policy in the operator's namespace and waits until it is in force. A task that only this policy
        denies could otherwise run before the operator sees it."""
        name = await self.policy(*allow, namespace=self.settings.operator_namespace, **spec)
        await self.until(
            name, lambda status: truth(status, "Ready"), POLICIES, namespace=self.settings.operator_namespace
        )
        return name

    async def task(
        self, *argv: str, namespace: str = "default", labels: dict[str, str] | None = None, **spec: Any
    ) -> str:
        """Creates a task that runs `argv`."""
        name = f"t{next(_names)}"
        # A program is the first process of its pid namespace, where SIGTERM has no effect without a handler.
        command = {"command": {"argv": list(argv)}, "terminationGracePeriodSeconds": 1} if argv else {}
        body = {"metadata": {"name": name, "labels": labels or {}}, "spec": {**command, **spec}}
        await self.kube.create(TASKS, namespace, _typed("ExecutionTask", body))
        return name

    async def sh(self, script: str, **spec: Any) -> str:
        """Creates a task that runs a script. A policy must allow `sh`."""
        return await self.task("sh", "-c", script, **spec)

    async def lease(self, holder: str = "", transitions: int = 0, name: str = LEASE_NAME) -> None:
        """Creates the operators' Lease, which no operator renews. Without a `holder` it is released and can be acquired
        immediately."""
        renewed = {"leaseDurationSeconds": 1, "renewTime": "2026-01-01T00:00:00.000000Z"}
        spec = {"holderIdentity": holder, "leaseTransitions": transitions, **renewed}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": spec}
        await self.kube.create(LEASES, self.settings.operator_namespace, body)

    async def edit(self, name: str, spec: dict[str, Any]) -> Object:
        return await self.kube.patch(TASKS, "default", name, {"spec": spec})

    async def get(self, name: str, resource: Resource = TASKS, namespace: str = "default") -> Object:
        return await self.kube.get(resource, namespace, name)

    async def until(
        self,
        name: str,
        condition: Callable[[dict[str, Any]], object],
        resource: Resource = TASKS,
        namespace: str = "default",
    ) -> dict[str, Any]:
        """Waits until `condition` holds for the status of an object, and returns the status. The timeout applies to
        each change, for slow machines."""
        clock = asyncio.get_running_loop().time
        pause = pauses()
        status, seen, until = dict[str, Any](), None, clock() + PATIENCE
        while clock() < until:
            async with asyncio.timeout(PATIENCE):
                status = (await self.get(name, resource, namespace)).get("status", {})
            if condition(status):
                return status
            if status != seen:
                seen, until = status, clock() + PATIENCE
            await asyncio.sleep(next(pause))
        pytest.fail(f"{name} never came so far; its status: {status}")

    async def phase(self, name: str, *phases: str, namespace: str = "default") -> dict[str, Any]:
        return await self.until(name, lambda status: status.get("phase") in phases, namespace=namespace)

    async def finished(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return await self.until(name, lambda status: truth(status, "Finished") == "True", namespace=namespace)

    async def events(self, name: str, count: int) -> list[Object]:
        """Waits until an object has `count` Events, which are posted after status is written, and returns them."""
        found: list[Object] = []
        pause = pauses()
        try:
            async with asyncio.timeout(PATIENCE):
                while len(found) < count:
                    await asyncio.sleep(next(pause))
                    found = await self.kube.list(EVENTS, "default", field_selector=f"involvedObject.name={name}")
        except TimeoutError:
            pytest.fail(f"{name} never had {count} Events, only {[event['reason'] for event in found]}")
        return found

    async def operator_has(self, condition: Callable[[], object]) -> None:
        """Waits until `condition` holds for the operator's own state."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)

    async def gone(self, name: str, resource: Resource = TASKS) -> None:
        pause = pauses()
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    await self.get(name, resource)
                except ApiError as error:
                    assert error.status == 404
                    return
                await asyncio.sleep(next(pause))


def truth(status: dict[str, Any], type_: str) -> str | None:
    """Returns the status of a condition."""
    return next((found["status"] for found in status.get("conditions", []) if found["type"] == type_), None)


def _typed(kind: str, body: Object) -> Object:
    return {"apiVersion": "remit.dev/v1alpha1", "kind": kind, **body}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provides the state directory of a control plane with Remit's kinds. Creating these takes longer than most
    tests."""
    state = tmp_path_factory.mktemp("installed") / "controlplane"
    asyncio.run(_install(state))
    return state


@pytest.fixture
async def world(installed: Path, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    """Provides a world. The start of the control plane is measured only if it is what is tested, because measuring
    makes it four times as slow."""
    async with contextlib.AsyncExitStack() as stack:
        with unmeasured(request.config):
            world = await stack.enter_async_context(new_world(installed, tmp_path))
        yield world


@contextlib.asynccontextmanager
async def new_world(installed: Path, folder: Path) -> AsyncIterator[World]:
    shutil.copytree(installed, folder / "controlplane")
    async with (
        ControlPlane(folder / "controlplane") as control_plane,
        Kube(await Access.load(control_plane.kubeconfig)) as kube,
    ):
        yield World(kube, Settings(state_dir=folder / "state", leader_election=False), control_plane)


async def _install(state: Path) -> None:
    async with ControlPlane(state) as control_plane, Kube(await Access.load(control_plane.kubeconfig)) as kube:
        for crd in crds():
            await kube.create(CRDS, None, crd)
        await served(kube)


async def served(kube: Kube) -> None:
    async with asyncio.timeout(PATIENCE):
        for resource in (TASKS, POLICIES):
            while True:
                with contextlib.suppress(ApiError):
                    await kube.list(resource)
                    break
                await asyncio.sleep(0.02)
