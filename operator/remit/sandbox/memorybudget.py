"""How much memory the tasks of this operator may be promised together."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from remit.sandbox.cgrouptree import own_folder, parse_membership, parse_mounts
from remit.sandbox.filesystem import PRIVATE_TMPFS
from remit.sandbox.model import Bubblewrap, CgroupTree, MemoryBudget

_RESERVE_BYTES = 256 * 1024 * 1024
"""Memory that is reserved for the operator itself, which takes 130 to 190 MiB at rest."""
_LEAST_UNLIMITED = 1 << 62
"""Cgroup v1 writes a limit that is not set as the largest number of whole pages."""


def budget(limit: int | None, bubblewrap: Bubblewrap | None, cgroups: CgroupTree | None) -> MemoryBudget:
    """The memory that tasks may be promised if the operator itself has `limit`. Pure."""
    counted = cgroups is not None and "memory" in cgroups.controllers
    total = None if limit is None else limit - min(_RESERVE_BYTES, limit // 2)
    return MemoryBudget(total, PRIVATE_TMPFS if bubblewrap and not counted else 0)


def own_memory_limit() -> int | None:
    """The limit of the cgroup that this process is in, or of one above it; None without any that can be seen."""
    membership = parse_membership(Path("/proc/self/cgroup").read_text())
    limits: list[int] = []
    for mount in parse_mounts(Path("/proc/self/mountinfo").read_text()):
        controller, file = ("", "memory.max") if mount.version == 2 else ("memory", "memory.limit_in_bytes")
        if controller in membership and (mount.version == 2 or controller in mount.controllers):
            folder = own_folder(mount, membership[controller])
            above = [folder, *folder.parents]
            limits += read_limits(each / file for each in above if each.is_relative_to(mount.point))
    return min(limits, default=None)


def read_limits(files: Iterable[Path]) -> list[int]:
    """The limits that are set in these files of cgroups; those that are not there count as not set."""
    found = []
    for file in files:
        try:
            text = file.read_text().strip()
        except OSError:
            continue
        if text.isdigit() and int(text) < _LEAST_UNLIMITED:
            found.append(int(text))
    return found
