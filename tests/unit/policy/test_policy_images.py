"""Tests that a glob over image references matches only the registry that it names."""

from __future__ import annotations

import pytest

from policies import policy
from remit.policy.images import ImagePattern


@pytest.mark.parametrize(
    ("glob", "image", "matches"),
    [
        ("shop:*", "shop:v1", True),
        ("shop:*", "shop:v1@sha256:0", True),
        ("shop:*", "shop:5000/evil/image:v1", False),
        ("python*", "python:3.13", True),
        ("python*", "python-slim:3", True),
        ("python*", "python.evil.invalid/x", False),
        ("python*", "pythonevil/x", False),
        ("team/*", "team/shop:v1", True),
        ("team/*", "team/a/b@sha256:0", True),
        ("te*/shop:*", "team/shop:v1", True),
        ("te*/shop:*", "te.evil.invalid/shop:v1", False),
        ("te*/shop:*", "te.evil.invalid/x/shop:v1", False),
        ("registry.example/*@sha256:*", "registry.example/team/shop@sha256:0", True),
        ("registry.example/*@sha256:*", "registry.example/team/shop:v1@sha256:0", True),
        ("registry.example/*@sha256:*", "Registry.Example/shop@sha256:0", True),
        ("registry.example/*@sha256:*", "registry.example/shop:v1", False),
        ("registry.example/*", "registry.example:5000/shop", False),
        ("registry.example/*", "registry.example.evil.invalid/shop", False),
        ("registry.example:5000/*", "registry.example:5000/shop", True),
        ("registry.example:*/*", "registry.example:5000/shop", True),
        ("registry.example:*/*", "registry.example/shop", True),
        ("*.corp.example/team/*", "a.b.corp.example/team/shop", True),
        ("*.corp.example/team/*", "evil.invalid/x.corp.example/team/shop", False),
        ("*.corp.example/team/*", "corp.example/team/shop", False),
        ("10.0.0.*:5000/*", "10.0.0.7:5000/shop", True),
        ("10.0.0.*:5000/*", "10.0.0.7.evil.invalid:5000/shop", False),
        ("127.0.0.1:5000/*", "0x7f.1:5000/shop", False),
        ("localhost/*", "localhost/shop", True),
        ("localhost:*/*", "localhost:5000/shop", True),
        ("*", "anything.invalid:1/at/all:v1@sha256:0", True),
        ("*@sha256:*", "registry.example/shop@sha256:0", True),
        ("*@sha256:*", "registry.example/shop:v1", False),
        ("*/shop:*", "registry.example/shop:v1", True),
    ],
)
def test_which_images_a_glob_is_about(glob: str, image: str, matches: bool) -> None:
    assert policy(images={"allow": [glob]}).ready
    assert ImagePattern.parse(glob).matches(image) is matches


@pytest.mark.parametrize(
    "glob", ["registry*.example/shop", "registry.*/shop", "10.0.0.1*:5000/*", "registry.example:50*/x"]
)
def test_a_wildcard_within_a_registrys_name_is_a_mistake(glob: str) -> None:
    assert [problem.field for problem in policy(images={"allow": ["shop", glob]}).problems] == ["spec.images.allow[1]"]
