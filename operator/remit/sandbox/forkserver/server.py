"""The fork server: one thread, no secrets, no environment. It forks, tells of ends, and dies with the operator.

A request comes with the descriptor of a channel of its own, on which this server and the child answer:

    ("started", pid) and a pidfd     a process is at it
    ("failed", errno, text)          it could not be done, and the process is dead; nothing follows
    ("result", …)                    what a job found, from the child itself
    ("exited", wait status)          the end

A channel whose other end is closed before the end has its process killed.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import marshal
import os
import select
import signal
import socket

from remit.sandbox.forkserver.jobs import JOBS, become_subreaper, die_with, keep_only, place, reset_signals
from remit.sandbox.forkserver.supervise import STOP, supervise
from remit.sandbox.forkserver.wire import receive, send

TYPE_CHECKING = False  # typing itself, like dataclasses, would be half a megabyte that each fork copies
if TYPE_CHECKING:
    from typing import Any


_JOBS = {**JOBS, "supervise": supervise}
_ALSO_CLONES = 0x4000_0000  # __WALL
_IDLE_SECONDS = 0.003  # nobody is served, and what was just forked has got its processor


class _Child:
    """Forked before it is needed: a fork, and the page faults after it, cost more than all that follows."""

    def __init__(self, pid: int, hand: socket.socket, trouble: int) -> None:
        """It gets its job by `hand`, and says by `trouble` what went wrong."""
        self.pid = pid
        self.hand = hand
        self.trouble = trouble
        self.pidfd = os.pidfd_open(pid)
        self.channel: socket.socket | None = None
        self.failure: tuple[int, str] | None = None
        self.settled = False
        self.supervises = False


def main(control_fd: int) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # meant for the operator, whose end is ours
    become_subreaper()
    server = _Server(socket.socket(fileno=control_fd))
    gc.collect()
    gc.freeze()  # so that a collection in a child touches, and copies, nothing of this
    server.serve()


class _Server:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        control.set_inheritable(False)
        self._children: dict[int, _Child] = {}
        self._by_descriptor: dict[int, _Child] = {}
        self._spare: _Child | None = None
        self._lacking = True
        self._wake, wake = socket.socketpair()
        self._wake.setblocking(False)
        wake.setblocking(False)
        self._keep = wake
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._operator = os.pidfd_open(os.getppid())
        self._poller = select.epoll()
        for descriptor in (control.fileno(), self._wake.fileno(), self._operator):
            self._poller.register(descriptor, select.EPOLLIN)

    def serve(self) -> None:
        while True:
            ready = self._poller.poll(_IDLE_SECONDS if self._lacking else None)
            if not ready:
                self._prepare()
            for descriptor, _ in ready:
                if descriptor == self._operator:
                    return
                if descriptor == self._control.fileno():
                    if not self._receive():
                        return
                elif descriptor == self._wake.fileno():
                    self._reap()
                elif child := self._by_descriptor.get(descriptor):
                    if descriptor == child.trouble:
                        self._settle(child)
                    else:
                        self._abandoned(child)

    def _receive(self) -> bool:
        """Take one message. False at the end: the operator is gone."""
        received = receive(self._control)
        if received is None:
            return False
        request, descriptors = received
        try:
            self._start(request, descriptors)
        finally:
            for descriptor in descriptors[1:]:
                os.close(descriptor)
        return True

    def _start(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Fork for the request. The first descriptor is its channel; a long body comes as the last, in a file."""
        if not descriptors:
            return  # none could be received, and the operator sees its channel end
        channel = socket.socket(fileno=descriptors[0])
        if len(descriptors) != request["descriptors"]:
            _send(channel, ("failed", errno.EMFILE, "the fork server has too many open files"))
            channel.close()
            return
        try:
            child = self._hand_over(request, descriptors)
        except OSError as error:
            _send(channel, ("failed", error.errno, f"the fork server: {error.strerror}"))
            channel.close()
            return
        child.channel = channel
        child.supervises = request["job"] == "supervise"
        _send(channel, ("started", child.pid), child.pidfd)
        os.close(child.pidfd)
        self._children[child.pid] = child
        for descriptor, events in ((child.trouble, select.EPOLLIN), (channel.fileno(), select.EPOLLRDHUP)):
            self._by_descriptor[descriptor] = child
            self._poller.register(descriptor, events)

    def _hand_over(self, request: dict[str, Any], descriptors: list[int]) -> _Child:
        """Give the job to the spare child, or to a new one if there is none or it was killed meanwhile."""
        self._lacking = True
        while True:
            child, self._spare = self._spare or self._fork(), None
            try:
                send(child.hand, request, descriptors)
            except (BrokenPipeError, ConnectionResetError):
                for descriptor in (child.pidfd, child.trouble):
                    os.close(descriptor)
                continue
            finally:
                child.hand.close()
            return child

    def _fork(self) -> _Child:
        server = os.getpid()
        trouble, write = os.pipe2(os.O_CLOEXEC)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                os.close(trouble)
                os.close(write)
                raise
            if pid == 0:
                _child(server, theirs, write)
            os.close(write)
        return _Child(pid, ours, trouble)

    def _prepare(self) -> None:
        """Have a child ready for the next request, while nothing else is to be done."""
        self._lacking = False
        with contextlib.suppress(OSError):  # told to whoever asks next
            self._spare = self._fork()

    def _settle(self, child: _Child) -> None:
        """Note what went wrong, if anything. It is told when the child is dead, and has left its cgroups."""
        if child.settled or child.channel is None:
            return
        said = os.read(child.trouble, 4096)
        self._forget(child.trouble)
        os.close(child.trouble)
        child.settled = True
        if said:
            child.failure = marshal.loads(said)  # noqa: S302  # our own child's

    def _abandoned(self, child: _Child) -> None:
        """Nobody waits for it any more."""
        if child.channel:
            self._forget(child.channel.fileno())
        os.kill(child.pid, STOP if child.supervises else signal.SIGKILL)

    def _reap(self) -> None:
        """Collect whatever ended: our children, and orphans of theirs."""
        while True:
            try:
                if not self._wake.recv(4096):
                    break
            except BlockingIOError:
                break
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if child and child.supervises and os.WIFSIGNALED(status):
                self._clear_orphans()
            if child and child.channel:
                self._settle(child)
                _send(child.channel, ("failed", *child.failure) if child.failure else ("exited", status))
                self._forget(child.channel.fileno())
                child.channel.close()

    def _clear_orphans(self) -> None:
        """A supervisor was killed, and what it watched has come to us: kill that, again until nothing new comes."""
        ours = {*self._children, *((self._spare.pid,) if self._spare else ())}
        while orphans := [pid for pid in _children_of(os.getpid()) if pid not in ours]:
            for pid in [each for orphan in orphans for each in (orphan, *_descendants(orphan))]:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            for pid in orphans:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, _ALSO_CLONES)

    def _forget(self, descriptor: int) -> None:
        if self._by_descriptor.pop(descriptor, None):
            self._poller.unregister(descriptor)


def _children_of(pid: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for task in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208  # pathlib would be copied by every fork
            with open(f"/proc/{pid}/task/{task}/children") as listing:  # noqa: PTH123
                found += map(int, listing.read().split())
    return found


def _descendants(pid: int) -> list[int]:
    """Of any depth: a program chooses how long its line of children is."""
    found = [pid]
    for each in found:
        found += _children_of(each)
    return found[1:]


def _child(server: int, hand: socket.socket, trouble: int) -> None:
    """Wait for a job, do it and end. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        reset_signals()
        die_with(server)
        keep_only([0, 1, 2, hand.fileno(), trouble])
        order = receive(hand)
        if order is None:
            os._exit(0)
        request, (channel_fd, *given) = order
        body = _contents(given.pop()) if request["data"] is None else request["data"]
        data = marshal.loads(body)  # noqa: S302  # the operator's own
        places = data.get("places", ())
        besides = [channel_fd, trouble, *given[len(places) :]]
        channel_fd, trouble, *others = place(given[: len(places)], places, besides)
        _JOBS[request["job"]](socket.socket(fileno=channel_fd), others, data)
        os._exit(0)
    except BaseException as error:  # there is nobody above to hear of it
        number = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
        os.write(trouble, marshal.dumps((number, (getattr(error, "strerror", None) or repr(error))[:1000])))
    finally:
        os._exit(127)


def _send(channel: socket.socket, message: tuple[Any, ...], *descriptors: int) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        send(channel, message, descriptors, socket.MSG_DONTWAIT)


def _contents(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
