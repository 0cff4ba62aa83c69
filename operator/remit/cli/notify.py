"""`remit notify`: check who is told what, and try it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from remit import threads
from remit.cli import options

if TYPE_CHECKING:
    from remit.notifications.config import NotificationConfig, Receiver


def notify(
    notifications: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The configuration, as remit up and remit operator take it.",
            envvar="REMIT_NOTIFICATIONS",
            dir_okay=False,
            show_default=False,
        ),
    ],
    receiver: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this receiver. Repeatable.", show_default=False)
    ] = None,
    test: Annotated[bool, typer.Option("--test", help="Send each of them a test message.")] = False,
    output: options.Output = options.TableForm.TABLE,
) -> None:
    """Check the configuration of notifications, and with --test that its receivers take a message.

    Exits with 1 if one does not.
    """
    from remit.errors import InvalidInput
    from remit.notifications.config import NotificationConfig

    config = NotificationConfig.load(notifications)
    names = [each.name for each in config.receivers]
    if unknown := next((name for name in receiver or () if name not in names), None):
        raise InvalidInput(f"there is no receiver {unknown!r}; there are: {', '.join(names)}", field="--receiver")
    chosen = [each for each in config.receivers if not receiver or each.name in receiver]
    found = threads.run(_each(config, chosen, test=test))
    if output is options.TableForm.JSON:
        from remit.cli.tables import dump

        typer.echo(dump([each._asdict() for each in found], "json"))
    else:
        for each in found:
            state = f"valid; {each.routes or 'no'} route{'s' * (each.routes != 1)}"
            typer.echo(f"{each.receiver}: {each.problem or ('delivered' if each.delivered else state)}")
    if any(each.problem for each in found):
        raise typer.Exit(1)


class Checked(NamedTuple):
    """How a receiver came out."""

    receiver: str
    routes: int
    """How many name it."""
    delivered: bool
    """It took a test message."""
    problem: str
    """Empty for one that is well."""


async def _each(config: NotificationConfig, receivers: list[Receiver], *, test: bool) -> list[Checked]:
    import datetime

    import aiohttp

    from remit.errors import InvalidInput
    from remit.notifications.receivers import Alertmanager, Apprise, DeliveryFailed

    found = []
    async with aiohttp.ClientSession(trust_env=True) as session:
        for receiver in receivers:
            problem = ""
            try:
                if receiver.apprise is not None:
                    apprise = Apprise(receiver.apprise)
                    apprise.check()
                    if test:
                        await apprise.send("Remit test", "A test of Remit's notifications.", failure=False)
                elif receiver.alertmanager is not None and test:
                    await Alertmanager(receiver.alertmanager, session).test(datetime.datetime.now(datetime.UTC))
            except (DeliveryFailed, InvalidInput) as error:
                problem = str(error)
            routes = sum(receiver.name in route.receivers for route in config.routes)
            found.append(Checked(receiver.name, routes, test and not problem, problem))
    return found


def checked(path: Path | None) -> Path | None:
    """The absolute path of a valid configuration. Raises `InvalidInput`."""
    if path is None:
        return None
    from remit.notifications.config import NotificationConfig

    NotificationConfig.load(path)
    return path.absolute()
