"""Reads the engine's description of a container as an instance of a release. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from remit.api.deployment import DeploymentSpec
from remit.release.report.model import Usage
from remit.release.targets.docker.containers import Container, End
from remit.release.targets.docker.planning import Reach
from remit.release.targets.health import Health
from remit.release.targets.observation import InstanceStatus

OVER: Final = frozenset({"exited"})
"""The states from which the engine does not start a container again by itself."""
_ALIVE: Final = frozenset({"running", "paused"})
"""The states in which its program has not ended."""
_USELESS: Final = frozenset({"created", "dead", "removing"})
"""States from which nobody does. One that is merely created may lack its files: an operator was killed meanwhile."""


def listening(container: Container | None, spec: DeploymentSpec, reach: Reach) -> tuple[str, dict[str, int]]:
    """The container's host, and the number of each named port there; no ports while it has none."""
    if container is None:
        return reach.host, {}
    network = container.inspected["NetworkSettings"]
    if not reach.host:
        assigned = ((each.get("IPAMConfig") or {}).get("IPv4Address") for each in network["Networks"].values())
        host = next(filter(None, assigned), "")
        return host, {port.name: port.container_port for port in spec.ports} if host else {}
    ports = {
        port.name: _published(network["Ports"].get(f"{port.container_port}/tcp"), reach.host) for port in spec.ports
    }
    return reach.host, {name: number for name, number in ports.items() if number is not None}


def _published(bindings: Sequence[Mapping[str, str]] | None, host: str) -> int | None:
    """The engine may choose another port for each family of addresses."""
    alike = (int(each["HostPort"]) for each in bindings or () if (":" in each["HostIp"]) == (":" in host))
    return next(alike, None)


def is_useless(container: Container, revision: int) -> bool:
    """Whether it cannot become an instance of that revision any more."""
    return container.revision != revision or container.status in _USELESS


def goes_on(container: Container | None, revision: int) -> bool:
    """Whether it runs, or the engine sees to it that it does."""
    return container is not None and not is_useless(container, revision) and container.status not in OVER


def found(container: Container, health: Health, *, located: bool, started: int = 0) -> InstanceStatus:
    """One that is not `located` has a port that leads nowhere; it was `started` again so often by us and not by the
    engine."""
    return InstanceStatus(
        health,
        exists=True,
        kept=container.status not in OVER,
        alive=container.status == "running" and located,
        incarnation=f"{container.id[:12]} {container.state['StartedAt']}" if container.status in _ALIVE else "",
        restarts=container.restarts + started,
    )


def trouble(container: Container, instance: InstanceStatus, end: End | str | None) -> str:
    """Describe what is or was wrong with a container that failed or was started again, in one sentence."""
    if container.status == "paused":
        return "it is paused on the engine"
    if container.status != "running":
        return str(end or container.status)
    if not instance.alive:
        return "the engine does not publish all of its ports"
    again = [f"started again after {end}" if end else "started again"] if instance.restarts else []
    return "; ".join([instance.health.message, *again] if instance.failed else again)


def engines_verdict(container: Container) -> Health:
    """The result of the health check that the engine runs, if it runs one."""
    checked = container.state.get("Health") or {"Status": "none"}
    last = (checked.get("Log") or [{}])[-1]
    said = str(last.get("Output") or "").strip().rpartition("\n")[2]
    message = f"the check ended with exit code {last.get('ExitCode')}: {said}".removesuffix(": ")
    return Health(checked["Status"] == "healthy", checked["Status"] == "unhealthy", message)


def used(stats: Iterable[Mapping[str, Any]]) -> Usage:
    """The usage of containers together, from the engine's statistics. Memory that the kernel may take back is not
    counted."""
    spent, memory = 0.0, 0
    for each in stats:
        cpu, held = each.get("cpu_stats") or {}, each.get("memory_stats") or {}
        detail = held.get("stats") or {}
        spent += (cpu.get("cpu_usage") or {}).get("total_usage", 0) / 1e9
        memory += held.get("usage", 0) - detail.get("total_inactive_file", detail.get("inactive_file", 0))
    return Usage(spent, max(0, memory))
