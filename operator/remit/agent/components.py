"""Parts of the agent by themselves: one attempt, the limits, the sandbox, what goes on, the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, Unpack

import psutil

from remit.agent.agent import NAMESPACE, ExecutionAgent
from remit.agent.inputs import compiled_policies, task_of_command
from remit.agent.options import CommandOptions
from remit.agent.outcome import refusal
from remit.agent.releases import DeploymentState
from remit.api.commandpolicy import CommandPolicy
from remit.api.result import ExecutionResult, ResourceLimits
from remit.backends.sampling import look
from remit.execution.admission import Admission, PolicySet, Refused, default_limits
from remit.sandbox import Ability, Confinement, Host, Layer, Limits, Plan, plan, probe_host


class CommandRunner:
    """One attempt under given policies, and no retries.

    async with CommandRunner([Path("policy.yaml")]) as runner:
        result = await runner.run(["git", "--version"], timeout=10)
    """

    def __init__(self, policies: Sequence[CommandPolicy | Path | str], **options: Any) -> None:
        """`options` as for `ExecutionAgent`."""
        self._agent = ExecutionAgent(policies=policies, **options)

    async def run(self, command: str | Sequence[str], **options: Unpack[CommandOptions]) -> ExecutionResult:
        """Run a command as `ExecutionAgent.execute_command` does, without `retry`."""
        options["retry"] = 0
        return await self._agent.execute_command(command, **options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._agent.aclose()


class ResourceLimiter:
    """Tells which limits an execution gets under given policies, and what enforces them on this host.

    limiter = ResourceLimiter()                                       # the starter policy, as an agent's
    limiter.effective("echo hi", ResourceLimits(memory_mb=100)).pids  # 64
    limiter.enforcement(ResourceLimits(memory_mb=100))                # {"memory_bytes": "cgroup v2 memory"}
    """

    def __init__(
        self,
        policies: Sequence[CommandPolicy | Path | str] | None = None,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Take the same arguments as `ExecutionAgent`. Raises `InvalidInput`."""
        self._policies = PolicySet({NAMESPACE: compiled_policies(policies, NAMESPACE)}, "")
        self._labels = dict(labels or {})

    def effective(self, command: str | Sequence[str], limits: ResourceLimits | None = None) -> ResourceLimits:
        """The limits of a command that asks for `limits`: that, or the defaults of policy and host.

        Raises what the execution would: `SecurityError`, `ResourceError`, `ExecutionError`, `InvalidInput`.
        """
        task = task_of_command(command, limits=limits)
        task = task.model_copy(update={"metadata": task.metadata.model_copy(update={"labels": self._labels})})
        host = probe_host()
        verdict = Admission(defaults=default_limits(host), memory=host.memory).decide(task, self._policies)
        if isinstance(verdict, Refused):
            raise refusal(verdict)
        given = verdict.limits
        return ResourceLimits(
            memory_mb=_mebibytes(given.memory),
            cpu_cores=given.cpu,
            pids=given.pids,
            disk_mb=_mebibytes(given.disk),
            file_size_mb=_mebibytes(given.file_size),
            open_files=given.open_files,
        )

    def enforcement(self, limits: ResourceLimits) -> Mapping[str, str]:
        """The mechanism that would enforce each limit, or "not enforced". Raises `SandboxUnavailable`."""
        asked = Limits(
            memory_bytes=_bytes(limits.memory_mb),
            cpu_cores=limits.cpu_cores,
            pids=limits.pids,
            disk_bytes=_bytes(limits.disk_mb),
            file_bytes=_bytes(limits.file_size_mb),
            open_files=limits.open_files,
        )
        return plan(Confinement(limits=asked), probe_host()).enforced_by


class SandboxEnvironment:
    """The abilities of this host, found by trying when the block is entered.

    with SandboxEnvironment() as sandbox:
        print(sandbox.layers, [ability.remedy for ability in sandbox.missing])
    """

    host: Host

    def __enter__(self) -> Self:
        self.host = probe_host()
        return self

    def __exit__(self, *_: object) -> None:
        return None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are in force for everything that runs here."""
        return tuple(layer for layer in Layer if self.host.abilities[layer].available)

    @property
    def missing(self) -> tuple[Ability, ...]:
        """The layers that this host cannot give, each with the reason and the remedy."""
        return tuple(ability for ability in self.host.abilities.values() if not ability.available)

    def plan(self, confinement: Confinement) -> Plan:
        """How one run would be confined. Raises `SandboxUnavailable` when a required layer is missing."""
        return plan(confinement, self.host)


class ExecutionMonitor:
    """Counts what an agent does and did.

    monitor = ExecutionMonitor(agent)
    monitor.snapshot()   # {"running": 1, "finished": 7, "Completed": 6, "ExitCode": 1}
    """

    def __init__(self, agent: ExecutionAgent) -> None:
        self._agent = agent

    def running(self) -> list[ExecutionResult]:
        return self._agent.running()

    def history(self) -> list[ExecutionResult]:
        """The latest that ended, oldest first, without output."""
        return self._agent.history()

    def usage(self) -> dict[str, dict[str, float]]:
        """The present usage of each execution, by its id: `processes`, `cpu_seconds`, `memory_bytes`."""
        return {uid: look(pid) for uid, pid in self._agent.pids().items()}

    def snapshot(self) -> dict[str, int]:
        """How many run, and how the latest ended, by reason."""
        history = self.history()
        counts = {"running": len(self.running()), "finished": len(history)}
        for result in history:
            counts[result.reason] = counts.get(result.reason, 0) + 1
        return counts


class SystemOperations:
    """Reads the resources of the host and their usage.

    SystemOperations().memory()["available_bytes"]
    """

    def cpu(self) -> dict[str, float]:
        """Cores, and the load of the last minute."""
        return {"cores": float(psutil.cpu_count() or 1), "load_1m": psutil.getloadavg()[0]}

    def memory(self) -> dict[str, int]:
        found = psutil.virtual_memory()
        return {"total_bytes": found.total, "available_bytes": found.available}

    def disk(self, path: str = "/") -> dict[str, int]:
        found = psutil.disk_usage(path)
        return {"total_bytes": found.total, "free_bytes": found.free}

    def processes(self) -> list[dict[str, Any]]:
        """This program's own and what descends from them: pid, name, status."""
        own = psutil.Process()
        return [child.as_dict(["pid", "name", "status"]) for child in (own, *own.children(recursive=True))]


class DeploymentManager:
    """The releases of an agent.

    manager = DeploymentManager(agent)
    await manager.rollback(await manager.deploy("app:v2", "production"))
    """

    def __init__(self, agent: ExecutionAgent) -> None:
        self._agent = agent

    async def deploy(self, artifact: str, target: str) -> str:
        """See `ExecutionAgent.deploy`."""
        return await self._agent.deploy(artifact, target)

    async def rollback(self, deployment_id: str) -> None:
        """See `ExecutionAgent.rollback`."""
        await self._agent.rollback(deployment_id)

    async def status(self, target: str) -> DeploymentState:
        """See `ExecutionAgent.get_deployment_status`."""
        return await self._agent.get_deployment_status(target)

    async def remove(self, target: str) -> None:
        """See `ExecutionAgent.remove_deployment`."""
        await self._agent.remove_deployment(target)

    async def health_check(self, target: str) -> DeploymentState:
        """See `ExecutionAgent.health_check`."""
        return await self._agent.health_check(target)


def _bytes(mebibytes: float | None) -> int | None:
    return None if mebibytes is None else int(mebibytes * 1024**2)


def _mebibytes(size: int | None) -> float | None:
    return None if size is None else size / 1024**2
