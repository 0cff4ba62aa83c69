"""Releases of an agent: its targets, each driven from when it is first needed until the agent is closed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from remit.agent.engine import Engine
from remit.agent.releaseworker import ReleaseWorker
from remit.agent.targets import ReleaseTarget
from remit.api.deployment import Deployment, Hook
from remit.api.executiontask import ExecutionTask
from remit.api.phases import DeploymentPhase
from remit.api.result import ExecutionResult
from remit.errors import DeploymentError, InvalidInput, MissingReference, ResourceError, SecurityError
from remit.execution.admission import PolicySet
from remit.policy.compile import compile_policy
from remit.privatefiles import open_private, private_directory
from remit.release import configuration
from remit.release.driver import ReleaseDriver
from remit.release.folderstore import FolderStore
from remit.release.judging import Judge
from remit.release.model import HookKey, HookView
from remit.release.places import Places
from remit.sandbox import probe_host

_LOCK: Final = "lock"


@dataclass(frozen=True, slots=True)
class DeploymentState:
    """The live state of a target."""

    target: str
    version: str
    """What is live, as it was deployed, such as `app:v1`; empty while nothing is."""
    revision: int | None
    deployment_id: str
    """The last deployment that was asked for."""
    phase: str
    message: str
    ready: int
    """Instances that are healthy."""
    wanted: int

    @property
    def healthy(self) -> bool:
        """Something is live, and all its instances are healthy."""
        return self.revision is not None and self.ready >= self.wanted

    def __bool__(self) -> bool:
        return self.healthy


@dataclass
class Releases:
    """Lives on the background loop. Several agents may release below one `root`, but each target has one at a time."""

    root: Path
    namespace: str
    labels: Mapping[str, str]
    targets: Mapping[str, ReleaseTarget]
    engine: Engine
    own_policies: bool
    """Whether the agent was given policies, which then are all that counts; otherwise a target allows itself."""
    run_task: Callable[[ExecutionTask], Awaitable[ExecutionResult]]
    _workers: dict[str, ReleaseWorker] = field(default_factory=dict)
    _locks: dict[str, int] = field(default_factory=dict)
    _opening: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def deploy(self, artifact: str, name: str) -> str:
        """See `ExecutionAgent.deploy`."""
        target = self._target(name)
        spec = target.spec(artifact)
        snapshot, material = await configuration.read(_Nothing(), spec)
        snapshot = configuration.named(snapshot, artifact)
        worker = await self._worker(target)
        problem = worker.driver.problem(self._deployment(target, artifact), material)
        if problem is not None:
            raise SecurityError(problem.message, reason=problem.reason)
        return f"{name}-{await worker.deploy(snapshot, material)}"

    async def rollback(self, deployment_id: str) -> None:
        """See `ExecutionAgent.rollback`."""
        name, _, number = deployment_id.rpartition("-")
        if name not in self.targets or not number.isdecimal():
            raise DeploymentError(f"there is no deployment {deployment_id!r} here", reason="NotFound")
        await (await self._worker(self._target(name))).rollback(int(number))

    async def state(self, name: str) -> DeploymentState:
        """See `ExecutionAgent.get_deployment_status`."""
        worker = await self._worker(self._target(name))
        status, state, latest = worker.store.status, worker.state, worker.latest
        record = state.record(status.active_revision) if status.active_revision is not None else None
        return DeploymentState(
            target=name,
            version=record.artifact if record else "",
            revision=status.active_revision,
            deployment_id=f"{name}-{latest.number}" if latest else "",
            phase=str(status.phase or DeploymentPhase.PENDING),
            message=status.message or "nothing was deployed here yet",
            ready=status.ready_replicas,
            wanted=state.live.replicas if state.live else status.replicas,
        )

    async def look(self, name: str) -> DeploymentState:
        """The state, after a look at the target at this moment. Raises DeploymentError where it cannot be seen."""
        await (await self._worker(self._target(name))).look()
        return await self.state(name)

    async def remove(self, name: str) -> None:
        """See `ExecutionAgent.remove_deployment`."""
        worker = await self._worker(self._target(name))
        await worker.remove()
        async with self._opening:
            await worker.close()
            os.close(self._locks.pop(name))
            del self._workers[name]

    async def close(self) -> None:
        """Let go of all targets; what is live goes on."""
        async with self._opening:
            for worker in self._workers.values():
                await worker.close()
            for lock in self._locks.values():
                os.close(lock)
            self._workers, self._locks = {}, {}

    def _target(self, name: str) -> ReleaseTarget:
        try:
            return self.targets[name]
        except KeyError:
            known = ", ".join(sorted(self.targets)) or "none; give ExecutionAgent(targets={...})"
            raise DeploymentError(f"there is no target {name!r}; there are: {known}", reason="NotFound") from None

    async def _worker(self, target: ReleaseTarget) -> ReleaseWorker:
        await self.engine.start()
        async with self._opening:
            if target.name not in self._workers:
                self._workers[target.name] = await self._open(target)
            return self._workers[target.name]

    async def _open(self, target: ReleaseTarget) -> ReleaseWorker:
        folder = self.root / "targets" / target.name
        lock = await asyncio.to_thread(_locked, folder)
        try:
            worker = self._made(target, folder)
            await worker.start()
        except BaseException:
            os.close(lock)
            raise
        self._locks[target.name] = lock
        return worker

    def _made(self, target: ReleaseTarget, folder: Path) -> ReleaseWorker:
        policies = self.engine.policies
        if not self.own_policies:
            policy = target.policy()
            named = policy.metadata.model_copy(update={"namespace": self.namespace})
            policies = [compile_policy(policy.model_copy(update={"metadata": named}))]
        judge = Judge(self.engine.admission, lambda: PolicySet({self.namespace: policies}, ""))
        places = Places(
            self.root,
            probe_host(),
            None,
            _no_secret,
            [],
            judge,
            lambda _: self._wake(target.name),
        )

        async def run_hook(key: HookKey, hook: Hook) -> HookView:
            return await self._hook(target.name, key, hook)

        template, who = self._deployment(target, "app:v0"), self.engine.who
        places.of(template)  # raises DeploymentError for an invalid target, before anything is declared
        store = FolderStore(template, folder, who, run_hook, lambda: self._wake(target.name))
        driver = ReleaseDriver(store, places, judge.problem, self.engine.audit, self.engine.redactor)
        return ReleaseWorker(store, driver)

    def _wake(self, name: str) -> None:
        if worker := self._workers.get(name):
            worker.wake()

    def _deployment(self, target: ReleaseTarget, artifact: str) -> Deployment:
        body = {
            "metadata": {
                "name": target.name,
                "namespace": self.namespace,
                "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, (self.root.absolute() / target.name).as_uri())),
                "labels": dict(self.labels),
            },
            "spec": target.spec(artifact).model_dump(mode="json", by_alias=True, exclude_none=True),
        }
        return Deployment.parse(body)

    async def _hook(self, name: str, key: HookKey, hook: Hook) -> HookView:
        spec = hook.task.model_dump(mode="json", by_alias=True, exclude_unset=True)
        labels = {**hook.labels, "remit.dev/deployment": name, "remit.dev/hook": key.name}
        body = {"metadata": {"name": f"{name}-{key.revision}-{key.name}", "labels": labels}, "spec": spec}
        result = await self.run_task(ExecutionTask.parse(body))
        return HookView("Succeeded" if result.success else "Failed", result.message)


class _Nothing:
    """There is no API server: nothing that could be referred to."""

    async def data(self, secret: bool, name: str, optional: bool) -> Mapping[str, bytes]:
        raise MissingReference(f"{'Secret' if secret else 'ConfigMap'} {name}: an agent has no API server")

    def secret_uid(self, name: str) -> str:
        raise AssertionError("no Secret was read")


async def _no_secret(namespace: str, name: str) -> Mapping[str, bytes]:
    return await _Nothing().data(True, name, False)


def _locked(folder: Path) -> int:
    """The target's folder, for this agent alone. Raises `ResourceError`."""
    try:
        private_directory(folder)
        lock = open_private(folder / _LOCK)
    except InvalidInput as error:
        raise ResourceError(f"the folder cannot be used: {error}") from None
    except OSError as error:
        raise ResourceError(f"the folder {folder} cannot be used: {error.strerror}; give another state_dir") from error
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return lock
    os.close(lock)
    raise ResourceError(f"another agent releases to {folder.name}; close it first")
