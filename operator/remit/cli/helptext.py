"""Docstrings as help texts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeVar

import typer

from remit.cli.usage import Command

C = TypeVar("C", bound=Callable[..., None])


def command(app: typer.Typer, panel: str | None = None) -> Callable[[C], C]:
    """A decorator that adds a command to `app`, with its docstring as the help."""

    def add(function: C) -> C:
        return app.command(cls=Command, help=unwrapped(function.__doc__ or ""), rich_help_panel=panel)(function)

    return add


def unwrapped(docstring: str) -> str:
    """Each paragraph on one line, for typer to wrap as wide as the terminal is."""
    paragraphs = inspect.cleandoc(docstring).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
