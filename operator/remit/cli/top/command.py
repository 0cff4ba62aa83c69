"""`remit top`. What draws is imported once it runs, and by no other command."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import signal
import sys
from pathlib import Path

from remit import threads
from remit.cli import options
from remit.errors import InvalidInput

_FORBIDDEN = 403


def top(
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
) -> None:
    """Watch tasks, the queue, releases, schedules and policies, live on the terminal.

    Keys open, filter, follow output, cancel, run again, promote and abort; [bold]?[/] tells which.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()) or os.environ.get("TERM") == "dumb":
        raise InvalidInput(
            "remit top draws on a terminal, and this is none; 'remit get -w' prints each change as a line"
        )
    if importlib.util.find_spec("textual") is None:
        raise InvalidInput(
            "remit top needs textual, which the operator's image leaves out; run it where remit is installed by pip"
        )
    if not os.environ.get("NO_COLOR"):
        os.environ.pop("NO_COLOR", None)  # an empty NO_COLOR has no meaning, but Textual takes it as set
    threads.run(_top(all_namespaces, selector, namespace, kubeconfig, context, state_dir, operator_namespace))


async def _top(
    everywhere: bool,
    selector: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
    operator_namespace: str,
) -> None:
    from remit.cli.connect import connected
    from remit.cli.top.app import Top
    from remit.errors import ApiError
    from remit.kube.client import TASKS

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        place = None if everywhere else connection.namespace
        try:  # errors at the start are reported as by any other command
            params = {"limit": "1", **({"labelSelector": selector} if selector else {})}
            await connection.kube.request("GET", TASKS.path(place), params=params)
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
        app = Top(connection, place, selector, operator_namespace)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, app.exit)  # Textual then restores the terminal
        await app.run_async()
        if app.mistake is not None:
            raise app.mistake
