"""Commands whose help and errors have no names of Python's types in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _plain():
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _plain():
            return super().parse_args(ctx, args)


def _untyped(params: list[Any]) -> list[Any]:
    """Flags are shown without a type, and so are arguments, whose names say what they are."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # typer has no setting for it
        elif param.is_flag and param.metavar is None:
            param.metavar = ""
    return params


@contextmanager
def _plain() -> Iterator[None]:
    """Without the words that pydantic, which reads the values, puts before those of an error."""
    try:
        yield
    except typer.BadParameter as error:
        error.message = error.message.removeprefix("Value error, ")
        raise
