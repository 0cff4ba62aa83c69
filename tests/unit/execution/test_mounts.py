"""Tests the conversion of a task's volumes to mounts and files, and admission's messages about them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.errors import InvalidInput
from remit.execution.admission import Admission, Admitted, PolicySet, Refused
from remit.execution.artifacts.stored import StoredArtifact, StoredFile
from remit.execution.jobmounts import stdin_volume_of
from remit.execution.mounts import mounted_files, mounts_of
from remit.execution.resolved import Resolved
from remit.policy.compile import compile_policy
from remit.sandbox import ClaimMount, EmptyMount, FilesMount, HostMount, MemoryBudget, Mount, MountedFile

ALLOWED: dict[str, Any] = {
    "commands": {"allow": [{"executable": name} for name in ("true", "/src/run.sh", "/src/bin/python")]},
    "volumes": {
        "hostPaths": [{"paths": ["/srv/**"], "access": ["ReadOnly", "ReadWrite"], "runAsUser": 7}],
        "workspaces": [{"names": ["*"]}],
        "artifacts": {},
    },
    "backends": ["process", "docker", "kubernetes"],
    "images": {"allow": ["i"]},
}


def task(volumes: list[dict[str, Any]], mounts: list[dict[str, Any]], argv: str = "true", **spec: Any) -> ExecutionTask:
    metadata = {"name": "t", "namespace": "ns", "uid": "u"}
    given = {"command": {"argv": [argv]}, "volumes": volumes, "volumeMounts": mounts, **spec}
    return ExecutionTask.parse({"metadata": metadata, "spec": given})


def decided(asked: ExecutionTask, **admission: Any) -> Admitted | Refused:
    policy = CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": ALLOWED})
    here = Admission(**{"backends": frozenset({"process", "docker"}), **admission})
    return here.decide(asked, PolicySet({"ns": [compile_policy(policy)]}, "remit-system"))


def admitted(asked: ExecutionTask, **admission: Any) -> Admitted:
    verdict = decided(asked, **admission)
    assert isinstance(verdict, Admitted), verdict
    return verdict


def mounts(asked: ExecutionTask, folders: dict[str, str] | None = None) -> tuple[HostMount | EmptyMount, ...]:
    resolved = Resolved(folders=folders or {})
    return Admission().attempt(asked, admitted(asked), 1, resolved, None).request.confinement.mounts


def test_mounts_are_under_the_terms_of_the_policy_and_outer_ones_first() -> None:
    volumes = [
        {"name": "src", "hostPath": {"path": "/srv/shop"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1Mi"}},
        {"name": "rest", "emptyDir": {}},
        {"name": "cache", "workspace": {"name": "cache"}},
        {"name": "wheel", "artifact": {"task": "build", "name": "wheel"}},
    ]
    at = [
        {"name": "tmp", "mountPath": "/src/tmp"},
        {"name": "src", "mountPath": "/src", "access": "ReadWrite", "subPath": "app"},
        {"name": "rest", "mountPath": "/rest"},
        {"name": "cache", "mountPath": "/cache", "access": "ReadWrite"},
        {"name": "wheel", "mountPath": "/wheel"},
    ]
    assert mounts(task(volumes, at), {"cache": "/state/w/data", "wheel": "/state/a/1"}) == (
        HostMount("/cache", "/state/w", "/state/w/data", read_only=False, own=True, internal=True),
        EmptyMount("/rest"),
        HostMount("/src", "/srv", "/srv/shop", "app", read_only=False, run_as_user=7),
        EmptyMount("/src/tmp", 1 << 20),
        HostMount("/wheel", "/state/a", "/state/a/1", internal=True),
    )


def test_what_cannot_be_mounted() -> None:
    twice = task([{"name": "a", "emptyDir": {}}], [{"name": "a", "mountPath": path} for path in ("/a", "/b")])
    with pytest.raises(InvalidInput, match="mounted twice"):
        mounts(twice)
    kept = task([{"name": "a", "workspace": {"name": "w"}}], [{"name": "a", "mountPath": "/a"}])
    with pytest.raises(InvalidInput, match="keeps no workspaces"):
        mounts(kept)


SRC = [{"name": "src", "hostPath": {"path": "/srv/shop"}}], [{"name": "src", "mountPath": "/src"}]


def test_on_a_cluster_nobody_knows_which_host_that_would_be() -> None:
    verdict = decided(task(*SRC), host_paths=False)
    assert isinstance(verdict, Refused)
    assert "spec.volumes[src].hostPath: on a cluster nobody knows" in verdict.finish.message
    admitted(task([{"name": "a", "emptyDir": {}}], [{"name": "a", "mountPath": "/a"}]), host_paths=False)


def test_not_every_backend_mounts() -> None:
    admitted(task(*SRC, backend="docker", image="i"))
    verdict = decided(task(*SRC, backend="kubernetes", image="i"), backends=frozenset({"process", "kubernetes"}))
    assert isinstance(verdict, Refused)
    assert verdict.finish.reason == "NotSupported"
    assert "spec.volumes[src].hostPath: on a cluster nobody knows" in verdict.finish.message


def test_a_file_for_standard_input_is_under_the_terms_of_its_volume() -> None:
    def found(source: dict[str, Any], path: str, folders: dict[str, str]) -> HostMount | None:
        asked = task([{"name": "v", **source}], [], stdinFrom={"volume": {"name": "v", "path": path}})
        attempt = Admission().attempt(asked, admitted(asked), 1, Resolved(folders=folders), None)
        confinement = attempt.request.confinement
        assert confinement.mounts == (), "it need not be mounted"
        return confinement.stdin_file

    shop = found({"hostPath": {"path": "/srv/shop"}}, "in/dump.sql", {})
    assert shop == HostMount("", "/srv", "/srv/shop", "in/dump.sql", run_as_user=7)
    kept = found({"workspace": {"name": "w"}}, "dump.sql", {"v": "/state/w/data"})
    assert kept == HostMount("", "/state/w", "/state/w/data", "dump.sql", own=True, internal=True)
    with pytest.raises(InvalidInput, match="keeps no workspaces"):
        found({"workspace": {"name": "w"}}, "dump.sql", {})


WHEEL = StoredArtifact(
    "wheel", (StoredFile("dist/x.whl", 5, "0" * 64), StoredFile("run", 9, "0" * 64, executable=True))
)


def job_mounts(
    volume: dict[str, Any], artifact: StoredArtifact = WHEEL, **spec: Any
) -> tuple[tuple[Mount, ...], ClaimMount | FilesMount | None]:
    """Returns what a Job mounts at /in, and what it reads as its input."""
    mounts = [{"name": "w", "mountPath": "/in"}]
    asked = task([{"name": "w", **volume}], mounts, backend="kubernetes", image="i", **spec)
    verdict = decided(asked, backends=frozenset({"kubernetes"}))
    assert isinstance(verdict, Admitted)
    given = (verdict.grant.request, verdict.policies, {"w": "/trees/1"}, {"w": artifact})
    return mounts_of(*given), stdin_volume_of(*given)


def test_a_job_mounts_copies_of_an_artifact() -> None:
    source = {"artifact": {"task": "t", "name": "a"}}
    (mount,), stdin = job_mounts(source, stdinFrom={"volume": {"name": "w", "path": "dist/x.whl"}})
    files = (MountedFile("dist/x.whl", 5), MountedFile("run", 9, executable=True))
    assert mount == FilesMount("/in", "w", "/trees/1", files)
    assert stdin == FilesMount("", "w", "/trees/1", files, "dist/x.whl")
    for file, told in (
        (StoredFile("a", 1 << 20, "0" * 64), "'a' has 1Mi, and a Job mounts files of at most 900Ki; pass it on in"),
        (StoredFile("..a", 1, "0" * 64), "which no volume of Kubernetes can have"),
    ):
        with pytest.raises(InvalidInput, match=re.escape(told)):
            job_mounts(source, StoredArtifact("a", (file,)))
    for count, size in ((5, 900 << 10), (501, 1)):
        many = StoredArtifact("a", tuple(StoredFile(f"{number}", size, "0" * 64) for number in range(count)))
        with pytest.raises(InvalidInput, match=f"has {count} files with .* pass it on in a workspace"):
            job_mounts(source, many)


def test_a_job_reads_its_input_from_a_volume() -> None:
    wanted = {"workspace": {"name": "pip"}}
    _, stdin = job_mounts(wanted, stdinFrom={"volume": {"name": "w", "path": "dump.sql"}})
    assert stdin == ClaimMount("", "pip", 1 << 30, "dump.sql")
    assert job_mounts(wanted)[1] is None
    with pytest.raises(InvalidInput, match="a workspace is a folder; name a regular file in path"):
        job_mounts(wanted, stdinFrom={"volume": {"name": "w"}})


@pytest.mark.parametrize("program", ["/src/run.sh", "/src/bin/../run.sh", "/src/bin/python"])
def test_a_program_of_a_mounted_folder_is_not_looked_for_on_the_host(program: str) -> None:
    verdict = decided(task(*SRC, argv=program))
    assert (verdict.command.resolved if verdict.command else None) == program.replace("/bin/..", "")
    assert isinstance(verdict, Admitted) is (".." not in program)


@pytest.mark.parametrize("program", ["/src/../bin/true", "/srcs/run.sh", "/bin/src/run.sh"])
def test_others_are(program: str) -> None:
    assert isinstance(decided(task(*SRC, argv=program)), Refused)


def test_empty_folders_take_of_the_memory_of_all() -> None:
    volumes = [{"name": "a", "emptyDir": {"sizeLimit": "10Mi"}}, {"name": "b", "emptyDir": {}}]
    at = [{"name": name, "mountPath": f"/{name}"} for name in "ab"]
    asked = task(volumes, at, resources={"disk": "1Mi", "memory": "8Mi"})
    assert admitted(asked, memory=MemoryBudget(64 << 20, 3)).memory == (8 + 3 * 1 + 10 + 1) << 20
    assert admitted(asked, memory=MemoryBudget(64 << 20, 0)).memory == 8 << 20
    verdict = decided(asked, memory=MemoryBudget(16 << 20, 3))
    assert isinstance(verdict, Refused)
    assert f"{11 << 20} of emptyDir volumes" in verdict.finish.message


def files(source: dict[str, Any], data: dict[str, bytes], **at: Any) -> dict[str, bytes]:
    asked = task([{"name": "v", **source}], [{"name": "v", "mountPath": "/etc/app", **at}])
    return mounted_files(asked.spec.volumes[0], asked.spec.volume_mounts[0], data)


@pytest.mark.parametrize("kind", [{"configMap": {"name": "c"}}, {"secret": {"secretName": "s"}}])
def test_keys_become_files(kind: dict[str, Any]) -> None:
    data = {"a": b"1", "b": b"2"}
    assert files(kind, data) == {"/etc/app/a": b"1", "/etc/app/b": b"2"}
    ((name, source),) = kind.items()
    items = {name: {**source, "items": [{"key": "a", "path": "deep/x"}, {"key": "b", "path": "y"}]}}
    assert files(items, data) == {"/etc/app/deep/x": b"1", "/etc/app/y": b"2"}
    assert files(items, data, subPath="deep") == {"/etc/app/x": b"1"}
    assert files(items, data, subPath="y") == {"/etc/app": b"2"}, "one file, as subPath is used for"
    with pytest.raises(InvalidInput, match="has no key b"):
        files(items, {"a": b"1"})
    assert files({name: {**items[name], "optional": True}}, {"a": b"1"}) == {"/etc/app/deep/x": b"1"}


def test_a_key_is_no_way_out_of_where_it_is_mounted() -> None:
    for key in ("..", "."):
        with pytest.raises(InvalidInput, match=f"has a key {re.escape(key)}, which is no name of a file"):
            files({"configMap": {"name": "app"}}, {key: b"x", "a": b"x"})
    listed = {"configMap": {"name": "app", "items": [{"key": "..", "path": "up"}]}}
    assert files(listed, {"..": b"x"}) == {"/etc/app/up": b"x"}


def test_names_may_begin_with_dots() -> None:
    items = [{"key": "a", "path": "sub/..a"}, {"key": "b", "path": "b"}]
    listed = {"configMap": {"name": "app", "items": items}}
    assert files(listed, {"a": b"x", "b": b"y"}, subPath="sub") == {"/etc/app/..a": b"x"}


WORKSPACE = [{"name": "w", "workspace": {"name": "pip", "size": "1Gi"}}]


def test_a_job_mounts_what_a_cluster_keeps() -> None:
    spec: dict[str, Any] = {"backend": "kubernetes", "image": "i"}
    asked = task(WORKSPACE, [{"name": "w", "mountPath": "/c", "access": "ReadWrite", "subPath": "s"}], **spec)
    here = {"backends": frozenset({"kubernetes"})}
    verdict = decided(asked, **here)
    assert isinstance(verdict, Admitted)
    (mount,) = mounts_of(verdict.grant.request, verdict.policies, {})
    assert mount == ClaimMount("/c", "pip", 1 << 30, "s", read_only=False)
    lasts: dict[str, Any] = {"name": "w", "workspace": {"name": "pip", "size": "1Gi", "ttlSecondsAfterLastUse": 5}}
    verdict = decided(task([lasts], [{"name": "w", "mountPath": "/c"}], **spec), **here)
    assert isinstance(verdict, Admitted)
    assert mounts_of(verdict.grant.request, verdict.policies, {}) == (ClaimMount("/c", "pip", 1 << 30, ttl_seconds=5),)
    artifact: dict[str, Any] = {"name": "w", "artifact": {"task": "t", "name": "a"}}
    verdict = decided(task([artifact], [{"name": "w", "mountPath": "/c"}], **spec), **here)
    assert isinstance(verdict, Admitted)
    with pytest.raises(InvalidInput, match="this operator keeps no artifacts"):
        mounts_of(verdict.grant.request, verdict.policies, {})
