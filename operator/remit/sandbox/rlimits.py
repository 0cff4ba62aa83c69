"""The kernel's per-process limits. Pure, but for this process's own hard limits, which none may exceed.

They are always set, and stand in for the memory and pids controllers where no cgroup is writable. There they are
weaker: RLIMIT_AS bounds each process and not the tree. RLIMIT_NPROC counts the tasks of a user, which is an attempt's
own alone: as root because each attempt has a user of its own, otherwise because Linux 5.14 and later count per user
namespace. (An older kernel counts the operator's other processes too, and so refuses forks early.)
"""

from __future__ import annotations

import resource

from remit.sandbox.model import Limits

DEFAULT_OPEN_FILES = 1024

RESOURCES = {
    "core": resource.RLIMIT_CORE,
    "nofile": resource.RLIMIT_NOFILE,
    "fsize": resource.RLIMIT_FSIZE,
    "as": resource.RLIMIT_AS,
    "nproc": resource.RLIMIT_NPROC,
}
"""Each limit by the name that prlimit(1) gives it."""


def rlimits(limits: Limits, *, controllers: frozenset[str]) -> dict[str, int]:
    """The resource limits to set on an attempt, where `controllers` are those of its cgroup."""
    values = {"core": 0, "nofile": limits.open_files or DEFAULT_OPEN_FILES}
    if limits.file_bytes is not None:
        values["fsize"] = limits.file_bytes
    if limits.memory_bytes is not None and "memory" not in controllers:
        values["as"] = limits.memory_bytes
    if limits.pids is not None and "pids" not in controllers:
        values["nproc"] = limits.pids
    return {name: _bounded(value, resource.getrlimit(RESOURCES[name])[1]) for name, value in values.items()}


def _bounded(value: int, ceiling: int) -> int:
    return value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
