"""The external programs that tests need: which of them are available, and which tests are skipped otherwise."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Part:
    """An external program. `name` is its name in REMIT_REQUIRE, and `uses` describes the tests that need it."""

    name: str
    uses: str
    found: Callable[[], object]


def report() -> Iterator[str]:
    """Yields one line of at most 80 columns for each part."""
    required = os.environ.get("REMIT_REQUIRE", "").split(",") if os.environ.get("CI") == "true" else []
    for part in PARTS:
        lacking = "which must not be" if part.name in required else f"skipping {part.uses}"
        yield f"  {part.name:<15} {'here' if part.found() else f'missing, {lacking}'}"


def require(part: str, found: object, how: str) -> None:
    """Skips the test if an external part is missing, with a message on how to get it.

    If CI=true and REMIT_REQUIRE names the part (separated by commas), a missing part is a failure instead, because a
    test that silently stops running tests nothing.
    """
    if found:
        return
    message = f"{part} is missing: {how}"
    if os.environ.get("CI") == "true" and part in os.environ.get("REMIT_REQUIRE", "").split(","):
        pytest.fail(message, pytrace=False)
    pytest.skip(message)


def kubectl() -> str | None:
    """Returns the newest kubectl: that of the wheel, or else the first one on PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("kubectl", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))


def promtool() -> str | None:
    """Returns the path of promtool, which is in Debian's package prometheus."""
    return shutil.which("promtool")


def prometheus() -> str | None:
    return shutil.which("prometheus")


def alertmanager() -> str | None:
    """Returns the path of Alertmanager, under its name in Debian or in the project."""
    return shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")


def chromium() -> str | None:
    """Returns the path of Chromium, under its name in Debian."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def _layer(name: str) -> bool:
    from remit.sandbox import Layer, probe_host

    return probe_host().abilities[Layer(name)].available


def _kube_apiserver() -> bool:
    from conformance.harness.servers import real_server_available

    return real_server_available()


def static_cc() -> bool:
    """Returns whether a C compiler and the libraries for static programs are available."""
    if not (cc := shutil.which("cc")):
        return False
    library = subprocess.check_output([cc, "-print-file-name=libc.a"], text=True, timeout=20).strip()
    return Path(library).is_absolute()


def _docker() -> bool:
    return bool(shutil.which("docker")) and _succeeds("docker", "version")


def _succeeds(*argv: str) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, timeout=20).returncode == 0
    except subprocess.TimeoutExpired:
        return False


PARTS = (
    Part("bwrap", "what runs tasks: most tests", lambda: _layer("namespaces")),
    Part("cgroup", "limits that cgroups hold", lambda: _layer("cgroup")),
    Part("landlock", "tasks without namespaces", lambda: _layer("landlock")),
    Part("kubectl", "what users do with kubectl", kubectl),
    Part("kube-apiserver", "comparisons with a real API server", _kube_apiserver),
    Part("docker", "tasks and releases in containers", _docker),
    Part("cluster", "releases to Kubernetes, and the chart", lambda: os.environ.get("REMIT_TEST_KUBECONFIG")),
    Part("audit-log", "what the chart permits", lambda: os.environ.get("REMIT_TEST_AUDIT_LOG")),
    Part("cc", "the program that Jobs start with", static_cc),
    Part("prometheus", "metrics, alerts and the dashboard", promtool),
    Part("alertmanager", "notifications to an Alertmanager", alertmanager),
    Part("chromium", "the page in a browser", chromium),
    Part("swift", "artifacts in object storage", lambda: importlib.util.find_spec("swift")),
    Part("history", "upgrades from the version before", lambda: (Path(__file__).parents[1] / ".git").exists()),
    Part("helm", "the chart and the manifests", lambda: importlib.util.find_spec("helm_python")),
)
