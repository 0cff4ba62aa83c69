"""`remit doctor`: what this machine can give."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from remit.cli import options


def doctor(
    programs: Annotated[
        list[str] | None, typer.Argument(metavar="PROGRAM", help="Programs that tasks are to run, such as node.")
    ] = None,
    state_dir: options.StateDir = None,
    docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST,
    read_only_path: options.ReadOnlyPaths = None,
    artifact_store: options.ArtifactStore = "",
    s3_endpoint: options.S3Endpoint = "",
    s3_region: options.S3Region = "",
    s3_ca_file: options.S3CaFile = None,
    s3_credentials: options.S3Credentials = None,
    output: options.Output = options.TableForm.TABLE,
) -> None:
    """Show what walls this machine can put around a task, and what would give the missing ones.

    With PROGRAMs, also whether sandboxes find these; with --artifact-store, whether artifacts can be kept there. Exits
    with 1 when no task could run here, one of these is not found, or the store cannot be used.
    """
    from remit.cli import health

    where = options.artifact_store(artifact_store, s3_endpoint, s3_region, s3_ca_file, s3_credentials)
    readable = [str(path) for path in read_only_path or ()]
    findings = [*health.findings(state_dir, docker_host), *(health.program(name, readable) for name in programs or ())]
    if where is not None:
        findings.append(health.artifact_store(where))
    if output is options.TableForm.JSON:
        typer.echo(json.dumps(health.document(findings, health.held_by()), indent=2))
    else:
        health.show(findings)
        health.show_limits(health.held_by())
    raise typer.Exit(1 if any(finding.needed and not finding.available for finding in findings) else 0)
