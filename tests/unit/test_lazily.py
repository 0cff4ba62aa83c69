"""Tests packages that import their contents on first use, and processes that import little."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from remit.cli.supervisor.service import ROLES
from remit.lazily import without
from remitup import environment

SOURCE = Path(__file__).parents[2] / "operator"
PACKAGES = sorted(
    ".".join(path.parent.relative_to(SOURCE).parts)
    for path in SOURCE.glob("remit/**/__init__.py")
    if "lazily(__name__" in path.read_text()
)
HEAVY = {"aiohttp", "h11", "kubernetes", "prometheus_client", "pydantic", "rich", "structlog"}


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_all_that_it_names_and_nothing_else(package: str) -> None:
    module = importlib.import_module(package)
    for name in module.__all__:
        assert getattr(module, name) is not None
        assert importlib.util.find_spec(f"{package}.{name}") is None, "which would stand for the name"
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


def test_a_supervisor_imports_little() -> None:
    """There is a supervisor for each instance, so every unneeded import costs memory and time as often."""
    supervisor = "remit.operations.process.supervisor"
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import {supervisor}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert HEAVY & set(done.stdout.split()) == set()


@pytest.mark.parametrize("role", ROLES)
def test_the_processes_of_remit_up_import_nothing_that_draws(role: str) -> None:
    """Libraries import these modules if they are installed, and Remit's processes never use them."""
    program = (
        "import socket, sys; from remit.cli.supervisor.service import run; mine, theirs = socket.socketpair();"
        f" mine.close(); assert run({role!r}, theirs.detach()) == 0; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True, check=True, timeout=60
    )
    imported = set(done.stdout.split())
    assert {"structlog", ROLES[role]} <= imported
    assert {"click", "pygments", "rich"} & imported == set()


def test_a_package_is_missing_only_within_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)  # another test may have imported it
    with without("colorsys", "json"):
        with pytest.raises(ModuleNotFoundError):
            importlib.import_module("colorsys")
        assert importlib.import_module("json") is json, "it was there"
    assert importlib.import_module("colorsys")
