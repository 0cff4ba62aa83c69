"""Decide how an attempt is confined here, or refuse. Pure."""

from __future__ import annotations

from remit.errors import SandboxUnavailable
from remit.sandbox.model import Confinement, Host, Layer, Plan
from remit.sandbox.seccomp import compile_filter

NOT_ENFORCED = "not enforced"
_NETWORK_PACE = {"none": "no network", "restricted": "the egress proxy", "host": NOT_ENFORCED}
_PROMISES = {
    "disk_bytes_per_second": "spec.resources.diskBytesPerSecond: no blkio (v1) or io (v2) cgroup can be written here;"
    " leave it out, or give the operator a delegated cgroup",
    "network_bytes_per_second": "spec.resources.networkBytesPerSecond cannot be held with network: host;"
    " use network: restricted",
}
"""Limits that are asked for by name, and not by default: what cannot be held is refused."""


def plan(confinement: Confinement, host: Host) -> Plan:
    """Choose the layers for `confinement` on `host`.

    Namespaces are always needed, whether the policy says so or not: without them nothing is run at all.

    Raises:
        SandboxUnavailable: a required layer is missing; the message names each one with its remedy.
    """
    needed = confinement.require | {Layer.NAMESPACES}
    lacking = [host.abilities[layer] for layer in Layer if layer in needed and not host.abilities[layer].available]
    if lacking or host.bubblewrap is None:
        reasons = "; ".join(f"{a.layer}: {a.detail}. {a.remedy}".rstrip() for a in lacking)
        raise SandboxUnavailable(f"this host lacks a required sandbox layer: {reasons}")
    enforced = _enforcement(confinement, host)
    if impossible := [name for name, by in enforced.items() if by == NOT_ENFORCED and name in _PROMISES]:
        raise SandboxUnavailable("; ".join(_PROMISES[name] for name in impossible))
    in_force = tuple(layer for layer in Layer if host.abilities[layer].available)
    return Plan(
        confinement=confinement,
        bubblewrap=host.bubblewrap,
        cgroups=host.cgroups if Layer.CGROUP in in_force else None,
        layers=in_force,
        missing=tuple(layer for layer in Layer if layer not in in_force),
        enforced_by=enforced,
        disks=host.disks,
        system_call_filter=compile_filter(host.machine, confinement.network) if Layer.SECCOMP in in_force else None,
        landlock_scopes=host.landlock_scopes if Layer.LANDLOCK in in_force else 0,
    )


def _enforcement(confinement: Confinement, host: Host) -> dict[str, str]:
    cgroups = host.cgroups if host.abilities[Layer.CGROUP].available else None
    held = cgroups.controllers if cgroups else frozenset()
    name = f"cgroup v{cgroups.version}" if cgroups else ""
    limits, paced = confinement.limits, "blkio" in held and bool(host.disks)
    block = "io" if cgroups and cgroups.version == 2 else "blkio"
    found = {
        "memory_bytes": f"{name} memory" if "memory" in held else "rlimit AS, of each process",
        "cpu_cores": f"{name} cpu" if "cpu" in held else NOT_ENFORCED,
        "pids": f"{name} pids" if "pids" in held else "rlimit NPROC",
        "disk_bytes": "tmpfs size",
        "file_bytes": "rlimit FSIZE",
        "open_files": "rlimit NOFILE",
        "disk_bytes_per_second": f"{name} {block}, reads of each disk" if paced else NOT_ENFORCED,
        "network_bytes_per_second": _NETWORK_PACE[confinement.network],
    }
    return {field: by for field, by in found.items() if getattr(limits, field) is not None}
