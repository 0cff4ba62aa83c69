"""Tests the objects that are created for an attempt."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from remit.backends.base import AttemptRequest, Command, KeptFiles, TaskReference
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import (
    MOST_PRIVATE_BYTES,
    Secrets,
    enforcement_of,
    job,
    network_policy,
    runs,
    secret_versions_of,
    unexpanded,
)
from remit.backends.kubernetes.workspaceclaim import claim, claims
from remit.errors import InvalidInput, RemitError, SandboxUnavailable
from remit.sandbox import ClaimMount, Confinement, EmptyMount, FilesMount, HostMount, Layer, Limits, MountedFile

LAUNCHER = Launcher("amd64", b"program")
COMMAND = Command(
    ("/bin/echo", "$HOME $(PATH) $$"), "", env={"PLAIN": "$(X)", "KEY": "s3cret"}, public=frozenset({"PLAIN"})
)
REQUEST = AttemptRequest(
    id="uid-1",
    command=COMMAND,
    confinement=Confinement(limits=Limits(memory_bytes=64 << 20, cpu_cores=0.5, disk_bytes=16 << 20)),
    timeout_seconds=30,
    grace_seconds=5,
    files={"/run/private/key": b"KEY", "/etc/app/conf": b"CONF"},
    image="base:1",
    task=TaskReference("data", "nightly", "uid"),
)


def pod(request: AttemptRequest = REQUEST) -> dict[str, Any]:
    spec: dict[str, Any] = job(request, Secrets.of(request), LAUNCHER)["spec"]["template"]["spec"]
    return spec


def container(request: AttemptRequest = REQUEST) -> dict[str, Any]:
    only: list[dict[str, Any]] = pod(request)["containers"]
    assert len(only) == 1
    return only[0]


def test_it_runs_once_and_goes_with_its_task() -> None:
    made = job(REQUEST, Secrets.of(REQUEST), LAUNCHER)
    assert made["metadata"]["name"] == "remit-uid-1"
    assert [owner["uid"] for owner in made["metadata"]["ownerReferences"]] == ["uid"]
    spec = made["spec"]
    assert (spec["backoffLimit"], spec["completions"], spec["parallelism"]) == (0, 1, 1)
    assert spec["podReplacementPolicy"] == "Failed"
    assert spec["template"]["spec"]["restartPolicy"] == "Never"
    assert spec["activeDeadlineSeconds"] > 30 + 5


def test_it_keeps_the_restricted_standard_and_has_no_token() -> None:
    given = pod()
    assert given["automountServiceAccountToken"] is False
    assert given["enableServiceLinks"] is False
    assert given["securityContext"]["runAsNonRoot"] is True
    assert given["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container()["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_the_kubelet_expands_nothing_of_what_was_judged() -> None:
    assert container()["command"][-2:] == ["/bin/echo", "$$HOME $$(PATH) $$$$"]
    assert {"name": "PLAIN", "value": "$$(X)"} in container()["env"]
    assert unexpanded("a$$b$(C)") == "a$$$$b$$(C)"


def test_a_secret_is_in_its_secret_only() -> None:
    secrets = Secrets.of(REQUEST)
    made = job(REQUEST, secrets, LAUNCHER)
    assert "s3cret" not in json.dumps(made)
    assert "KEY" not in json.dumps(made).replace('"KEY"', "")
    kept = {base64.b64decode(value) for value in secrets.object(REQUEST)["data"].values()}
    assert kept == {b"s3cret", b"KEY", b"CONF"}
    by_reference = next(each for each in container()["env"] if each["name"] == "KEY")
    assert by_reference["valueFrom"]["secretKeyRef"] == {"name": "remit-uid-1", "key": secrets.variables["KEY"]}


def test_private_files_stand_where_they_should_and_hide_no_others() -> None:
    mounts = {mount["mountPath"]: mount for mount in container()["volumeMounts"]}
    for path in REQUEST.files:
        assert mounts[path]["subPath"]
        assert mounts[path]["readOnly"] is True


def test_the_input_is_a_file_that_the_launcher_opens() -> None:
    request = replace(REQUEST, command=replace(COMMAND, stdin=b"words"))
    command = container(request)["command"]
    assert command[:5] == ["/run/remit/launch", "-C", "/workspace", "-i", "/run/remit/stdin"]
    assert "/run/remit/stdin" in {mount["mountPath"] for mount in container(request)["volumeMounts"]}
    assert "-i" not in container()["command"]


def test_limits_are_those_of_the_task() -> None:
    limits = container()["resources"]["limits"]
    assert limits["cpu"] == "500m"
    assert limits["memory"] == str(64 << 20)
    assert int(limits["ephemeral-storage"]) > 2 * (16 << 20)
    sizes = [volume["emptyDir"].get("sizeLimit") for volume in pod()["volumes"] if "emptyDir" in volume]
    assert sizes == [str(16 << 20)] * 2


def test_what_lies_in_a_folder_is_mounted_after_it() -> None:
    mounts = (EmptyMount("/workspace/cache/deep", 1 << 20), EmptyMount("/workspace/cache"))
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, mounts=mounts))
    order = [mount["mountPath"] for mount in container(request)["volumeMounts"]]
    assert order.index("/workspace") < order.index("/workspace/cache") < order.index("/workspace/cache/deep")


def test_where_the_pod_goes_and_as_whom() -> None:
    wanted = {
        "nodeSelector": {"gpu": "a100", "kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "runtimeClassName": "gvisor",
        "priorityClassName": "low",
        "serviceAccountName": "builder",
        "imagePullSecrets": ["registry"],
    }
    given = pod(replace(REQUEST, pod=wanted))
    selector = {"gpu": "a100", "kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"}
    assert given["nodeSelector"] == selector  # the launcher does not run on other nodes
    assert {name: given[name] for name in wanted if name not in {"nodeSelector", "imagePullSecrets"}} == {
        name: value for name, value in wanted.items() if name not in {"nodeSelector", "imagePullSecrets"}
    }
    assert given["imagePullSecrets"] == [{"name": "registry"}]
    assert given["automountServiceAccountToken"] is True
    assert not {"serviceAccountName", "tolerations", "imagePullSecrets"} & pod().keys()


def test_a_workspace_is_one_claim_wherever_it_is_mounted() -> None:
    mounts = (ClaimMount("/cache", "pip", 1 << 30), ClaimMount("/cache2", "pip", 1 << 30, "sub", read_only=False))
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, mounts=mounts))
    names = [each["persistentVolumeClaim"] for each in pod(request)["volumes"] if "persistentVolumeClaim" in each]
    assert names == [{"claimName": "remit-workspace-pip"}]
    by_path = {mount["mountPath"]: mount for mount in container(request)["volumeMounts"]}
    assert by_path["/cache"]["readOnly"] is True
    assert (by_path["/cache2"]["readOnly"], by_path["/cache2"]["subPath"]) == (False, "sub")
    made = claim(claims(request)["pip"], "data", "fast", {"a": "x", "b": None})
    assert made["spec"]["resources"]["requests"]["storage"] == str(1 << 30)
    assert made["spec"]["storageClassName"] == "fast"
    assert made["metadata"]["annotations"] == {"a": "x"}
    assert "ownerReferences" not in made["metadata"]
    assert "storageClassName" not in claim(claims(request)["pip"], "data", "", {})["spec"]


@pytest.mark.parametrize(
    ("confinement", "told"),
    [
        (Confinement(require=frozenset({Layer.LANDLOCK})), "a Job cannot have landlock, and a policy requires it"),
        (Confinement(limits=Limits(pids=5)), "nothing holds spec.resources.pids for a Job"),
        (Confinement(limits=Limits(file_bytes=5)), "spec.resources.fileSize"),
        (Confinement(limits=Limits(open_files=5)), "spec.resources.openFiles"),
        (Confinement(limits=Limits(disk_bytes_per_second=5)), "spec.resources.diskBytesPerSecond"),
        (Confinement(limits=Limits(network_bytes_per_second=5)), "spec.resources.networkBytesPerSecond"),
    ],
)
def test_what_a_job_cannot_give_is_refused(confinement: Confinement, told: str) -> None:
    with pytest.raises(SandboxUnavailable, match=told):
        enforcement_of(confinement, isolated=True)


def test_it_says_what_is_in_force() -> None:
    given = enforcement_of(REQUEST.confinement, isolated=True)
    assert given.layers == (Layer.NAMESPACES, Layer.SECCOMP, Layer.CGROUP)
    assert given.missing == (Layer.LANDLOCK, Layer.RLIMITS)
    assert given.enforced_by["network"] == "NetworkPolicy remit-network-none"
    assert enforcement_of(REQUEST.confinement, isolated=False).enforced_by["network"] == "not enforced"
    assert "network" not in enforcement_of(Confinement(network="host"), isolated=True).enforced_by


def test_folders_of_the_host_are_refused() -> None:
    mounts = (HostMount("/src", root="/srv", path="shop"),)
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, mounts=mounts))
    with pytest.raises(SandboxUnavailable, match="/src: a Job has no folders of the operator's host"):
        job(request, Secrets.of(request), LAUNCHER)


def test_more_than_a_secret_holds_is_refused_before_anything_is_made() -> None:
    request = replace(REQUEST, files={"/run/a": b"x" * MOST_PRIVATE_BYTES})
    with pytest.raises(InvalidInput, match="a Job takes 1048576"):
        Secrets.of(request)


def test_without_a_network_a_pod_neither_speaks_nor_hears() -> None:
    made = network_policy("data", "none")
    assert made["spec"] == {
        "podSelector": {"matchLabels": {"remit.dev/network": "none"}},
        "policyTypes": ["Ingress", "Egress"],
    }
    labels = job(REQUEST, Secrets.of(REQUEST), LAUNCHER)["spec"]["template"]["metadata"]["labels"]
    assert labels["remit.dev/network"] == "none"


def test_whoever_may_write_config_maps_has_no_say_in_what_runs() -> None:
    """A user could replace a ConfigMap between its creation and its mounting, and so get the secrets of the attempt."""
    assert "configMap" not in json.dumps(job(REQUEST, Secrets.of(REQUEST), LAUNCHER))


def test_another_program_has_another_secret(tmp_path: Any) -> None:
    assert LAUNCHER.name != Launcher("amd64", b"other").name != Launcher("arm64", b"other").name
    made = LAUNCHER.secret("data")
    assert made["immutable"] is True
    assert base64.b64decode(made["data"]["launch"]) == b"program"
    with pytest.raises(RemitError, match=r"launch-riscv64 \(No such file or directory\)"):
        Launcher.load(tmp_path, "riscv64")


def test_it_says_which_versions_of_secrets_it_was_given() -> None:
    versions = {"db": "uid/7"}
    made = job(replace(REQUEST, secret_versions=versions), Secrets.of(REQUEST), LAUNCHER)
    assert secret_versions_of(made) == versions
    for each in (None, {}, {"remit.dev/secret-versions": "[]"}, {"remit.dev/secret-versions": "{"}):
        assert secret_versions_of({"metadata": {"annotations": each}}) not in ({}, versions)


def test_what_is_kept_is_told_the_launcher_as_data() -> None:
    mounts = (EmptyMount("/workspace/scratch"), ClaimMount("/cache", "pip", 1 << 30))
    kept = (
        KeptFiles("/workspace/$(x)/*; rm", 5),
        KeptFiles("/workspace/scratch", 6, always=True),
        KeptFiles("/cache/a/**", 7),
    )
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, mounts=mounts), kept=kept)
    command = container(request)["command"]
    assert command[3 : command.index("--")] == [
        *("-P", "/workspace", "-m", "5", "-a", "$$(x)/*; rm"),
        *("-P", "/workspace/scratch", "-m", "6", "-A", ""),
        *("-P", "/cache", "-m", "7", "-a", "a/**"),
        *("-k", "5"),
    ]
    assert pod(request)["terminationGracePeriodSeconds"] > 5
    assert pod(replace(request, kept=kept[:1]))["terminationGracePeriodSeconds"] == 5
    other = replace(request, kept=tuple(replace(each, most_bytes=1) for each in kept), grace_seconds=9)
    assert runs(job(request, Secrets.of(request), LAUNCHER)) == runs(job(other, Secrets.of(other), LAUNCHER))


def test_an_artifact_is_mounted_from_secrets() -> None:
    files = tuple(MountedFile(f"dist/{number}", 500 << 10, executable=number == 1) for number in range(3))
    mounts = (
        FilesMount("/wheel", "wheel", "/nowhere", files),
        FilesMount("/one", "wheel", "/nowhere", files, "dist/1"),
    )
    stdin = FilesMount("", "wheel", "/nowhere", files, "dist/2")
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, mounts=mounts, stdin_volume=stdin))
    (volume,) = [each for each in pod(request)["volumes"] if "projected" in each]
    sources = [each["secret"] for each in volume["projected"]["sources"]]
    assert [each["name"] for each in sources] == [f"remit-uid-1-files-{number}" for number in range(3)]
    items = [(item["path"], item["mode"]) for each in sources for item in each["items"]]
    assert items == [("dist/0", 0o444), ("dist/1", 0o555), ("dist/2", 0o444)]
    found = [each for each in container(request)["volumeMounts"] if each["name"] == volume["name"]]
    assert all(each["readOnly"] for each in found)
    assert {each["mountPath"]: each["subPath"] for each in found} == {
        "/wheel": "..data",
        "/one": "..data/dist/1",
        "/run/remit/input": "..data",
    }
    assert container(request)["command"][3:7] == ["-I", "/run/remit/input", "-i", "dist/2"]


def test_a_workspace_that_is_only_read_from_is_mounted_for_the_launcher() -> None:
    stdin = ClaimMount("", "dumps", 1 << 20, "shop.sql")
    request = replace(REQUEST, confinement=replace(REQUEST.confinement, stdin_volume=stdin))
    assert list(claims(request)) == ["dumps"]
    (mount,) = [each for each in container(request)["volumeMounts"] if each["mountPath"] == "/run/remit/input"]
    assert mount["readOnly"] is True
