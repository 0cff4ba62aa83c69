"""Tests the image that the Dockerfile builds, from a base image that is made here."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from debianpython import python_base
from dockers import docker, remove_image
from e2e.cluster.test_image import MOST_BYTES

ROOT = Path(__file__).parents[3]
TAGS = ("remit-dockerfile:first", "remit-dockerfile:second")
pytestmark = pytest.mark.timeout(2400)


@pytest.fixture(scope="module")
def images() -> Iterator[tuple[str, str]]:
    """Builds the image twice, with nothing kept from one build for the other."""
    base = python_base()
    for tag in TAGS:
        options = ("--no-cache", "--network=host", f"--build-arg=PYTHON={base}", f"--tag={tag}")
        built = subprocess.run(
            ["docker", "build", *options, "."], cwd=ROOT, capture_output=True, text=True, timeout=1000
        )
        assert built.returncode == 0, f"{built.stdout[-3000:]}{built.stderr[-3000:]}"
    yield TAGS
    for tag in TAGS:
        remove_image(tag)


def test_two_builds_have_the_same_content(images: tuple[str, str]) -> None:
    first, second = (json.loads(docker("image", "inspect", image).stdout)[0] for image in images)
    assert first["RootFS"]["Layers"] == second["RootFS"]["Layers"]
    assert len(first["RootFS"]["Layers"]) == 1, "what a layer below has is in the image, also if it was removed"


def test_the_image_is_small_and_runs_as_an_ordinary_user(images: tuple[str, str]) -> None:
    inspected = json.loads(docker("image", "inspect", images[0]).stdout)[0]
    assert inspected["Size"] < MOST_BYTES
    assert inspected["Config"]["User"] == "10001:10001"
    ran = docker("run", "--rm", "--read-only", "--network=none", "--cap-drop=ALL", images[0], "--version")
    assert ran.returncode == 0, ran.stderr
