"""`remit notify`: check who is told what, and try it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads

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
    if not threads.run(_each(config, chosen, test=test)):
        raise typer.Exit(1)


async def _each(config: NotificationConfig, receivers: list[Receiver], *, test: bool) -> bool:
    """Whether all are well."""
    import datetime

    import aiohttp

    from remit.errors import InvalidInput
    from remit.notifications.receivers import Alertmanager, Apprise, DeliveryFailed

    well = True
    async with aiohttp.ClientSession(trust_env=True) as session:
        for receiver in receivers:
            try:
                if receiver.apprise is not None:
                    apprise = Apprise(receiver.apprise)
                    apprise.check()
                    if test:
                        await apprise.send("Remit test", "A test of Remit's notifications.", failure=False)
                elif receiver.alertmanager is not None and test:
                    await Alertmanager(receiver.alertmanager, session).test(datetime.datetime.now(datetime.UTC))
            except (DeliveryFailed, InvalidInput) as error:
                well = False
                typer.echo(f"{receiver.name}: {error}")
            else:
                routes = sum(receiver.name in route.receivers for route in config.routes)
                of_it = "delivered" if test else f"valid; {routes or 'no'} route{'s' * (routes != 1)}"
                typer.echo(f"{receiver.name}: {of_it}")
    return well


def checked(path: Path | None) -> Path | None:
    """The absolute path of a valid configuration. Raises `InvalidInput`."""
    if path is None:
        return None
    from remit.notifications.config import NotificationConfig

    NotificationConfig.load(path)
    return path.absolute()
