"""`remit errors`: what failed and was denied lately, counted; or what one code means."""

from __future__ import annotations

from typing import Annotated

import typer

from remit.cli import completion
from remit.didyoumean import did_you_mean


def errors(
    code: Annotated[
        str,
        typer.Argument(
            metavar="CODE",
            help="A code such as OOMKilled, as status and Events have it.",
            autocompletion=completion.codes,
        ),
    ],
) -> None:
    """Say what a code means, whether Remit tries again, and what to do."""
    _explain(code)


def _explain(code: str) -> None:
    from rich.console import Console

    from remit import reasons
    from remit.cli.tables import console
    from remit.reasons import reference

    found = reasons.find(code) or next((c for c in reasons.CATALOGUE.values() if c.name.lower() == code.lower()), None)
    if found is None:
        meant = did_you_mean(code, reasons.CATALOGUE)
        raise typer.BadParameter(f"{code!r} is no code of Remit's{meant or '; docs/errors.md has them all'}")
    screen: Console = console()
    screen.print(reference.page(found), markup=False, soft_wrap=not screen.is_terminal)
