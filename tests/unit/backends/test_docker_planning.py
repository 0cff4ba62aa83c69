"""Tests how an attempt is confined in a container, according to the engine's information about itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.backends.base import AttemptRequest, Command
from remit.backends.docker.holding import holding
from remit.backends.docker.planning import (
    Given,
    container_name,
    creation,
    enforcement_of,
    kept_folders,
    missing_working_dir,
    private_folders,
)
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import Confinement, EmptyMount, HostMount, Layer, Limits, Network

ENGINE: dict[str, Any] = {
    "SecurityOptions": ["name=apparmor", "name=seccomp,profile=default"],
    "MemoryLimit": True,
    "PidsLimit": True,
    "CpuCfsQuota": True,
    "CgroupVersion": "2",
    "InitBinary": "docker-init",
    "Architecture": "x86_64",
}


def request(**changes: Any) -> AttemptRequest:
    files = changes.pop("files", {})
    command = Command(("app", "--x"), "", {"A": "b", "REMIT_TASK_NAME": "t", "REMIT_TASK_NAMESPACE": "ns"})
    return AttemptRequest("uid-1", command, Confinement(**changes), timeout_seconds=1, files=files)


def test_what_a_whole_engine_gives() -> None:
    given = enforcement_of(Confinement(Limits(memory_bytes=1, disk_bytes=2)), ENGINE)
    assert set(given.layers) == {Layer.NAMESPACES, Layer.SECCOMP, Layer.CGROUP, Layer.RLIMITS}
    assert given.enforced_by == {"memory_bytes": "cgroup v2 memory", "disk_bytes": "tmpfs size"}


@pytest.mark.parametrize("options", [None, [], ["name=seccomp,profile=unconfined"], ["name=apparmor"]])
def test_an_engine_without_a_filter_has_no_seccomp(options: list[str] | None) -> None:
    engine = {**ENGINE, "SecurityOptions": options}
    assert Layer.SECCOMP in enforcement_of(Confinement(), engine).missing
    with pytest.raises(SandboxUnavailable, match="seccomp"):
        enforcement_of(Confinement(require=frozenset({Layer.SECCOMP})), engine)


@pytest.mark.parametrize("lacking", ["MemoryLimit", "PidsLimit", "CpuCfsQuota"])
def test_an_engine_that_does_not_count_has_no_cgroup(lacking: str) -> None:
    with pytest.raises(SandboxUnavailable, match="cgroup"):
        enforcement_of(Confinement(require=frozenset({Layer.CGROUP})), {**ENGINE, lacking: False})


def test_what_no_container_holds_is_refused() -> None:
    with pytest.raises(SandboxUnavailable, match="diskBytesPerSecond: the backend docker cannot hold it"):
        enforcement_of(Confinement(Limits(disk_bytes_per_second=1)), ENGINE)


@pytest.mark.parametrize(("network", "by"), [("none", "no network"), ("restricted", "the egress proxy")])
def test_what_holds_the_bandwidth_of_a_network(network: Network, by: str) -> None:
    limited = Confinement(Limits(network_bytes_per_second=1), network=network)
    assert enforcement_of(limited, ENGINE).enforced_by == {"network_bytes_per_second": by}


def test_nothing_holds_the_bandwidth_of_the_hosts_network() -> None:
    with pytest.raises(SandboxUnavailable, match="use network: restricted"):
        enforcement_of(Confinement(Limits(network_bytes_per_second=1), network="host"), ENGINE)


@pytest.mark.parametrize("architecture", ["riscv64", "", None])
def test_a_network_is_restricted_where_there_is_a_program_to_hold_it(architecture: str | None) -> None:
    engine = {**ENGINE, "Architecture": architecture}
    assert enforcement_of(Confinement(network="host"), engine)
    with pytest.raises(SandboxUnavailable, match="aarch64 and x86_64"):
        enforcement_of(Confinement(network="restricted"), engine)


def test_what_the_engine_is_told() -> None:
    image = {"Id": "sha256:1", "Config": {"Volumes": {"/data": {}}, "User": "0", "Entrypoint": ["/evil"]}}
    limits = Limits(memory_bytes=1 << 20, pids=8, cpu_cores=0.5, disk_bytes=1 << 16, open_files=9)
    given = Given(filled="filled")
    asked = request(limits=limits, files={"/run/remit/script": b"x"})
    told = creation(asked, image, ENGINE, "container:1", {"A": "c"}, given)
    host = told["HostConfig"]
    assert (told["Entrypoint"], told["Cmd"], told["User"]) == (["app"], ["--x"], "65534:65534")
    assert (host["CapDrop"], host["SecurityOpt"], host["ReadonlyRootfs"]) == (["ALL"], ["no-new-privileges"], True)
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (1 << 20, 1 << 20, 500_000_000)
    assert host["PidsLimit"] == 9  # the init is included
    assert host["NetworkMode"] == "container:1"
    assert told["Env"] == ["A=c", "REMIT_TASK_NAME=t", "REMIT_TASK_NAMESPACE=ns"]
    places = {mount["Target"]: mount for mount in host["Mounts"]}
    assert places.keys() == {"/workspace", "/tmp", "/data"}
    assert host["VolumesFrom"] == ["filled:ro"]
    options = places["/data"]["VolumeOptions"]["DriverConfig"]["Options"]
    assert (options["type"], "size=65536" in options["o"]) == ("tmpfs", True)
    assert told["Labels"]["remit.dev/attempt"] == "uid-1"
    assert container_name("uid-1") == "remit-uid-1"


@pytest.mark.parametrize("path", ["/workspace/x", "/tmp/x", "/x"])
def test_private_files_that_would_hide_the_workspace(path: str) -> None:
    with pytest.raises(InvalidInput, match="below /run"):
        private_folders(request(files={path: b""}))


def test_configuration_stands_anywhere_else() -> None:
    files = {"/etc/app/x": b"", "/workspace/conf/x": b"", "/tmp/conf/deep/x": b""}
    assert private_folders(request(files=files)) == ["/etc/app", "/tmp/conf/deep", "/workspace/conf"]


def test_what_is_kept_is_held_elsewhere() -> None:
    """The volume remains available when the container has ended."""
    mounts = (EmptyMount("/data", 1 << 20), EmptyMount("/src/tmp", 1), HostMount("/src", "/srv", "/srv/x"))
    limited = request(limits=Limits(disk_bytes=1 << 16), mounts=mounts)
    image = {"Id": "sha256:1", "Config": {"Volumes": {"/workspace": {}, "/src": {}}}}
    given = Given(user=7, group=8, binds={"/src": ("/state/mounts/1/0", True)}, holder="holder")

    def in_it(told: dict[str, Any]) -> dict[str, str]:
        return {each["Target"]: each["Type"] for each in told["HostConfig"]["Mounts"]}

    told = creation(limited, image, ENGINE, "none", {}, given)
    assert in_it(told) == {"/tmp": "volume", "/workspace": "volume", "/data": "volume", "/src": "bind"}
    assert (told["User"], told["HostConfig"]["VolumesFrom"]) == ("7:8", [])
    kept = replace(limited, collector=lambda _, outcome: outcome)
    assert kept_folders(kept) == {"/workspace": 1 << 16, "/data": 1 << 20}
    told = creation(kept, image, ENGINE, "none", {}, given)
    assert in_it(told) == {"/tmp": "volume", "/src": "bind"}
    assert told["HostConfig"]["VolumesFrom"] == ["holder"]
    held = in_it(holding(kept, image, "program"))
    assert held == {"/workspace": "volume", "/data": "volume", "/src": "volume"}
    with pytest.raises(SandboxUnavailable, match="keeps artifacts and results on aarch64 and x86_64"):
        enforcement_of(Confinement(), {**ENGINE, "Architecture": "riscv64"}, keeps=True)


def test_where_an_attempt_can_start() -> None:
    mounts = (HostMount("/src", "/srv", "/srv/x"), EmptyMount("/data"))
    for path in ("/src", "/data", "/workspace", "/etc/app"):
        started = request(working_dir=path, mounts=mounts, files={"/etc/app/x": b""})
        assert missing_working_dir(started) is None
    assert "/data, /src, /workspace" in str(missing_working_dir(request(working_dir="/src/sub", mounts=mounts)))


def test_an_engine_does_not_make_read_only_what_is_to_be_written_within() -> None:
    """Docker makes mounts inside a read-only one read-only from version 25 on, which is wanted for a single folder."""
    outer, inner = HostMount("/src", "/", "/srv/src"), HostMount("/src/in", "/", "/srv/in", read_only=False)
    given = Given(user=7, group=8, binds={"/src": ("/state/mounts/1/0", True)})

    def options(*mounts: HostMount) -> dict[str, Any]:
        told = creation(request(mounts=mounts), {"Id": "i"}, ENGINE, "none", {}, given)
        (bind,) = (each for each in told["HostConfig"]["Mounts"] if each["Type"] == "bind")
        assert bind["ReadOnly"]
        return dict(bind["BindOptions"])

    assert options(outer) == {"Propagation": "rprivate", "ReadOnlyNonRecursive": False}
    assert options(outer, inner) == {"Propagation": "rprivate", "ReadOnlyNonRecursive": True}
