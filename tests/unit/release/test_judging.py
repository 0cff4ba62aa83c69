"""Tests policy decisions on Deployments: where they release to, and what they run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.execution.admission import Admission, PolicySet
from remit.policy.compile import compile_policy
from remit.policy.deciding import decide
from remit.policy.request import Installation, PolicyRequest, ReleasePlace
from remit.policy.suggestion import Run, suggest
from remit.release.judging import Judge, requests
from remit.release.model import SpecProblem
from remit.release.target import Material

HERE = Admission(performed=frozenset({"file", "http"}))
RUN = {"containers": {"operations": ["run"]}, "images": {"allow": ["shop:*"]}}


def problem(
    target: dict[str, Any],
    *policies: dict[str, Any],
    ceiling: dict[str, Any] | None = None,
    engine: str = "unix:///var/run/docker.sock",
    files: tuple[str, ...] = (),
    archive: str = "",
    admission: Admission = HERE,
    **changes: Any,
) -> SpecProblem | None:
    metadata = {"name": "shop", "namespace": "team", "uid": "u"}
    spec = {"artifact": {"image": "shop:v1"}, "target": target, **changes}
    if "process" in target:
        spec["artifact"] = {"archive": archive, "sha256": "0" * 64} if archive else {"path": "/srv/shop"}
    own = [CommandPolicy.parse({"metadata": {"name": "p", "namespace": "team"}, "spec": each}) for each in policies]
    known = {"team": [compile_policy(each) for each in own]}
    if ceiling is not None:
        above = CommandPolicy.parse({"metadata": {"name": "top", "namespace": "remit-system"}, "spec": ceiling})
        known["remit-system"] = [compile_policy(above)]
    judge = Judge(admission, lambda: PolicySet(known, "remit-system"), engine)
    return judge.problem(
        Deployment.parse({"metadata": metadata, "spec": spec}), Material(files=dict.fromkeys(files, b""))
    )


def test_without_a_policy_nothing_is_allowed():
    assert problem({"docker": {}}).reason == "NoPolicy"
    assert problem({"docker": {}}, {}).reason == "OperationNotAllowed"


@pytest.mark.parametrize("backends", [None, ["kubernetes"], ["process"], ["process", "kubernetes"]])
def test_processes_go_live_only_where_the_operator_runs_processes(backends: list[str] | None):
    """This holds whatever its default backend is and whatever policies allow: a process is not a Job."""
    policy: dict[str, Any] = {
        "commands": {"allow": [{"executable": "sleep", "args": ["9"]}]},
        "http": {"allow": [{"hosts": ["files.example"]}]},
        "files": {"allow": [{"paths": ["/srv/shop"], "operations": ["read"]}]},
        "networks": ["none", "host"],
    }
    asked = [{"process": {"command": ["sleep", "9"]}}, policy | ({"backends": backends} if backends else {})]
    jobs = Installation(backend="kubernetes", image="busybox:1")
    in_a_pod = Admission(performed=frozenset({"http"}), backends=frozenset({"kubernetes"}), installation=jobs)
    found = problem(*asked, archive="https://files.example/shop.tar", admission=in_a_pod)
    assert found is not None
    assert found.reason == "NotSupported"
    assert found.message == "this operator has no backend process; use kubernetes"
    both = replace(HERE, backends=frozenset({"kubernetes", "process"}), installation=jobs)
    found = problem(*asked, admission=both)
    assert (found and found.reason) == (None if "process" in (backends or []) else "BackendNotAllowed")


def test_the_image_and_the_command_are_judged():
    assert problem({"docker": {}}, RUN) is None
    assert problem({"docker": {}}, RUN | {"images": {"allow": ["other:*"]}}).reason == "ImageNotAllowed"
    assert problem({"docker": {"command": ["/serve"]}}, RUN).reason == "NotAllowed"
    serve = {"commands": {"allow": [{"executable": "/serve", "args": []}]}}
    assert problem({"docker": {"command": ["/serve"]}}, RUN | serve) is None


@pytest.mark.parametrize("field", ["healthCheck", "livenessCheck"])
@pytest.mark.parametrize("kind", ["process", "docker", "kubernetes"])
def test_a_command_that_checks_is_judged_wherever_it_runs(kind: str, field: str):
    target = {kind: {"command": ["sleep", "9"]}}
    serve = {"executable": "sleep", "args": ["9"]}
    rules = RUN | {"networks": ["none", "host"], "files": {"allow": [{"paths": ["/srv/*"], "operations": ["read"]}]}}
    check = {field: {"command": {"argv": ["ls", "/tmp"]}}}
    denied = problem(target, rules | {"commands": {"allow": [serve]}}, **check)
    assert denied is not None
    assert (denied.reason, "ls" in denied.message) == ("NotAllowed", True)
    both = {"commands": {"allow": [serve, {"executable": "ls", "args": ["/tmp"]}]}}
    assert problem(target, rules | both, **check) is None


@pytest.mark.parametrize(
    ("target", "field", "glob"),
    [
        ({"docker": {"host": "ssh://deploy@10.0.0.5"}}, "engines", "ssh://deploy@10.0.0.*"),
        ({"docker": {"host": "unix:///run/user/1000/docker.sock"}}, "engines", "unix:///run/user/1000/docker.sock"),
        ({"kubernetes": {"namespace": "kube-system"}}, "namespaces", "kube-*"),
        ({"kubernetes": {"serviceAccountName": "admin"}}, "serviceAccounts", "admin"),
    ],
)
def test_a_place_that_is_not_its_own_must_be_named(target: dict[str, Any], field: str, glob: str):
    denied = problem(target, RUN)
    assert denied is not None
    assert denied.reason == "NotAllowed"
    assert f"spec.releases.{field} has no entry" in denied.message
    named = RUN | {"releases": {field: [glob]}}
    assert problem(target, named) is None
    assert problem(target, RUN | {"releases": {field: ["other"]}}) is not None
    assert problem(target, named, ceiling=RUN) is not None
    assert problem(target, named, ceiling=named) is None


@pytest.mark.parametrize(
    ("target", "changes"),
    [
        ({"docker": {"host": "ssh://deploy@10.0.0.5", "command": ["serve"]}}, {}),
        ({"kubernetes": {"namespace": "kube-system", "serviceAccountName": "admin"}}, {}),
        ({"process": {"command": ["serve", "x"]}}, {"healthCheck": {"command": {"argv": ["look"]}}}),
        ({"process": {"command": ["serve", "x"]}}, {"archive": "https://artifacts.example/shop.tar"}),
    ],
)
def test_what_is_suggested_for_a_release_allows_it_and_no_other(target: dict[str, Any], changes: dict[str, Any]):
    archive = changes.pop("archive", "")
    artifact = {"archive": archive, "sha256": "0" * 64} if archive else {"path": "/srv/shop"}
    spec = {"artifact": artifact if "process" in target else {"image": "shop:v1"}, "target": target, **changes}
    deployment = Deployment.parse({"metadata": {"name": "shop", "namespace": "team", "uid": "u"}, "spec": spec})
    asked = requests(deployment, Material())
    found = suggest([Run(name="Deployment shop", request=each) for each in asked], "team", ())
    assert not found.left_out
    given = [each.spec for each in found.policies]
    assert decided_each(asked, given)
    assert not decided_each([replace(each, labels={}, namespace="other") for each in asked], given)
    elsewhere = ReleasePlace(engine="ssh://deploy@10.0.0.6", namespace="other")
    assert not any(
        decided_each([replace(each, place=elsewhere)], given) for each in asked if each.operation == "container"
    )


def decided_each(asked: list[PolicyRequest], specs: list[dict[str, Any]]) -> bool:
    own = [
        compile_policy(CommandPolicy.parse({"metadata": {"name": f"p{number}", "namespace": "team"}, "spec": spec}))
        for number, spec in enumerate(specs)
    ]
    return all(decide(each, own).allowed for each in asked)


def test_the_operators_own_engine_alone_needs_no_leave():
    rootless = "unix:///run/user/1000/docker.sock"
    assert problem({"docker": {"host": rootless}}, RUN, engine=rootless) is None
    assert problem({"docker": {}}, RUN, engine=rootless).reason == "NotAllowed"
    assert problem({"docker": {}}, RUN, engine="off").reason == "NotAllowed"


def test_its_own_namespace_is_its_own():
    assert problem({"kubernetes": {}}, RUN) is None
    assert problem({"kubernetes": {"namespace": "team"}}, RUN) is None


def test_an_archive_at_an_ambiguous_address_is_a_mistake_of_the_spec():
    rules = {
        "http": {"allow": [{"hosts": ["artifacts.example"], "paths": ["/shop/**"]}]},
        "commands": {"allow": [{"executable": "serve"}]},
        "networks": ["none", "host"],
    }
    for address, reason in (
        ("https://artifacts.example/other/v1.tar", "NotAllowed"),
        ("https://artifacts.example/shop/../other/v1.tar", "InvalidRequest"),
    ):
        found = problem({"process": {"command": ["serve"]}}, rules, archive=address)
        assert found is not None
        assert (found.reason, found.retryable) == (reason, reason == "NotAllowed")
    assert found.message.startswith("spec.artifact.archive: the path has a dot segment")


def test_a_file_that_no_process_can_have_there_is_reported_in_the_words_of_a_deployment():
    found = problem({"process": {"command": ["serve"]}}, files=("/etc/shop/colour", "/run/shop/key"))
    assert found is not None
    assert (found.reason, found.retryable) == ("InvalidSpec", False)
    assert "/etc/shop/colour cannot be there" in found.message
