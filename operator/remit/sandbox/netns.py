"""A socket that listens inside a sandbox's network namespace, for an operator that stays outside of it.

Which namespace a socket is in is settled when it is made; who accepts on it later makes no difference. So a short-lived
process of its own enters the namespace, makes the socket and hands it back. It has to be a process: no thread can enter
a user namespace alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_NS_GET_USERNS = 0xB701
_IP_FREEBIND = 15
_BACKLOG = 128
_SECONDS = 10


def listener_inside(pid: int, pidfd: int, port: int) -> socket.socket:
    """A TCP socket that listens on 127.0.0.1:`port` in the network namespace of process `pid`.

    Raises:
        OSError: the namespace cannot be entered; the message says why.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(_SECONDS)
        command = [sys.executable, "-I", "-S", __file__, str(pid), str(pidfd), str(port), str(theirs.fileno())]
        try:
            done = subprocess.run(
                command, env={}, pass_fds=(pidfd, theirs.fileno()), timeout=_SECONDS, capture_output=True, check=False
            )
        except subprocess.TimeoutExpired:
            raise TimeoutError("no socket could be made in the sandbox in time") from None
        theirs.close()
        message, descriptors, _, _ = socket.recv_fds(ours, 1024, 1)
    if not descriptors:
        why = message.decode(errors="replace") or done.stderr.decode(errors="replace")[-300:]
        raise OSError(f"no socket could be made in the sandbox: {why}")
    return socket.socket(fileno=descriptors[0])


def make_listener(pid: int, pidfd: int, port: int) -> socket.socket:
    """The work itself. The process that calls it cannot come back to its own namespaces."""
    owner = Path(f"/proc/{pid}").stat().st_uid
    if os.geteuid() == 0 and owner != 0:
        # Whoever owns a user namespace has every right in it; root without CAP_SYS_ADMIN has none.
        os.setgroups([])
        os.setresgid(owner, owner, owner)
        os.setresuid(owner, owner, owner)
    network = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if select.select([pidfd], [], [], 0)[0]:
        raise ProcessLookupError("the sandbox is gone")  # and its number may be another's
    _enter(fcntl.ioctl(network, _NS_GET_USERNS), _CLONE_NEWUSER)
    _enter(network, _CLONE_NEWNET)
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # its loopback interface may not be up yet
    listener.bind(("127.0.0.1", port))
    listener.listen(_BACKLOG)
    return listener


def _enter(namespace: int, kind: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, kind):
        number = ctypes.get_errno()
        raise OSError(number, f"setns: {os.strerror(number)}")


def _main(pid: str, pidfd: str, port: str, answer: str) -> None:
    with socket.socket(fileno=int(answer)) as back:
        try:
            listener = make_listener(int(pid), int(pidfd), int(port))
        except OSError as error:
            back.send(str(error).encode())
        else:
            socket.send_fds(back, [b"ok"], [listener.fileno()])


if __name__ == "__main__":
    _main(*sys.argv[1:])
