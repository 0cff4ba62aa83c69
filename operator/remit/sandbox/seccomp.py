"""The system call filter: what is refused, as a program for the kernel's classic BPF machine. Pure.

A deny-list, because any program may run here; the namespaces (or Landlock) are what confines, and the filter takes away
the calls with which kernels were broken out of. Calls newer than the list do not exist inside, so it cannot be outdated
by a new kernel. 32-bit and x32 calls, whose numbers mean others, kill the process.
"""

from __future__ import annotations

import errno
import functools
import itertools
import socket
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence

from remit.sandbox.model import Network
from remit.sandbox.syscalls import (
    INSPECTED,
    INSPECTED_ON_A_SHARED_HOST,
    NEWEST,
    REFUSED,
    REFUSED_ON_A_SHARED_HOST,
    REFUSED_TO_THE_SAME_USER,
    error_of,
    numbers,
)

_Instruction = tuple[int, int, int, int]
_Program = list[_Instruction]

# linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST, _IF_ANY_BIT = 0x15, 0x35, 0x45

# struct seccomp_data; both machines are little-endian, so an argument's low half comes first
_NUMBER, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16

_ALLOW, _ERROR, _KILL = 0x7FFF_0000, 0x0005_0000, 0x8000_0000

_AUDIT_ARCHITECTURES = {"x86_64": 0xC000_003E, "aarch64": 0xC000_00B7}
_X32_BIT = 0x4000_0000
_NO_CALL = 0xFFFF_FFFF

_NEW_TIME_NAMESPACE = 0x80  # in the flags of clone this bit is part of the signal
_NEW_NAMESPACES = 0x7E02_0000  # CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET
_REFUSED_REQUESTS = {"TIOCSTI": 0x5412, "TIOCLINUX": 0x541C, "TIOCSETD": 0x5423}
# LINUX and LINUX32, each also with UNAME26; the last value only queries.
_PERSONALITIES = (0, 0x0008, 0x2_0000, 0x2_0008, 0xFFFF_FFFF)
_ALL = 0xFFFF_FFFF
_TYPE_MASK = 0xF  # the other bits are SOCK_CLOEXEC and SOCK_NONBLOCK
_NETLINK_ROUTE = 0
_ITSELF, _PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 0, 1
_INET_PROTOCOLS = (0, socket.IPPROTO_ICMP, socket.IPPROTO_TCP, socket.IPPROTO_UDP, socket.IPPROTO_ICMPV6)

MACHINES = frozenset(_AUDIT_ARCHITECTURES)


@functools.cache
def compile_filter(machine: str, network: Network) -> bytes:
    """The filter as struct sock_filter[], for bubblewrap's `--seccomp` or prctl(2): for a run in namespaces of its own.

    `machine` is one of MACHINES.
    """
    calls = numbers(INSPECTED, machine)
    judged = {
        calls["socketpair"]: _only((0, _ALL, (socket.AF_UNIX,))),
        calls["socket"]: _sockets(network),
    }
    return _compile(machine, judged, REFUSED)


@functools.cache
def compile_shared_filter(machine: str, *, own_user: bool) -> bytes:
    """The filter for a run without namespaces and without a network, where it and Landlock are all that stands before
    the host's other processes.

    No sockets but pairs of connected ones: Landlock does not know Unix sockets by path, and a pair of datagram sockets
    could send to any. Nothing about another process, no System V memory. `own_user` says that the run is a user of its
    own: otherwise it may not change modes, owners, times or attributes of files by their path.
    """
    calls = numbers(INSPECTED | INSPECTED_ON_A_SHARED_HOST, machine)
    pairs = (0, _ALL, (socket.AF_UNIX,)), (1, _TYPE_MASK, (socket.SOCK_STREAM, socket.SOCK_SEQPACKET))
    judged = {
        calls["socketpair"]: _only(*pairs),
        calls["socket"]: [_refuse(errno.EPERM)],
        calls["sendto"]: _only_null(4),
    }
    for name in ("prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"):
        judged[calls[name]] = _only((0, _ALL, (_ITSELF,)))
    for name, kind in (("setpriority", _PRIO_PROCESS), ("ioprio_set", _IOPRIO_WHO_PROCESS)):
        judged[calls[name]] = _only((0, _ALL, (kind,)), (1, _ALL, (_ITSELF,)))
    refused = {**REFUSED, **REFUSED_ON_A_SHARED_HOST}
    if not own_user:
        judged[calls["utimensat"]] = _only_null(1)  # this is futimens(3)
        refused |= REFUSED_TO_THE_SAME_USER
    return _compile(machine, judged, refused)


def _compile(machine: str, judged: Mapping[int, _Program], refused: Mapping[str, tuple[int, int]]) -> bytes:
    calls = numbers(INSPECTED, machine)
    special = {
        **{number: [_refuse(error_of(name))] for name, number in numbers(refused, machine).items()},
        calls["clone"]: _unless_bits(0, _NEW_NAMESPACES),
        calls["unshare"]: _unless_bits(0, _NEW_NAMESPACES | _NEW_TIME_NAMESPACE),
        calls["ioctl"]: _unless_one_of(1, _REFUSED_REQUESTS.values()),
        calls["personality"]: _only((0, _ALL, _PERSONALITIES)),
        **judged,
    }
    starts: dict[int, _Program] = {0: [_end(_ALLOW)]}
    for number, body in sorted(special.items()):
        starts |= {number: body, number + 1: [_end(_ALLOW)]}
    starts |= {NEWEST + 1: [_refuse(errno.ENOSYS)], _X32_BIT: [_end(_KILL)], _NO_CALL: [_refuse(errno.ENOSYS)]}
    return _assemble(
        [
            _load(_ARCHITECTURE),
            (_IF_EQUAL, 1, 0, _AUDIT_ARCHITECTURES[machine]),
            _end(_KILL),
            _load(_NUMBER),
            *_search([*_turns(sorted(starts.items()))]),
        ]
    )


def _turns(starts: Iterable[tuple[int, _Program]]) -> Iterator[tuple[int, _Program]]:
    """The starts whose program differs from the one before."""
    for _, alike in itertools.groupby(starts, key=lambda start: start[1]):
        yield next(alike)


def _search(starts: Sequence[tuple[int, _Program]]) -> _Program:
    """Do what begins at the last of these numbers that is not beyond the one that was loaded.

    By halves: the kernel tries every call there is when it takes a filter, which a list of tests would make slow.
    """
    if len(starts) == 1:
        return starts[0][1]
    middle = len(starts) // 2
    below, above = _search(starts[:middle]), _search(starts[middle:])
    return [(_IF_AT_LEAST, len(below), 0, starts[middle][0]), *below, *above]


def _sockets(network: Network) -> _Program:
    """Unix sockets, TCP, UDP and ping always; routes for getifaddrs(3) where there is a network.

    Every other family is kernel code that an unprivileged program may load and talk to: no namespace keeps vsock apart.
    """
    program = [_load_argument(0), *_when(_IF_EQUAL, socket.AF_UNIX, _end(_ALLOW))]
    inet = _only((1, _TYPE_MASK, (socket.SOCK_STREAM, socket.SOCK_DGRAM)), (2, _ALL, _INET_PROTOCOLS))
    for family in (socket.AF_INET, socket.AF_INET6):
        program += _branch(family, inet)
    if network != "none":
        program += _branch(socket.AF_NETLINK, _only((2, _ALL, (_NETLINK_ROUTE,))))
    return [*program, _refuse(errno.EPERM)]


def _only_null(index: int) -> _Program:
    """Allow if the pointer is null, in both of its halves."""
    halves = [_FIRST_ARGUMENT + 8 * index, _FIRST_ARGUMENT + 8 * index + 4]
    return [
        *(_load(halves[0]), (_IF_EQUAL, 0, 2, 0)),
        *(_load(halves[1]), (_IF_EQUAL, 1, 0, 0)),
        *(_refuse(errno.EPERM), _end(_ALLOW)),
    ]


def _only(*allowed: tuple[int, int, Sequence[int]]) -> _Program:
    """Allow if each argument, by its index and under its mask, is one of the values."""
    program: _Program = []
    for index, mask, values in allowed:
        program += [_load_argument(index), (_AND, 0, 0, mask)]
        # Each comparison jumps over the following values and the refusal.
        program += [(_IF_EQUAL, len(values) - place, 0, value) for place, value in enumerate(values)]
        program.append(_refuse(errno.EPERM))
    return [*program, _end(_ALLOW)]


def _unless_bits(index: int, bits: int) -> _Program:
    return [_load_argument(index), *_when(_IF_ANY_BIT, bits, _refuse(errno.EPERM)), _end(_ALLOW)]


def _unless_one_of(index: int, values: Iterable[int]) -> _Program:
    refusals = [instruction for value in values for instruction in _when(_IF_EQUAL, value, _refuse(errno.EPERM))]
    return [_load_argument(index), *refusals, _end(_ALLOW)]


def _branch(value: int, body: _Program) -> _Program:
    """Do `body`, which always returns, if what was loaded is `value`."""
    return [(_IF_EQUAL, 0, len(body), value), *body]


def _when(test: int, value: int, then: _Instruction) -> _Program:
    return [(test, 0, 1, value), then]


def _load(offset: int) -> _Instruction:
    return _LOAD, 0, 0, offset


def _load_argument(index: int) -> _Instruction:
    """The low 32 bits, which are all that the kernel looks at in each call that is inspected here."""
    return _load(_FIRST_ARGUMENT + 8 * index)


def _end(verdict: int) -> _Instruction:
    return _RETURN, 0, 0, verdict


def _refuse(error: int) -> _Instruction:
    return _end(_ERROR | error)


def _assemble(program: _Program) -> bytes:
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
