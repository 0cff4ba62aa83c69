"""Tests that frequent commands do not import modules that they do not need, which took most of their time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from remit.controlplane.certificates import ensure_tls
from remit.controlplane.kubeconfig import write_kubeconfig
from remitup import environment

NOT_NEEDED: Final = {
    "kubernetes": "a static login is read without the official client",
    "kopf": "it is the operator's",
    "prometheus_client": "a command has no metrics",
    "docker": "it is the backend's",
    "requests": "commands talk to API servers by aiohttp",
    "httpx": "it is for tasks",
    "click": "typer has its own",
    "typer._adapters": "see remit.cli.usage.Conversion",
    "jinja2": "it is the page's",
    "textual": "it is for remit top",
    "psutil": "it is the operator's",
    "cel": "it is the control plane's",
    "remit.controllers": "the operator's",
    "remit.controlplane": "the control plane's",
    "remit.web": "the page's",
    "remit.policy.compile": "policies are the operator's to judge by",
    "remit.release.driver": "releases are the operator's to drive",
    "remit.api.deployment": "it is for Deployments",
    "remit.api.commandpolicy": "it is for policies",
}
"""Modules, and why they are not needed."""
NO_MODELS: Final = {
    "pydantic": "rows are read from objects as they are, and parameters are converted without it",
    "remit.api.base": "it has the models",
}
COMMANDS: Final[dict[str, tuple[list[str], dict[str, str]]]] = {
    "version": (["--version"], NOT_NEEDED | NO_MODELS | {"aiohttp": "nobody is asked", "rich": "nothing is drawn"}),
    "get": (["get"], NOT_NEEDED | NO_MODELS),
    "logs": (["logs", "a-task"], NOT_NEEDED | {"rich": "nothing is drawn"}),
    "run": (["run", "--", "true"], NOT_NEEDED | {"rich": "nothing is drawn"}),
}
PROGRAM: Final = """
import sys
from remit.cli.app import app
try:
    app(sys.argv[1:], prog_name="remit")
except BaseException as error:
    print(type(error).__name__, error)
print(*sys.modules)
"""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_imports_only_what_it_needs(name: str, tmp_path: Path) -> None:
    """The command runs up to its request, which is not answered; only the code for the response may import more."""
    path = tmp_path / "kubeconfig"
    write_kubeconfig(path, "https://127.0.0.1:1", ensure_tls(tmp_path, ["127.0.0.1"]).authority, "t0ken")
    command, unwanted = COMMANDS[name]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *command],
        env=environment(KUBECONFIG=str(path)),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said, imported = done.stdout.splitlines()[0], set(done.stdout.splitlines()[-1].split())
    assert "remit.cli.app" in imported
    if name != "version":
        assert "remit.kube.client" in imported
        assert "127.0.0.1:1 does not answer" in said + done.stderr
    assert {module: unwanted[module] for module in sorted(unwanted.keys() & imported)} == {}
