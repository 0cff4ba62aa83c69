"""The jobs of forked children. Runs in the fork server's children: the standard library only, plain data only.

A request names one job. To add one, write a function that takes `(channel, descriptors, data)`, put it into JOBS, and
give it a dataclass in `client`. (`supervise`, which needs what is below, has a module to itself.) It runs in a process
of its own, single-threaded and with the operator's identity, whose only descriptors are those it was given; what it
raises reaches the caller as an OSError, and it may send messages on `channel`. It may return (the process ends with 0),
replace itself by a program, or stay as a supervisor.

`execute` confines itself by steps before the program takes over. To add one (such as a Landlock ruleset), write a
function of plain arguments, put it into STEPS, and name it in `Execute.steps`.

Secrets travel in sealed memory files, not in `data`.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import signal
import socket
import struct

from remit.libc import call, die_with
from remit.sandbox.exposing import expose
from remit.sandbox.forkserver.wire import send
from remit.sandbox.joining import enter_cgroups, join_cgroups, write_files
from remit.sandbox.landlock import enclose, restrict
from remit.sandbox.staging import stage

TYPE_CHECKING = False  # importing typing or dataclasses would take half a megabyte, which each fork copies
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x1000_0000
_CLONE_NEWNET = 0x4000_0000
_CAPABILITY_VERSION_3 = 0x2008_0522
_IP_FREEBIND = 15
_OOM_SCORE_ADJ_MAX = b"1000"  # as set by the kubelet for pods of the class BestEffort
_NS_GET_USERNS = 0xB701  # ioctl_nsfs(2)
_OWN = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
# Ignored signals are inherited: a shell that starts the operator in the background lets it ignore SIGQUIT.
_RESET = _OWN | {number for number in signal.valid_signals() if signal.getsignal(number) is signal.SIG_IGN}


def become_subreaper() -> None:
    call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def volunteer_for_oom_kill() -> None:
    """Have the kernel, out of memory, kill this process and what it starts before the operator. Everybody may raise the
    score; where /proc cannot be written it stays."""
    with contextlib.suppress(OSError):
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, _OOM_SCORE_ADJ_MAX)
        finally:
            os.close(descriptor)


def reset_signals() -> None:
    """Set the signals as a program expects them at its start: a fork server ignores signals, and so does Python."""
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def keep_only(descriptors: Sequence[int]) -> None:
    """Close every other descriptor."""
    first = 0
    for descriptor in sorted({*descriptors}):
        if first < descriptor:
            os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))


def place(descriptors: Sequence[int], places: Sequence[int], besides: Sequence[int]) -> list[int]:
    """Make `descriptors` be at the numbers `places`, inherited, and close all others.

    `besides` are kept for this process alone, out of the way; their new numbers are returned.
    """
    clear = max(places, default=2) + 1
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, clear) for each in (*descriptors, *besides)]
    for source, number in zip(moved, places, strict=False):
        os.dup2(source, number)
    kept = moved[len(descriptors) :]
    keep_only([*places, *kept])
    return kept


def become(uid: int, gid: int, *groups: int) -> None:
    """Stop being root: this user, this group, no others but `groups`, and so no capability."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def limit(rlimits: Mapping[int, int]) -> None:
    for number, value in rlimits.items():
        try:
            resource.setrlimit(number, (value, value))
        except ValueError as error:  # Python raises ValueError for EPERM
            raise PermissionError(errno.EPERM, f"limit {number}: {error}") from None


def no_new_privileges() -> None:
    call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def shed_capabilities() -> None:
    """Have none, and with no_new_privs get none by executing anything."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(24)
    call("capset", ctypes.addressof(header), ctypes.addressof(nothing))


def filter_calls(program: bytes) -> None:
    """Apply a filter, as struct sock_filter[], to every system call from here on. Needs no_new_privs."""
    instructions = ctypes.create_string_buffer(program, len(program))
    descriptor = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))  # struct sock_fprog
    held = ctypes.create_string_buffer(descriptor, len(descriptor))
    call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(held), 0, 0)


STEPS: dict[str, Callable[..., None]] = {
    "join_cgroups": join_cgroups,
    "enter_cgroups": enter_cgroups,
    "write_files": write_files,
    "become": become,
    "stage": stage,
    "expose": expose,
    "no_new_privileges": no_new_privileges,
    "limit": limit,
    "restrict": restrict,
    "enclose": enclose,
    "shed_capabilities": shed_capabilities,
    "filter_calls": filter_calls,
}


def take(steps: Sequence[Sequence[Any]]) -> None:
    """Confine this process, one step after the other. Raises OSError: then it must not go on."""
    for name, *arguments in steps:
        STEPS[name](*arguments)


def execute(channel: socket.socket, descriptors: Sequence[int], data: dict[str, Any]) -> None:
    """Confine this process by `steps` and make it the program `argv`, with no environment, in a session of its own."""
    parent = os.getppid()
    os.setsid()
    take(data["steps"])
    die_with(parent)  # a change of user clears the setting, so it comes after that
    os.execve(data["argv"][0], data["argv"], {})  # noqa: S606  # never a shell


def listen(channel: socket.socket, descriptors: Sequence[int], data: dict[str, Any]) -> None:
    """Send back a TCP socket that listens on 127.0.0.1:`port` in the network namespace of the process `pid`.

    Only a single-threaded process may enter the user namespace that owns it, without which an ordinary user may not.
    Whoever owns a user namespace has every right in it; root without CAP_SYS_ADMIN has none, so it becomes the owner.
    An engine's container is most often in the user namespace that we are in ourselves.
    """
    owner = os.stat(f"/proc/{data['pid']}").st_uid  # noqa: PTH116  # pathlib would be copied by every fork
    if data["owned"] and os.geteuid() == 0 and owner != 0:
        become(owner, owner)
    network = os.open(f"/proc/{data['pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    if _is_ours(network, "net"):
        raise PermissionError(errno.EPERM, "the process has no network of its own")
    users = call("ioctl", network, _NS_GET_USERNS)
    if not _is_ours(users, "user"):
        call("setns", users, _CLONE_NEWUSER)
    call("setns", network, _CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_IP, _IP_FREEBIND, 1)  # the namespace's loopback interface may not be up yet
        listener.bind(("127.0.0.1", data["port"]))
        listener.listen(data["backlog"])
        send(channel, ("result", listener.getsockname()[1]), [listener.fileno()])


def _is_ours(namespace: int, kind: str) -> bool:
    return os.path.samestat(os.fstat(namespace), os.stat(f"/proc/self/ns/{kind}"))  # noqa: PTH116  # as above


def try_scopes(channel: socket.socket, descriptors: Sequence[int], data: dict[str, Any]) -> None:
    """Enter a Landlock domain with these scopes, and send back whether its parent is then out of its reach."""
    os.kill(os.getppid(), 0)  # the parent can still be signalled here
    restrict(data["scoped"])
    os.kill(os.getpid(), 0)
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        send(channel, ("result", True))
    else:
        send(channel, ("result", False))


def restrict_process(channel: socket.socket, descriptors: Sequence[int], data: dict[str, Any]) -> None:
    """Set a resource limit of another process, as its own user."""
    become(data["uid"], data["gid"])
    resource.prlimit(data["pid"], data["number"], (data["value"], data["value"]))


JOBS: dict[str, Callable[[socket.socket, Sequence[int], dict[str, Any]], None]] = {
    "execute": execute,
    "listen": listen,
    "try_scopes": try_scopes,
    "restrict_process": restrict_process,
}
