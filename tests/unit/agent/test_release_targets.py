"""Tests the targets of an agent: what is filled in, what each allows, and which are invalid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.agent.targets import release_targets
from remit.api.deployment import Deployment
from remit.errors import InvalidInput

SERVE = {"target": {"process": {"command": ["python3", "app.py", "--port=8080"]}}}
PLACE = {"artifact": {"path": "/srv/{name}/{version}"}}


def test_what_is_deployed_is_filled_in() -> None:
    targets = release_targets({"process": {**SERVE, **PLACE}, "docker": {"target": {"docker": {}}}})
    assert targets["process"].spec("app:v2").artifact.path == "/srv/app/v2"
    assert targets["process"].spec("v2").artifact.path == "/srv/v2/v2"
    assert targets["docker"].spec("registry.local/team/app:v2").artifact.image == "registry.local/team/app:v2"


def test_a_manifest_may_be_a_model_a_text_or_a_file(tmp_path: Path) -> None:
    body = {"metadata": {"name": "a"}, "spec": {**SERVE, **PLACE}}
    text = "spec:\n  artifact: {path: '/srv/{version}'}\n  target: {process: {command: [serve]}}\n"
    (tmp_path / "target.yaml").write_text(text)
    targets = release_targets({"model": Deployment.parse(body), "text": text, "file": tmp_path / "target.yaml"})
    assert [target.spec("app:v1").artifact.path for target in targets.values()] == [
        "/srv/app/v1",
        "/srv/v1",
        "/srv/v1",
    ]


def test_a_target_allows_itself_and_nothing_else() -> None:
    env = {"env": [{"name": "PYTHONPATH", "value": "/srv/lib"}]}
    allowed = release_targets({"t": {**SERVE, **PLACE, **env}})["t"].policy().spec
    (rule,) = allowed.commands.allow
    assert (rule.executable, rule.args) == ("python3", [r"app\.py", r"\-\-port=8080"])
    assert allowed.files.allow[0].paths == ["/srv/*/*"]
    assert (allowed.networks, allowed.environment.allow) == (["host"], ["PYTHONPATH"])


@pytest.mark.parametrize(("image", "allowed"), [("shop:{version}", ["shop:*"]), ("{artifact}", []), ("{name}:1", [])])
def test_only_an_image_that_the_target_names_is_allowed_by_it(image: str, allowed: list[str]) -> None:
    target = {"artifact": {"image": image}, "target": {"docker": {}}}
    assert release_targets({"t": target})["t"].policy().spec.images.allow == allowed


@pytest.mark.parametrize(
    "artifact", ["", " ", "../v1", "app:..", "a//b:v1", "app:v1 ", "-v", "app:{name}", "team/app:v1"]
)
def test_what_is_no_name_is_refused(artifact: str) -> None:
    with pytest.raises(InvalidInput, match="artifact"):
        release_targets({"t": {**SERVE, **PLACE}})["t"].spec(artifact)


@pytest.mark.parametrize(
    ("name", "manifest", "said"),
    [
        ("Production", {**SERVE, **PLACE}, "lower-case"),
        ("t", SERVE, "needs path or archive"),
        ("t", {**SERVE, "artifact": {"path": "/srv/app"}}, "says nowhere what is deployed"),
        ("t", {"target": {"docker": {}}, "artifact": {"path": "/srv/{version}"}}, "needs image"),
        ("t", {"target": {"kubernetes": {}}}, "needs an API server"),
        ("t", {"target": {"docker": {"tlsSecret": "s"}}}, "refers to an object of an API server"),
        ("t", {**SERVE, **PLACE, "secrets": [{"name": "s", "mountPath": "/s"}]}, "t.secrets: refers to an object"),
        ("t", {**SERVE, "artifact": {"path": ["/srv"]}}, "must be an object"),
        ("t", {**SERVE, **PLACE, "replica": 2}, "replica"),
        ("t", "a: 1\n---\nb: 2\n", "holds 2 documents"),
    ],
)
def test_what_cannot_be_a_target_says_why(name: str, manifest: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        release_targets({name: manifest})
