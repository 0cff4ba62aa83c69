"""Tests that docs/cli.md names every command, and every flag and variable of the services."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from remit.cli.app import app

PAGE = (Path(__file__).parents[3] / "docs/cli.md").read_text()
PROGRAM: Any = typer.main.get_command(app)


def names(command: Any, path: str = "remit") -> Iterator[str]:
    for name, part in getattr(command, "commands", {}).items():
        yield from names(part, f"{path} {name}")
    if not hasattr(command, "commands"):
        yield path


def test_every_command_is_named() -> None:
    every = set(names(PROGRAM))
    assert {"remit run", "remit policy test", "remit audit export"} <= every
    # `remit audit verify`, `show` and `export` are in one row.
    assert [path for path in every if path not in PAGE and f"`{path.rsplit(maxsplit=1)[1]}`" not in PAGE] == []


@pytest.mark.parametrize("service", ["up", "operator"])
def test_every_flag_of_a_service_is_named_with_its_variable(service: str) -> None:
    for parameter in PROGRAM.commands[service].params:
        flags = [*parameter.opts, *parameter.secondary_opts]
        assert any(f"`{flag}`" in PAGE for flag in flags if flag.startswith("--")), flags
        assert parameter.envvar is None or f"`{parameter.envvar}`" in PAGE, parameter.envvar
