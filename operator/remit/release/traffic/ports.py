"""Finds the process that holds a port, before a proxy tries to listen on it."""

from __future__ import annotations

import errno
import socket
from typing import Final

import psutil

from remit.errors import DeploymentError

_SYSCTL: Final = "net.ipv4.ip_unprivileged_port_start"


def claim(ports: set[int], route: str, known: dict[int, str]) -> None:
    """Raises DeploymentError, with the holder where it can be known, unless all of `ports` can be listened on.

    `known` are the holders we know ourselves: process ids to the names of their routes.
    """
    for port in sorted(ports):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
                probe.listen()
            except OSError as error:
                raise _refused(port, route, error, known) from None


def _refused(port: int, route: str, error: OSError, known: dict[int, str]) -> DeploymentError:
    if error.errno == errno.EADDRINUSE:
        message = f"port {port} of {route} is taken{_holder(port, known)}; publish another one, or free this one"
        return DeploymentError(message, reason="PortTaken")
    if error.errno in (errno.EACCES, errno.EPERM):
        message = f"port {port} of {route} is for root; publish one from 1024 on, or lower the sysctl {_SYSCTL}"
        return DeploymentError(message, reason="PortForbidden")
    message = f"port {port} of {route} cannot be listened on: {error.strerror}"
    return DeploymentError(message, reason="PortRefused", retryable=True)


def _holder(port: int, known: dict[int, str]) -> str:
    """The holder of the port as ` by …`; empty if this user may not see it."""
    try:
        listening = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    except psutil.AccessDenied:
        return ""
    pids = {each.pid for each in listening if each.pid and each.laddr and each.laddr.port == port}
    names = {known.get(pid) or _program(pid) for pid in pids}
    return f" by {' and '.join(sorted(names))}" if names else ""


def _program(pid: int) -> str:
    try:
        return f"{psutil.Process(pid).name()} (process {pid})"
    except psutil.Error:
        return f"process {pid}"
