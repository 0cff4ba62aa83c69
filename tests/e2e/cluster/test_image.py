"""The image of the operator that the cluster is given."""

from __future__ import annotations

import shutil

from dockers import docker
from operatorimage import operator_image
from parts import require

MOST_BYTES = 200_000_000


def test_the_operators_image_is_small() -> None:
    """Uncompressed. What is built here has this machine's Python, and what the Dockerfile builds that of its base."""
    require("docker", shutil.which("strip"), "install binutils")
    inspected = docker("image", "inspect", "--format", "{{.Size}}", operator_image())
    assert inspected.returncode == 0, inspected.stderr
    assert int(inspected.stdout) < MOST_BYTES
