"""Commands whose help and errors have no names of Python's types in them, and which convert only what needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


class Command(TyperCommand):
    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(_quickly_converted(super().get_params(ctx)))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _plain():
            return super().parse_args(ctx, args)


class Group(TyperGroup):
    def get_params(self, ctx: Any) -> list[Any]:
        return _untyped(_quickly_converted(super().get_params(ctx)))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        with _plain():
            return super().parse_args(ctx, args)


def _untyped(params: list[Any]) -> list[Any]:
    """Flags are shown without a type, and so are arguments, whose names say what they are."""
    for param in params:
        if param.param_type_name == "argument":
            param.display_type_rich = lambda ctx: None  # typer has no setting for this
        elif param.is_flag and param.metavar is None:
            param.metavar = ""
    return params


class ParameterConverter:
    """Converts the text of a parameter to its value as typer does it, with the same results and errors.

    typer asks pydantic, for which it builds a validator for each parameter, also for one that is not given. To import
    that and to build those takes longer than all else that `remit get` does before it asks the server.
    """

    def __init__(self, param: Any) -> None:
        self._by_typer = param.get_runtime_param

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        annotation, several = param.type_descriptor.annotation, param.multiple or param.nargs == -1
        parser = param.type_descriptor.parameter_info.parser
        if value is None or (several and value in ((), [])):
            return () if several else None
        if several:
            texts = isinstance(value, list | tuple) and all(type(each) is str for each in value)
            if texts and parser is None and annotation == list[str]:
                return list(value)
        elif parser is not None:
            with suppress(ValueError):  # if it fails, typer reports the error below
                return parser(value)
        elif type(value) is annotation and (annotation is str or issubclass(annotation, Enum)):
            return value
        return self._by_typer().coerce(value, param=param, ctx=ctx)

    def itself(self) -> ParameterConverter:
        return self


def _quickly_converted(params: list[Any]) -> list[Any]:
    for param in params:
        if not isinstance(getattr(param.get_runtime_param, "__self__", None), ParameterConverter):
            param.get_runtime_param = ParameterConverter(param).itself  # typer has no setting for this
    return params


@contextmanager
def _plain() -> Iterator[None]:
    """Without the words that pydantic, which reads the values, puts before those of an error."""
    try:
        yield
    except typer.BadParameter as error:
        error.message = error.message.removeprefix("Value error, ")
        raise
