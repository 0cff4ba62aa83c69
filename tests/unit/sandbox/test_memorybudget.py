"""Tests how much of the operator's own memory tasks may reserve."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.sandbox import Bubblewrap, CgroupTree, MemoryBudget
from remit.sandbox.filesystem import PRIVATE_TMPFS, private_mounts
from remit.sandbox.memorybudget import budget, read_limits

MIB = 1 << 20
BWRAP = Bubblewrap("/usr/bin/bwrap", "0.11.0", sets_argv0=True, identities=None)
MEMORY = CgroupTree(2, {"memory": Path("/c"), "pids": Path("/c")})


@pytest.mark.parametrize(
    ("limit", "total"), [(None, None), (1024 * MIB, 768 * MIB), (512 * MIB, 256 * MIB), (128 * MIB, 64 * MIB)]
)
def test_the_operator_keeps_a_reserve(limit: int | None, total: int | None) -> None:
    assert budget(limit, BWRAP, MEMORY).total == total


@pytest.mark.parametrize(
    ("bubblewrap", "cgroups", "demand"),
    [
        (BWRAP, MEMORY, 64),  # what is written to a tmpfs counts towards the cgroup's limit
        (BWRAP, CgroupTree(1, {"pids": Path("/c")}), 64 + 3 * 16),
        (BWRAP, None, 64 + 3 * 16),
        (None, None, 64),  # the private folders are on a disk
    ],
)
def test_an_attempt_takes_its_memory_and_each_tmpfs_that_nothing_else_counts(
    bubblewrap: Bubblewrap | None, cgroups: CgroupTree | None, demand: int
) -> None:
    assert budget(None, bubblewrap, cgroups).demand(64 * MIB, 16 * MIB) == demand * MIB


def test_without_a_limit_of_its_memory_its_tmpfs_are_counted() -> None:
    assert MemoryBudget(MIB, 3).demand(None, 5) == 15
    assert MemoryBudget(MIB, 0).demand(None, 5) == 0
    assert MemoryBudget(MIB, 3).demand(7, None) == 7


def test_every_tmpfs_of_the_size_of_the_disk_is_counted() -> None:
    assert private_mounts(12345).count("12345") == PRIVATE_TMPFS


def test_limits_of_both_versions_of_cgroups_are_read(tmp_path: Path) -> None:
    texts = {"set": "1073741824\n", "v2": "max\n", "v1": "9223372036854771712\n"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert read_limits(tmp_path / name for name in (*texts, "missing")) == [1 << 30]
