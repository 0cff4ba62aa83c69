"""Tests that every backend enforces each limit of a sandbox and says how, or refuses requests with it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from remit.backends.docker import planning as docker
from remit.backends.kubernetes import manifests as kubernetes
from remit.errors import SandboxUnavailable
from remit.sandbox import Ability, Bubblewrap, CgroupTree, Confinement, Host, Layer, Limits, plan

ENGINE = {"MemoryLimit": True, "PidsLimit": True, "CpuCfsQuota": True, "CgroupVersion": "2", "Architecture": "x86_64"}
HOST = Host(
    {layer: Ability(layer, available=True, detail="", remedy="") for layer in Layer},
    Bubblewrap("/usr/bin/bwrap", "0.10.0", sets_argv0=True, identities=None),
    CgroupTree(2, dict.fromkeys(("memory", "pids", "cpu"), Path("/cgroup"))),
    machine="x86_64",
    landlock_scopes=3,
)
BACKENDS: dict[str, Callable[[Confinement], Mapping[str, str]]] = {
    "process": lambda confinement: plan(confinement, HOST).enforced_by,
    "docker": lambda confinement: docker.enforcement_of(confinement, ENGINE).enforced_by,
    "kubernetes": lambda confinement: kubernetes.enforcement_of(confinement).enforced_by,
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("limit", [field.name for field in dataclasses.fields(Limits)])
def test_a_limit_is_held_or_refused(backend: str, limit: str) -> None:
    try:
        enforced_by = BACKENDS[backend](Confinement(Limits(**{limit: 1 << 30})))
    except SandboxUnavailable:
        return
    assert enforced_by[limit]
