"""The program `remit`, put together from its commands."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, Final

import typer

from remit import __version__
from remit.cli.errors import INTERRUPTED, report
from remit.cli.helptext import command
from remit.cli.usage import Group

PANELS: Final = {
    "Tasks": {
        "run": "remit.cli.run:run",
        "rerun": "remit.cli.rerun:rerun",
        "logs": "remit.cli.logs:logs",
        "get": "remit.cli.get:get",
        "top": "remit.cli.top.command:top",
        "explain": "remit.cli.explain:explain",
        "cancel": "remit.cli.cancel:cancel",
        "artifacts": "remit.cli.artifacts:artifacts",
        "cp": "remit.cli.artifacts:cp",
        "workspace": "remit.cli.workspace:app",
    },
    "Releases": {
        "promote": "remit.cli.releases:promote",
        "abort": "remit.cli.releases:abort",
        "rollback": "remit.cli.releases:rollback",
        "retry": "remit.cli.releases:retry",
        "pause": "remit.cli.releases:pause",
        "resume": "remit.cli.releases:resume",
        "history": "remit.cli.releases:history",
        "report": "remit.cli.report:report",
    },
    "Policies and records": {
        "errors": "remit.cli.failures:errors",
        "policy": "remit.cli.policy:app",
        "audit": "remit.cli.audit:app",
    },
    "Services": {
        "up": "remit.cli.up:up",
        "page": "remit.cli.page:page",
        "demo": "remit.cli.demo:demo",
        "backup": "remit.cli.backup:backup",
        "restore": "remit.cli.backup:restore",
        "operator": "remit.cli.operator:operator",
        "prune": "remit.cli.prune:prune",
        "crds": "remit.cli.crds:crds",
        "uninstall": "remit.cli.uninstall:uninstall",
        "doctor": "remit.cli.doctor:doctor",
        "notify": "remit.cli.notify:notify",
    },
}
"""Where each command is, as an entry point names it: a function, or the Typer of a group of commands."""


class LazyCommands(Mapping[str, Any]):
    """Click's commands by their names. One is imported and built when it is asked for: `remit get` needs no other, and
    `--help` needs all."""

    def __init__(self) -> None:
        self._places = {name: (panel, place) for panel, places in PANELS.items() for name, place in places.items()}
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._built:
            panel, place = self._places[name]
            holder = typer.Typer(add_completion=False, rich_markup_mode=app.rich_markup_mode)
            found = resolve_name(place)
            if isinstance(found, typer.Typer):
                holder.add_typer(found, name=name, rich_help_panel=panel)
            else:
                command(holder, panel)(found)
            self._built |= typer.main.get_group(holder).commands
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


class RootGroup(Group):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings | {"commands": {}})
        self.commands = LazyCommands()  # type: ignore[assignment]  # nothing here changes it


app = typer.Typer(
    cls=RootGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"remit {__version__}")
        raise typer.Exit


@app.callback()
def _remit(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Turns YAML into governed work: every command allowed by policy, run in a sandbox, recorded.

    Start with [bold]remit demo[/], or with [bold]remit up[/] and kubectl.
    """


def main() -> None:
    """The entry point of `remit`, `kubectl-remit` and `python -m remit.cli`."""
    try:
        app(prog_name=program_name(sys.argv[0]))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:  # the outermost handler: no caller above reports the error
        sys.exit(report(error))


def program_name(path: str) -> str:
    """The program's name as the user typed it: kubectl runs `kubectl-remit` for `kubectl remit`."""
    name = Path(path).name
    return {"kubectl-remit": "kubectl remit", "__main__.py": "python -m remit.cli"}.get(name, name)
