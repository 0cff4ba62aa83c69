"""Tests which files a task may have and leave: only what a policy lists."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from tests.policies import allowing

from remit.api.executiontask import ExecutionTask
from remit.api.volumes import Artifact, WorkspaceVolume
from remit.errors import InvalidInput
from remit.policy.deciding import Decision, decide
from remit.policy.match import Command
from remit.policy.request import PolicyRequest, request_for
from remit.policy.testing import parse_policies, parse_suite, run_cases
from remit.policy.verdict import Reason
from remit.policy.volumes import HostPathTerms, artifact_bytes, host_path_terms, workspace_bytes

PATHS = {"hostPaths": [{"paths": ["/srv/projects/*"], "access": ["ReadOnly", "ReadWrite"]}]}


def asked(source: dict[str, Any], access: str = "ReadOnly", mount_path: str = "/src", **spec: Any) -> PolicyRequest:
    """Returns the request of a task that mounts one volume."""
    volumes = {"volumes": [{"name": "v", **source}]}
    mounts = {"volumeMounts": [{"name": "v", "mountPath": mount_path, "access": access}]}
    task = {"command": {"argv": ["ls"]}, **(volumes | mounts if source else {}), **spec}
    parsed = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": task})
    return request_for(parsed, Command(("ls",), "/usr/bin/ls", "/usr/bin/ls"))


def decided(
    request: PolicyRequest, volumes: dict[str, Any], ceiling: dict[str, Any] | None = None, **spec: Any
) -> Decision:
    ceilings = [] if ceiling is None else [allowing("ls", namespace="remit-system", volumes=ceiling)]
    return decide(request, [allowing("ls", volumes=volumes, **spec)], ceilings)


def host_path(path: str) -> dict[str, Any]:
    return {"hostPath": {"path": path}}


@pytest.mark.parametrize(
    "source",
    [host_path("/srv/projects/shop"), {"workspace": {"name": "cache"}}, {"artifact": {"task": "a", "name": "wheel"}}],
)
def test_nothing_is_mounted_by_default(source: dict[str, Any]) -> None:
    decision = decided(asked(source), {})
    assert not decision.allowed
    assert decision.reason in {Reason.VOLUME_NOT_ALLOWED, Reason.ARTIFACT_NOT_ALLOWED}


def test_an_access_is_allowed_by_its_name_alone() -> None:
    reading = {"hostPaths": [{"paths": ["/srv/projects/*"]}]}
    writing = {"hostPaths": [{"paths": ["/srv/projects/*"], "access": ["ReadWrite"]}]}
    assert decided(asked(host_path("/srv/projects/shop")), reading).allowed
    assert not decided(asked(host_path("/srv/projects/shop"), "ReadWrite"), reading).allowed
    assert not decided(asked(host_path("/srv/projects/shop")), writing).allowed
    assert decided(asked(host_path("/srv/projects/shop"), "ReadWrite"), writing).allowed


@pytest.mark.parametrize("path", ["/srv/projects", "/srv/projects/a/b", "/srv/projects2", "/srv/Projects/a", "/srv"])
def test_globs_stay_within_one_folder(path: str) -> None:
    assert not decided(asked(host_path(path)), PATHS).allowed


def test_a_ceiling_has_to_allow_it_too() -> None:
    request = asked(host_path("/srv/projects/shop"))
    assert decided(request, PATHS, {}).reason is Reason.CEILING_EXCEEDED
    assert decided(request, PATHS, PATHS).allowed
    assert not decided(request, {}, PATHS).allowed  # a ceiling grants nothing


@pytest.mark.parametrize(
    "path", ["/proc/1", "/proc", "/sys/fs", "/dev", "/dev/sda", "/run/docker.sock", "/var/run/docker.sock", "/run"]
)
def test_the_kernel_s_trees_and_sockets_are_never_mounted(path: str) -> None:
    everything = {"hostPaths": [{"paths": ["/**"], "access": ["ReadOnly", "ReadWrite"]}]}
    decision = decided(asked(host_path(path)), everything)
    assert decision.reason is Reason.INVALID_REQUEST
    assert "spec.volumes[0].hostPath.path: nothing in " in decision.message


def test_what_cannot_be_seen_is_refused() -> None:
    everything = {"hostPaths": [{"paths": ["/**"]}]}
    assert "column" in decided(asked(host_path("/srv/a\u202e")), everything).message
    assert "mountPath has" in decided(asked(host_path("/srv/a"), mount_path="/a\u200b"), everything).message


def test_workspaces_go_by_name_and_size() -> None:
    volumes = {"workspaces": [{"names": ["pip-*"], "maxSize": "2Gi"}]}
    assert decided(asked({"workspace": {"name": "pip-cache"}}, "ReadWrite"), volumes).allowed
    assert decided(asked({"workspace": {"name": "pip-cache", "size": "2Gi"}}), volumes).allowed
    too_large = decided(asked({"workspace": {"name": "pip-cache", "size": "3Gi"}}), volumes)
    assert too_large.reason is Reason.VOLUME_NOT_ALLOWED
    assert "only of 2Gi" in too_large.message
    assert not decided(asked({"workspace": {"name": "npm-cache"}}), volumes).allowed


def test_artifacts_go_by_size_and_retention() -> None:
    def leaving(**artifact: Any) -> PolicyRequest:
        return asked({}, artifacts=[{"name": "wheel", "path": "dist/*.whl", **artifact}])

    allowed = {"artifacts": {"maxBytes": "1Gi", "maxRetainSeconds": 60}}
    assert decided(leaving(), {"artifacts": {}}).allowed
    assert not decided(leaving(), {}).allowed
    assert decided(leaving(), {"artifacts": {"maxBytes": "1Ki"}}).allowed
    assert decided(leaving(maxBytes="1Gi", retainSeconds=60), allowed).allowed
    assert not decided(leaving(maxBytes="1025Mi"), allowed).allowed
    assert not decided(leaving(retainSeconds=61), allowed).allowed


def test_an_empty_folder_falls_under_the_limit_of_the_disk() -> None:
    limits = {"disk": {"max": "64Mi"}}
    assert decided(asked({"emptyDir": {"sizeLimit": "64Mi"}}), {}, limits=limits).allowed
    assert decided(asked({"emptyDir": {"sizeLimit": "65Mi"}}), {}, limits=limits).reason is Reason.LIMIT_EXCEEDED
    assert decided(asked({"emptyDir": {}}), {}, limits=limits).allowed


def test_configuration_is_mounted_where_private_files_may_be() -> None:
    for source in ({"configMap": {"name": "c"}}, {"secret": {"secretName": "s"}}):
        assert decided(asked(source, mount_path="/run/private/app"), {}).allowed
        elsewhere = asked(source, mount_path="/etc/app")
        assert decided(elsewhere, {}).reason is Reason.PRIVATE_FILE_NOT_ALLOWED
        assert decided(elsewhere, {}, privateFiles={"allow": ["/etc/app"]}).allowed


def test_a_mounted_folder_can_be_the_working_directory() -> None:
    def working(path: str) -> Reason:
        return decided(asked(host_path("/srv/projects/shop"), workingDir=path), PATHS).reason

    assert working("/src") is working("/src/app") is working("/workspace") is Reason.ALLOWED
    assert working("/srcs") is working("/tmp") is Reason.WORKING_DIR_NOT_ALLOWED


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (asked(host_path("/srv/projects/shop"), "ReadWrite"), "hostPaths"),
        (asked({"workspace": {"name": "cache", "size": "2Gi"}}), "workspaces"),
        (asked({}, artifacts=[{"name": "a", "path": "x", "maxBytes": "2Gi", "retainSeconds": 5}]), "artifacts"),
    ],
)
def test_a_denial_has_the_line_that_allows_it(request_: PolicyRequest, field: str) -> None:
    message = decided(request_, {"artifacts": {"maxBytes": "1Mi"}}).message
    line = re.search("`(.*)`", message)
    assert line is not None, message
    written = yaml.safe_load(line[1])
    assert decided(request_, written["volumes"] if field == "artifacts" else {field: [written]}).allowed


def test_the_deepest_root_of_all_policies_holds() -> None:
    own = allowing("ls", volumes={"hostPaths": [{"paths": ["/srv/projects/**"], "access": ["ReadOnly", "ReadWrite"]}]})
    ceiling = allowing("ls", namespace="remit-system", volumes={"hostPaths": [{"paths": ["/srv/**"], "runAsUser": 7}]})
    narrow = allowing("ls", volumes={"hostPaths": [{"paths": ["/srv/projects/shop/**"], "runAsUser": 8}]})
    path = "/srv/projects/shop"
    assert host_path_terms([own], path, "ReadWrite") == HostPathTerms("/srv/projects", None)
    assert host_path_terms([own, ceiling], path, "ReadOnly") == HostPathTerms("/srv/projects", 7)
    assert host_path_terms([], path, "ReadOnly") == HostPathTerms(path, None)
    with pytest.raises(InvalidInput, match="let policies agree on runAsUser"):
        host_path_terms([narrow, ceiling], path, "ReadOnly")


@pytest.mark.parametrize("glob", ["/srv/*/src", "/srv/*/src/**", "/srv/shop/*", "/srv/shop/src", "/srv/sho?/**"])
def test_no_link_leads_to_what_the_rule_does_not_allow(glob: str) -> None:
    """If the owner of the shop replaces `/srv/shop/src` by a link to `../other/private`, the path stays below
    `/srv`."""
    policy = allowing("ls", volumes={"hostPaths": [{"paths": [glob]}]})
    assert host_path_terms([policy], "/srv/shop/src", "ReadOnly").root == "/srv/shop/src"


def test_the_size_of_a_workspace_is_what_every_policy_grants() -> None:
    sizes = [allowing("ls", volumes={"workspaces": [{"names": ["*"], "maxSize": size}]}) for size in ("2Gi", "1Mi")]
    assert workspace_bytes(sizes, WorkspaceVolume(name="w")) == 2**20
    assert workspace_bytes(sizes[:1], WorkspaceVolume(name="w")) == 2 * 2**30
    assert workspace_bytes(sizes, WorkspaceVolume(name="w", size="1Ki")) == 1024
    assert workspace_bytes([], WorkspaceVolume(name="w")) == 2**30


def test_an_artifact_that_says_no_size_gets_what_every_policy_grants() -> None:
    policies = [allowing("ls", volumes={"artifacts": {"maxBytes": size}}) for size in ("2Mi", "1Mi")]
    assert artifact_bytes(policies, Artifact(name="a", path="x")) == 2**20
    assert artifact_bytes(policies, Artifact(name="a", path="x", max_bytes="1Ki")) == 1024
    assert artifact_bytes([], Artifact(name="a", path="x")) == 100 * 2**20


def reading(source: dict[str, Any], path: str = "dump.sql", **spec: Any) -> PolicyRequest:
    """Returns the request of a task with a file of a volume as its standard input."""
    volumes = {"volumes": [{"name": "v", **source}], "stdinFrom": {"volume": {"name": "v", "path": path}}}
    task = {"command": {"argv": ["ls"]}, **volumes, **spec}
    parsed = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": task})
    return request_for(parsed, Command(("ls",), "/usr/bin/ls", "/usr/bin/ls"))


def test_a_file_for_standard_input_is_judged_as_its_volume_to_be_read() -> None:
    shop = host_path("/srv/projects/shop")
    assert not decided(reading(shop), {}).allowed
    assert decided(reading(shop), {"hostPaths": [{"paths": ["/srv/projects/*"]}]}).allowed
    assert not decided(reading(host_path("/srv/other")), PATHS).allowed
    assert not decided(reading({"workspace": {"name": "cache"}}), PATHS).allowed
    assert not decided(reading({"artifact": {"task": "build", "name": "dump"}}), PATHS).allowed
    assert decided(reading({"artifact": {"task": "build", "name": "dump"}}), {"artifacts": {}}).allowed
    assert decided(reading(host_path("/proc/1")), {"hostPaths": [{"paths": ["/**"]}]}).reason is Reason.INVALID_REQUEST
    assert "stdinFrom.volume.path has" in decided(reading(shop, "a\u202eb"), PATHS).message


def test_to_write_to_the_volume_is_not_to_read_it() -> None:
    """An allowed mount of the volume does not allow it."""
    writing = {"hostPaths": [{"paths": ["/srv/projects/*"], "access": ["ReadWrite"]}]}
    mounts = [{"name": "v", "mountPath": "/src", "access": "ReadWrite"}]
    request = reading(host_path("/srv/projects/shop"), volumeMounts=mounts)
    assert "mounted ReadOnly" in decided(request, writing).message
    assert decided(request, PATHS).allowed


def test_a_case_of_policy_test_has_it_too() -> None:
    policy = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: p}
spec:
  commands: {allow: [{executable: ls}]}
  volumes: {hostPaths: [{paths: ['/srv/*'], access: [ReadWrite]}]}
"""
    suite = """
policies: [policy.yaml]
cases:
- name: read
  argv: [ls]
  volumes: [{name: v, hostPath: {path: /srv/shop}}]
  volumeMounts: [{name: v, mountPath: /src, access: ReadWrite}]
  stdinFrom: {volume: {name: v, path: dump.sql}}
  expect: {decision: Denied, reason: VolumeNotAllowed}
- name: write
  argv: [ls]
  volumes: [{name: v, hostPath: {path: /srv/shop}}]
  volumeMounts: [{name: v, mountPath: /src, access: ReadWrite}]
  expect: {decision: Allowed}
"""
    assert [list(result.mismatches) for result in run_cases(parse_suite(suite), parse_policies(policy))] == [[], []]
