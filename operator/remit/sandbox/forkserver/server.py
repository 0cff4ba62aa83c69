"""The fork server: one thread, no secrets, no environment. It forks, tells of ends, and dies with the operator.

An order comes with the descriptor of a channel. It is carried out when a job comes by that channel, or before, once
something has ended and there is nothing else to do: a fork, and the page faults after it, cost more than all that
follows. The job is the child's to read, so that none comes by way of this server. On the channel are told:

    ("started", pid) and a pidfd     by this server: there is a process
    ("result", …)                    by the child: what it found
    ("refused", errno, text)         by either: why the job cannot be done
    ("exited", wait status)          by this server: the end

When the other end is closed, the process is killed if it has not ended, and its cgroups are removed.

On `control` the operator also says until when it may work, in seconds of CLOCK_BOOTTIME. When that time passes without
a later one, whatever state the operator is in, this server kills everything that it started, and then the operator.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import gc
import marshal
import os
import select
import signal
import socket
import struct
import time

from remit.libc import call, die_with
from remit.sandbox.forkserver.baseline import take_known_values
from remit.sandbox.forkserver.jobs import (
    JOBS,
    become_subreaper,
    keep_only,
    place,
    reset_signals,
    volunteer_for_oom_kill,
)
from remit.sandbox.forkserver.supervise import supervise
from remit.sandbox.forkserver.wire import (
    DEADLINE,
    DEATH_SECONDS,
    EXIT_SECONDS,
    STOP_SECONDS,
    readable,
    receive,
    send,
)
from remit.sandbox.joining import enter_cgroups
from remit.sandbox.landlock import abi_version
from remit.sandbox.staging import rehearse as rehearse_staging

TYPE_CHECKING = False  # importing typing or dataclasses would take half a megabyte, which each fork copies
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


_JOBS = {**JOBS, "supervise": supervise}
_ALSO_CLONES = 0x4000_0000  # __WALL
_LONGEST_MESSAGE = 64
_CLOCK_BOOTTIME = 7
_TFD_NONBLOCK, _TFD_CLOEXEC = 0o4000, 0o2000000
_TFD_TIMER_ABSTIME = 1
_MOMENT_SECONDS = 0.01
_PAGE = 4096


class _Child:
    """One that is ordered, and from `pid` on one that is there."""

    def __init__(self, channel: socket.socket, enters: Sequence[str], file: str, may_enter: str, stop: int) -> None:
        """Before it has a job it makes the cgroups `enters` and goes in by their `file`; later it may make one more.
        It ends by the signal `stop`."""
        self.channel = channel
        self.enters = enters
        self.file = file
        self.cgroups = (*enters, *((may_enter,) if may_enter else ()))
        self.stop = stop
        self.pid = 0


def main(control_fd: int, orders_fd: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # These signals are meant for the operator, whose end also ends this process.
        signal.signal(number, signal.SIG_IGN)
    take_known_values()
    become_subreaper()
    server = _Server(_channel(control_fd), _channel(orders_fd))
    gc.collect()
    gc.freeze()  # so that a garbage collection in a child does not write to, and thereby copy, these objects
    server.serve()


class _Server:
    def __init__(self, control: socket.socket, orders: socket.socket) -> None:
        """A word on `control` says that an order cannot wait. No order by itself wakes this process: it would take the
        processor from whatever was just started."""
        self._control = control
        self._orders = orders
        for each in (control, orders):
            each.set_inheritable(False)
        self._ordered: dict[int, _Child] = {}
        self._by_channel: dict[int, _Child] = {}
        self._children: dict[int, _Child] = {}
        self._late: list[tuple[_Child, int]] = []
        self._folders: list[str] = []
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._keep = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._operator = os.pidfd_open(os.getppid())
        self._deadline: int | None = None
        self._listing = -1
        with contextlib.suppress(FileNotFoundError):  # a kernel without this file
            self._listing = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        self._poller = select.epoll()
        for descriptor in (control.fileno(), self._wake.fileno(), self._operator):
            self._poller.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        """Serve until the operator is gone or its deadline has passed, and until everything that was started is
        dead."""
        while self._turn():
            pass
        self._stop_all()
        if self._overdue():
            end = time.monotonic() + EXIT_SECONDS
            self._kill_all(EXIT_SECONDS)
            if not readable(self._operator, max(0.0, end - time.monotonic())):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._operator, signal.SIGKILL)
        self._kill_all(DEATH_SECONDS)
        end = time.monotonic() + DEATH_SECONDS
        for child in self._by_channel.values():
            self._part(child)
        while self._folders and time.monotonic() < end:
            time.sleep(_MOMENT_SECONDS)
            self._remove_folders()

    def _stop_all(self) -> None:
        """Have everything that was started end by itself, which supervisors do in order, and wait a while for it."""
        for child in self._children.values():
            os.kill(child.pid, child.stop)
        end = time.monotonic() + STOP_SECONDS
        while (self._kill_orphans() or self._children) and readable(self._wake, max(0.0, end - time.monotonic())):
            self._reap()

    def _kill_all(self, seconds: float) -> None:
        """Whatever is left, also of what outlived its parent: orphans come to this process."""
        end = time.monotonic() + seconds
        while (self._kill_orphans() or self._children) and time.monotonic() < end:
            for pid in self._children:
                os.kill(pid, signal.SIGKILL)
            readable(self._wake, _MOMENT_SECONDS)
            self._collect()

    def _set_deadline(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = call("timerfd_create", _CLOCK_BOOTTIME, _TFD_NONBLOCK | _TFD_CLOEXEC)
            self._poller.register(self._deadline, select.EPOLLIN)
        whole = max(0, int(seconds))
        nanoseconds = max(1, int((seconds - whole) * 1e9))  # a value of 0 would disarm the timer
        setting = ctypes.create_string_buffer(struct.pack("@llll", 0, 0, whole, nanoseconds))
        call("timerfd_settime", self._deadline, _TFD_TIMER_ABSTIME, ctypes.addressof(setting), 0)

    def _turn(self) -> bool:
        """Do what is to be done, or else carry out an order ahead. False when the operator is gone or has to go."""
        ready = self._poller.poll(0 if self._ordered else None)
        if not ready:
            self._fork(next(iter(self._ordered.values())))
        for descriptor, _ in ready:
            if descriptor == self._operator:
                return False
            if descriptor == self._control.fileno():
                if not self._hear():
                    return False
            elif descriptor == self._wake.fileno():
                self._reap()
                self._take_orders()
            elif child := self._ordered.get(descriptor):
                self._fork(child)
            elif child := self._by_channel.get(descriptor):
                self._closed(child)
        return not self._overdue()

    def _hear(self) -> bool:
        """Take all messages of the operator. False when there will be no more."""
        with contextlib.suppress(BlockingIOError):
            while message := self._control.recv(_LONGEST_MESSAGE, socket.MSG_DONTWAIT):
                if len(message) == struct.calcsize(DEADLINE):
                    self._set_deadline(*struct.unpack(DEADLINE, message))
                else:
                    self._take_orders()
            return False
        return True

    def _overdue(self) -> bool:
        return self._deadline is not None and readable(self._deadline, 0)

    def _take_orders(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while received := receive(self._orders, socket.MSG_DONTWAIT):
                order, descriptors = received
                # Without them, no descriptor could be received, and the operator sees its channel closed.
                if descriptors:
                    self._ordered[descriptors[0]] = _Child(_channel(descriptors[0]), *order)
                    self._poller.register(descriptors[0], select.EPOLLIN)

    def _fork(self, child: _Child) -> None:
        descriptor = child.channel.fileno()
        del self._ordered[descriptor]
        server = os.getpid()
        try:
            child.pid = os.fork()
        except OSError as error:
            _send(child.channel, ("refused", error.errno, f"the fork server: {error.strerror}"))
            self._poller.unregister(descriptor)
            child.channel.close()
            return
        if child.pid == 0:
            _become(server, child)
        self._children[child.pid] = self._by_channel[descriptor] = child
        self._poller.modify(descriptor, select.EPOLLRDHUP)
        try:
            pidfd = os.pidfd_open(child.pid)
        except OSError as error:
            _send(child.channel, ("refused", error.errno, f"the fork server: {error.strerror}"))
            os.kill(child.pid, signal.SIGKILL)
        else:
            _send(child.channel, ("started", child.pid), pidfd)
            os.close(pidfd)

    def _closed(self, child: _Child) -> None:
        """Nobody waits for it any more, or needs its cgroups to say what it used."""
        del self._by_channel[child.channel.fileno()]
        self._poller.unregister(child.channel.fileno())
        if self._children.get(child.pid) is child:  # another child may have this pid by now
            os.kill(child.pid, child.stop)
        else:
            self._part(child)

    def _part(self, child: _Child) -> None:
        child.channel.close()
        self._folders += child.cgroups
        self._remove_folders()

    def _remove_folders(self) -> None:
        """All but those that still hold somebody: a process is told of as ended a moment before it has left."""
        self._folders = [folder for folder in self._folders if not _removed(folder)]

    def _reap(self) -> None:
        """Collect whatever ended: our children, and orphans of theirs."""
        self._collect()  # collects a child that a waiting caller is interested in
        self._wake.recv(4096)
        self._collect()  # collects children that ended since then, whose signal may have been merged

    def _collect(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, _ALSO_CLONES | os.WNOHANG))[0]:
                if child := self._children.pop(ended[0], None):
                    self._ended(child, ended[1])
        if self._late and not self._kill_orphans():
            late, self._late = self._late, []
            for child, status in late:
                self._tell_end(child, status)

    def _ended(self, child: _Child, status: int) -> None:
        """Report the end of a child. If a supervisor was killed, what it watched comes to us, and must be dead before
        its end is told. Each death gives a sign, so that nobody else waits for it."""
        if os.WIFSIGNALED(status) and self._kill_orphans() and child.stop != signal.SIGKILL:
            self._late.append((child, status))
        else:
            self._tell_end(child, status)

    def _tell_end(self, child: _Child, status: int) -> None:
        _send(child.channel, ("exited", status))
        if child.channel.fileno() not in self._by_channel:
            self._part(child)

    def _kill_orphans(self) -> list[int]:
        """KILL what came to us when its parent ended, and everything below it. Returns its pids.

        The init of a sandbox is among them if bubblewrap was killed before its init asked for a death signal: the
        kernel does not send one for a parent that has ended already.
        """
        orphans = [pid for pid in map(int, self._listed()) if pid not in self._children]
        for pid in [each for orphan in orphans for each in (orphan, *_descendants(orphan))]:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        return orphans

    def _listed(self) -> list[bytes]:
        """The pids of all children. Read through a descriptor that is already open: there may be none left to open."""
        listed = b""
        while self._listing >= 0 and (more := os.pread(self._listing, _PAGE, len(listed))):
            listed += more
        return listed.split()


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)  # noqa: PTH106  # pathlib would be copied by every fork
    except OSError as error:
        return error.errno != errno.EBUSY
    return True


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # pathlib would be copied by every fork
            with open(f"/proc/{pid}/task/{task}/children") as listing:  # noqa: PTH123
                found += map(int, listing.read().split())
    return found


def _descendants(pid: int) -> list[int]:
    """All descendants, however deep: a program decides how long its chain of children is."""
    found = [pid]
    for each in found:
        found += _children_of(each)
    return found[1:]


def _become(server: int, child: _Child) -> None:
    """Wait for the child's job, do it and end. Never returns."""
    channel = child.channel
    try:
        signal.set_wakeup_fd(-1)
        reset_signals()
        die_with(server)
        volunteer_for_oom_kill()
        keep_only([0, 1, 2, channel.fileno()])
        enter_cgroups(child.enters, child.file)
        if not readable(channel, 0):
            _rehearse()
        request, given = _job(channel)
        data = marshal.loads(_contents(given.pop()) if request["data"] is None else request["data"])  # noqa: S302
        places = data.get("places", ())
        descriptor, *others = place(given[: len(places)], places, [channel.fileno(), *given[len(places) :]])
        channel.detach()  # its number now belongs to another descriptor
        channel = _channel(descriptor)
        _JOBS[request["job"]](channel, others, data)
        os._exit(0)
    except BaseException as error:  # there is no caller to handle the error
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        _send(channel, ("refused", number, (getattr(error, "strerror", None) or repr(error))[:1000]))
    finally:
        os._exit(127)


def _rehearse() -> None:
    """Use what the job will use. Each page that is touched for the first time after a fork costs a fault, and those
    together cost more than the work itself."""
    data = marshal.dumps({"places": [0, 1, 2], "steps": [("limit", {})], "argv": [b"/"]})
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send(ours, {"job": "", "data": data, "descriptors": 3}, [0, 1, 2])
        request, given = _job(theirs)
    places = given[: len(marshal.loads(request["data"])["places"])]  # noqa: S302  # our own
    os.dup2(given[0], given[1])
    for descriptor in places:
        os.close(descriptor)
    abi_version()
    rehearse_staging()
    struct.pack("=QQQ", 0, 0, 0)


def _channel(descriptor: int) -> socket.socket:
    # All arguments are given, so that Python need not query them.
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, descriptor)


def _job(channel: socket.socket) -> tuple[dict[str, Any], list[int]]:
    received = receive(channel)
    if received is None:
        os._exit(0)  # the channel was closed, so no job will follow
    request, given = received
    if len(given) != request["descriptors"]:
        raise OSError(errno.EMFILE, "the fork server: Too many open files")
    return request, given


def _send(channel: socket.socket, message: tuple[Any, ...], *descriptors: int) -> None:
    with contextlib.suppress(OSError):  # the channel has no reader any more
        send(channel, message, descriptors, socket.MSG_DONTWAIT)


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
