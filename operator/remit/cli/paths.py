"""Checks of the flags that name places on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from remit.cli.options import DEFAULT_DOCKER_HOST
from remit.errors import InvalidInput
from remit.userpaths import default_state_dir, may_hold_state


def check_places(state_dir: Path | None, read_only_paths: Sequence[Path] | None, docker_host: str) -> Path:
    """The state directory to use. Raises typer's usage error for flags that cannot be meant, and `InvalidInput` where
    the directory cannot be written."""
    for path in read_only_paths or ():
        if not path.is_absolute() or not path.is_dir():
            raise typer.BadParameter(f"--read-only-path {path} is not an absolute path of a directory")
    if docker_host != "off" and not docker_host.startswith("unix:///"):
        raise typer.BadParameter(
            f"--docker-host {docker_host} is neither off nor a socket such as {DEFAULT_DOCKER_HOST}"
        )
    state_dir = (state_dir or default_state_dir()).absolute()
    if not may_hold_state(state_dir):
        raise InvalidInput(
            f"{state_dir} cannot be written; name another directory with --state-dir, or run as a user who may write it"
        )
    return state_dir
