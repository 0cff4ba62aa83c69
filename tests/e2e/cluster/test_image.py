"""Tests the image of the operator that the cluster uses."""

from __future__ import annotations

import shutil

from dockers import docker
from operatorimage import operator_image
from parts import require

MOST_BYTES = 200_000_000


def test_the_operators_image_is_small() -> None:
    """The size is uncompressed. The image that is built here contains this machine's Python, and that of the Dockerfile
    the Python of its base image."""
    require("docker", shutil.which("strip"), "install binutils")
    inspected = docker("image", "inspect", "--format", "{{.Size}}", operator_image())
    assert inspected.returncode == 0, inspected.stderr
    assert int(inspected.stdout) < MOST_BYTES
