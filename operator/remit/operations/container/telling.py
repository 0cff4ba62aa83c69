"""Describes containers for output: no values of their environment, which may be secret. Pure."""

from __future__ import annotations

from typing import Any

import orjson


def line(told: dict[str, Any]) -> bytes:
    """One JSON object a line."""
    return orjson.dumps(told) + b"\n"


def inspected(found: dict[str, Any]) -> dict[str, Any]:
    """The inspection by the engine, without the values of environment variables."""
    config = found.get("Config") or {}
    names = [variable.partition("=")[0] for variable in config.get("Env") or []]
    return {**found, "Config": {**config, "Env": names}}


def listed(found: dict[str, Any]) -> dict[str, Any]:
    """One container of a list."""
    return {
        "id": found["Id"],
        "name": name_of(found),
        "image": found["Image"],
        "state": found["State"],
        "status": found["Status"],
        "created": found["Created"],
        "labels": found.get("Labels") or {},
    }


def name_of(found: dict[str, Any]) -> str:
    """A container's own name; links to it from others have a slash in the middle."""
    names: list[str] = found.get("Names") or [found.get("Name") or ""]
    own = [name.lstrip("/") for name in names if "/" not in name.lstrip("/")]
    return own[0] if own else ""


def measured(stats: dict[str, Any]) -> dict[str, Any]:
    """The present usage of a container. `cpuCores` is over the last second; of a container that is not running all is
    0."""
    cpu, before = stats.get("cpu_stats") or {}, stats.get("precpu_stats") or {}
    memory, io = stats.get("memory_stats") or {}, stats.get("blkio_stats") or {}
    networks = (stats.get("networks") or {}).values()
    return {
        "cpuSeconds": round(_cpu(cpu) / 1e9, 6),
        "cpuCores": round(_cores(cpu, before), 4),
        "memoryBytes": memory.get("usage", 0),
        "maxMemoryBytes": memory.get("max_usage", 0) or memory.get("usage", 0),
        "memoryLimitBytes": memory.get("limit", 0),
        "pids": (stats.get("pids_stats") or {}).get("current", 0),
        "readBytes": _moved(io, "read"),
        "writtenBytes": _moved(io, "write"),
        "receivedBytes": sum(network["rx_bytes"] for network in networks),
        "sentBytes": sum(network["tx_bytes"] for network in networks),
    }


def _cpu(stats: dict[str, Any]) -> int:
    return int((stats.get("cpu_usage") or {}).get("total_usage", 0))


def _cores(now: dict[str, Any], before: dict[str, Any]) -> float:
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    return (_cpu(now) - _cpu(before)) / passed * now.get("online_cpus", 1) if passed > 0 else 0.0


def _moved(io: dict[str, Any], what: str) -> int:
    entries = io.get("io_service_bytes_recursive") or []
    return sum(int(entry["value"]) for entry in entries if entry["op"].lower() == what)
