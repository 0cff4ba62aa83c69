"""The process of `remit up` that is the control plane."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from remit.cli.signals import until
from remit.cli.supervisor.channel import Message
from remit.cli.supervisor.service import Supervised
from remit.controlplane.http.reviews import ADMIN
from remit.controlplane.server import ControlPlane
from remit.controlplane.startup import return_freed_memory
from remit.kube.kubeconfig import extension
from remit.telemetry.redact import Redactor


async def serve(settings: Message, redactor: Redactor, supervised: Supervised) -> None:
    """Serve until told to stop, on the lock and the sockets that the supervisor holds. Raises `RemitError`."""
    return_freed_memory()
    state_dir = Path(settings["state_dir"])
    for descriptor in (settings["lock"], *settings["sockets"]):
        os.set_inheritable(descriptor, False)
    control_plane = ControlPlane(
        state_dir,
        settings["host"],
        lock=settings["lock"],
        sockets=[socket.socket(fileno=descriptor) for descriptor in settings["sockets"]],
        extensions=[extension(state_dir)],
    )
    with supervised.stop_requested() as stop:
        async with control_plane:
            supervised.ready(url=control_plane.url, kubeconfig=str(control_plane.kubeconfig), user=ADMIN)
            await until(stop, control_plane.failed)
