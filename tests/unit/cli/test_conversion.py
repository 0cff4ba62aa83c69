"""Tests that parameters that are converted without pydantic have the same values and errors as with typer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from remit.cli.app import PANELS, app
from remit.cli.usage import ParameterConverter

PROGRAM: Any = typer.main.get_command(app)
TEXTS = ("", "a", "-1", "0", "7", " 7 ", "true", "blue", "json", "A=b", "é", "\udc80", "x" * 300)


def commands(group: Any = PROGRAM, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands())


def outcome(convert: Any, value: object, param: Any, ctx: Any) -> object:
    """Returns the value, None if none was given, or the error."""
    try:
        converted = convert.coerce(value, param=param, ctx=ctx)
    except typer.BadParameter as error:
        return type(error), error.message
    return None if converted in ((), []) else converted


def test_every_command_is_there() -> None:
    assert {name.split()[0] for name in COMMANDS} == {name for places in PANELS.values() for name in places}


@pytest.mark.parametrize("name", COMMANDS)
def test_values_and_errors_are_those_of_typer(name: str) -> None:
    command = COMMANDS[name]
    ctx = typer.Context(command)
    for param in command.get_params(ctx):
        conversion = param.get_runtime_param()
        assert isinstance(conversion, ParameterConverter)
        by_typer = type(param).get_runtime_param(param)
        several = param.multiple or param.nargs == -1
        given: list[object] = [list(pair) for pair in itertools.product(TEXTS, repeat=2)] if several else [*TEXTS]
        for value in (None, param.get_default(ctx), [], *given) if several else (None, param.get_default(ctx), *given):
            assert outcome(conversion, value, param, ctx) == outcome(by_typer, value, param, ctx), (param.name, value)
