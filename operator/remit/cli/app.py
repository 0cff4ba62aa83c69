"""The program `remit`, put together from its commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from remit import __version__
from remit.cli import audit, policy, releases, workspace
from remit.cli.artifacts import artifacts, cp
from remit.cli.backup import backup, restore
from remit.cli.cancel import cancel
from remit.cli.crds import crds
from remit.cli.demo import demo
from remit.cli.doctor import doctor
from remit.cli.errors import INTERRUPTED, report
from remit.cli.explain import explain
from remit.cli.failures import errors
from remit.cli.get import get
from remit.cli.helptext import command
from remit.cli.logs import logs
from remit.cli.notify import notify
from remit.cli.operator import operator
from remit.cli.page import page
from remit.cli.prune import prune
from remit.cli.report import report as release_report
from remit.cli.rerun import rerun
from remit.cli.run import run
from remit.cli.top.command import top
from remit.cli.uninstall import uninstall
from remit.cli.up import up
from remit.cli.usage import Group

app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)

_TASKS, _RELEASES, _POLICIES, _SERVICES = "Tasks", "Releases", "Policies and records", "Services"


command(app, _TASKS)(run)
command(app, _TASKS)(rerun)
command(app, _TASKS)(logs)
command(app, _TASKS)(get)
command(app, _TASKS)(top)
command(app, _TASKS)(explain)
command(app, _TASKS)(cancel)
command(app, _TASKS)(artifacts)
command(app, _TASKS)(cp)
app.add_typer(workspace.app, name="workspace", rich_help_panel=_TASKS)
for request in (releases.promote, releases.abort, releases.rollback, releases.retry, releases.pause, releases.resume):
    command(app, _RELEASES)(request)
command(app, _RELEASES)(releases.history)
command(app, _RELEASES)(release_report)
command(app, _POLICIES)(errors)
app.add_typer(policy.app, name="policy", rich_help_panel=_POLICIES)
app.add_typer(audit.app, name="audit", rich_help_panel=_POLICIES)
command(app, _SERVICES)(up)
command(app, _SERVICES)(page)
command(app, _SERVICES)(demo)
command(app, _SERVICES)(backup)
command(app, _SERVICES)(restore)
command(app, _SERVICES)(operator)
command(app, _SERVICES)(prune)
command(app, _SERVICES)(crds)
command(app, _SERVICES)(uninstall)
command(app, _SERVICES)(doctor)
command(app, _SERVICES)(notify)


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
    except Exception as error:  # the last stop: nobody above can tell the user
        sys.exit(report(error))


def program_name(path: str) -> str:
    """As the user typed it: kubectl runs `kubectl-remit` for `kubectl remit`."""
    name = Path(path).name
    return {"kubectl-remit": "kubectl remit", "__main__.py": "python -m remit.cli"}.get(name, name)
