"""The process of `remit up` that serves the page."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from remit.cli.signals import until
from remit.cli.supervisor.channel import Message
from remit.cli.supervisor.service import Supervised
from remit.kube.kubeconfig import access_of_up
from remit.telemetry.redact import Redactor
from remit.web import login
from remit.web.server import PageServer
from remit.web.viewer import Viewer


async def serve(settings: Message, redactor: Redactor, supervised: Supervised) -> None:
    """Serve until told to stop, on the sockets that the supervisor holds. Raises `RemitError`."""
    state_dir = Path(settings["state_dir"])
    for descriptor in settings["sockets"]:
        os.set_inheritable(descriptor, False)
    sockets = [socket.socket(fileno=descriptor) for descriptor in settings["sockets"]]
    # A new process does not know which login links were used, because that was in the memory of the old one. It
    # therefore writes a new key.
    again = settings["again"]
    page = login.write_page_file(state_dir, settings["url"]) if again else login.read_page_file(state_dir)
    access = access_of_up(Path(settings["kubeconfig"]))
    viewer = Viewer(settings["user"], access, [state_dir], settings["operator_namespace"])
    with supervised.stop_requested() as stop:
        async with PageServer(sockets, viewer, page.key):
            supervised.ready()
            await until(stop)
