"""Tests the filter by executing it as the kernel would, for both architectures on either."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parts import require
from remit.sandbox.seccomp import MACHINES, compile_filter, compile_shared_filter
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

AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = "allow", "kill"
EPERM, ENOSYS = errno.EPERM, errno.ENOSYS
NETWORKS = ("none", "restricted", "host")
LATER = st.integers(NEWEST + 1, 0x3FFFFFFF)


def verdict(program: bytes, number: int, *arguments: int, audit: int) -> str | int:
    """Runs classic BPF over a struct seccomp_data, and returns the verdict."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *(a & (2**64 - 1) for a in padded))
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    while True:
        operation, then, otherwise, value = code[at]
        at += 1
        if operation == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif operation == 0x54:
            accumulator &= value
        elif operation == 0x06:
            if value >> 16 == 5:
                return value & 0xFFFF
            return {0x7FFF0000: ALLOW, 0x80000000: KILL}[value]
        else:
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }[operation]
            at += then if holds else otherwise


@pytest.fixture(params=sorted(MACHINES))
def machine(request):
    return request.param


@pytest.fixture
def judge(machine):
    def judging(name, *arguments, network="none", **options):
        number = numbers(INSPECTED | REFUSED, machine)[name]
        return verdict(compile_filter(machine, network, **options), number, *arguments, audit=AUDIT[machine])

    return judging


NOT_PERMITTED = """
    acct add_key adjtimex bpf chroot clock_adjtime clock_settime delete_module fanotify_init finit_module fsconfig
    fsmount fsopen fspick init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl migrate_pages modify_ldt
    mount mount_setattr move_mount move_pages name_to_handle_at open_by_handle_at open_tree open_tree_attr
    perf_event_open pidfd_getfd pivot_root process_madvise process_vm_readv process_vm_writev ptrace quotactl
    quotactl_fd reboot request_key setdomainname sethostname setns settimeofday swapoff swapon syslog umount2
    userfaultfd vhangup
"""
NOT_THERE = """
    _sysctl clone3 create_module get_kernel_syms io_uring_enter io_uring_register io_uring_setup lookup_dcookie
    nfsservctl query_module sysfs uselib vmsplice
"""
NOT_BESIDE_OTHERS = """
    bind connect inotify_add_watch mq_open mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop
    shmat shmctl shmget
"""
NOT_AS_THE_SAME_USER = """
    chmod chown fchmodat fchmodat2 fchownat file_setattr futimesat lchown lremovexattr lsetxattr removexattr
    removexattrat setxattr setxattrat utime utimes
"""
JUDGED = "clone ioctl personality socket socketpair unshare"
JUDGED_BESIDE_OTHERS = """
    ioprio_set prlimit64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sendto setpriority utimensat
"""


def test_no_call_is_taken_off_the_lists():
    """The other tests check each call on a list; this one checks that each call that must be listed is."""
    assert set(REFUSED) == {*NOT_PERMITTED.split(), *NOT_THERE.split()}
    assert {name for name in REFUSED if error_of(name) == ENOSYS} == set(NOT_THERE.split())
    assert set(REFUSED_ON_A_SHARED_HOST) == set(NOT_BESIDE_OTHERS.split())
    assert set(REFUSED_TO_THE_SAME_USER) == set(NOT_AS_THE_SAME_USER.split())
    assert set(INSPECTED) == set(JUDGED.split())
    assert set(INSPECTED_ON_A_SHARED_HOST) == set(JUDGED_BESIDE_OTHERS.split())


@pytest.mark.parametrize("network", NETWORKS)
def test_every_refused_call_gets_its_error(machine, network):
    program = compile_filter(machine, network)
    for name, number in numbers(REFUSED, machine).items():
        assert verdict(program, number, audit=AUDIT[machine]) == error_of(name), name


@given(st.integers(0, NEWEST), st.lists(st.integers(0, 2**64 - 1), max_size=6))
def test_any_other_call_is_allowed(number, arguments):
    for machine in MACHINES:
        judged = {*numbers(REFUSED, machine).values(), *numbers(INSPECTED, machine).values()}
        if number not in judged:
            assert verdict(compile_filter(machine, "none"), number, *arguments, audit=AUDIT[machine]) == ALLOW


@given(LATER)
def test_unknown_calls_fail_with_enosys(number):
    for machine in MACHINES:
        assert verdict(compile_filter(machine, "host"), number, audit=AUDIT[machine]) == ENOSYS


def test_calls_of_another_architecture_kill(machine):
    program = compile_filter(machine, "host")
    i386, arm = 0x40000003, 0x40000028
    others = {i386, arm, *AUDIT.values()} - {AUDIT[machine]}
    for audit in others:
        assert verdict(program, 1, audit=audit) == KILL


def test_x32_calls_kill_and_no_call_at_all_does_not(machine):
    program = compile_filter(machine, "host")
    assert verdict(program, 0x40000000, audit=AUDIT[machine]) == KILL
    assert verdict(program, 0x40000000 | 59, audit=AUDIT[machine]) == KILL
    assert verdict(program, -1, audit=AUDIT[machine]) == ENOSYS


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_no_namespace_can_be_made(judge, flag):
    for name in ("clone", "unshare"):
        assert judge(name, flag | 17) == EPERM
        assert judge(name, flag | 1 << 33) == EPERM


def test_threads_and_forks_are_allowed(judge):
    thread = 0x3D0F00  # the flags of pthread_create
    assert judge("clone", thread) == ALLOW
    assert judge("clone", 0x1200011) == ALLOW
    assert judge("unshare", 0x400) == ALLOW
    assert judge("unshare", 0x80) == EPERM  # a time namespace
    assert judge("clone", 0x80) == ALLOW  # an unusual signal


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 0x5423])
def test_no_terminal_is_typed_into(judge, request_number):
    assert judge("ioctl", 0, request_number) == EPERM
    assert judge("ioctl", 0, request_number | 1 << 32) == EPERM  # the kernel reads 32 bits
    assert judge("ioctl", 0, 0x5413) == ALLOW


def test_personalities_that_weaken_a_process_are_refused(judge):
    for harmless in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF):
        assert judge("personality", harmless) == ALLOW
    for weakening in (0x40000, 0x400000, 0x100000, 0x40008):  # no randomization, read implies exec, page zero
        assert judge("personality", weakening) == EPERM


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_only_the_families_that_were_thought_of_give_sockets(family, kind, protocol):
    for machine in MACHINES:
        number = numbers(INSPECTED, machine)["socket"]
        for network in NETWORKS:
            inet = family in {2, 10} and kind & 0xF in {1, 2} and protocol in {0, 1, 6, 17, 58}
            route = family == 16 and protocol == 0 and network != "none"
            wanted = ALLOW if family == 1 or inet or route else EPERM
            program = compile_filter(machine, network)
            assert verdict(program, number, family, kind, protocol, audit=AUDIT[machine]) == wanted


@pytest.mark.parametrize(
    ("family", "kind", "protocol", "network", "wanted"),
    [
        (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0, "none", ALLOW),
        (socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_UDP, "none", ALLOW),
        (socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP, "host", EPERM),
        (socket.AF_INET, socket.SOCK_STREAM, 262, "host", EPERM),  # MPTCP, to which Landlock's TCP rules do not apply
        (socket.AF_INET, socket.SOCK_STREAM, 132, "host", EPERM),  # SCTP
        (socket.AF_NETLINK, socket.SOCK_RAW, 0, "none", EPERM),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0, "restricted", ALLOW),
        (socket.AF_NETLINK, socket.SOCK_RAW, 0, "host", ALLOW),
        (socket.AF_NETLINK, socket.SOCK_RAW, 12, "host", EPERM),  # netfilter
        (socket.AF_VSOCK, socket.SOCK_STREAM, 0, "host", EPERM),
        (socket.AF_ALG, socket.SOCK_SEQPACKET, 0, "host", EPERM),
        (socket.AF_PACKET, socket.SOCK_RAW, 0, "host", EPERM),
        (socket.AF_UNIX, socket.SOCK_STREAM, 0, "none", ALLOW),
    ],
)
def test_sockets(judge, family, kind, protocol, network, wanted):
    assert judge("socket", family, kind, protocol, network=network) == wanted


def test_pairs_are_of_unix_sockets(judge):
    assert judge("socketpair", socket.AF_UNIX, 1, 0) == ALLOW
    assert judge("socketpair", 30, 1, 0) == EPERM  # AF_TIPC


def test_an_unknown_machine_has_no_filter():
    with pytest.raises(KeyError):
        compile_filter("sparc", "none")


def test_the_numbers_are_those_of_libseccomp(machine):
    library = ctypes.util.find_library("seccomp") or "libseccomp.so.2"
    try:
        resolve = ctypes.CDLL(library).seccomp_syscall_resolve_name_arch
    except OSError:
        require("libseccomp", None, "apt install libseccomp2")
    for name, number in numbers(INSPECTED | REFUSED, machine).items():
        known = resolve(ctypes.c_uint32(AUDIT[machine]), name.encode())
        if known < 0:
            assert name == "open_tree_attr", f"{name} is not a call of {machine}"  # newer than the library
        else:
            assert known == number, name


def test_what_a_machine_lacks_is_lacking_in_libseccomp_too():
    try:
        resolve = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        require("libseccomp", None, "apt install libseccomp2")
    for name in (INSPECTED | REFUSED).keys() - numbers(INSPECTED | REFUSED, "aarch64").keys():
        assert resolve(ctypes.c_uint32(AUDIT["aarch64"]), name.encode()) < 0, name


@pytest.fixture
def judge_shared(machine):
    def judging(name, *arguments, own_user=True):
        known = INSPECTED | INSPECTED_ON_A_SHARED_HOST | REFUSED | REFUSED_ON_A_SHARED_HOST | REFUSED_TO_THE_SAME_USER
        program = compile_shared_filter(machine, own_user=own_user)
        return verdict(program, numbers(known, machine)[name], *arguments, audit=AUDIT[machine])

    return judging


@pytest.mark.parametrize("own_user", [True, False])
def test_on_a_shared_host_every_refused_call_gets_its_error(machine, own_user):
    program = compile_shared_filter(machine, own_user=own_user)
    for name, number in numbers({**REFUSED, **REFUSED_ON_A_SHARED_HOST}, machine).items():
        assert verdict(program, number, audit=AUDIT[machine]) == error_of(name), name
    for number in numbers(REFUSED_TO_THE_SAME_USER, machine).values():
        assert verdict(program, number, audit=AUDIT[machine]) == (ALLOW if own_user else EPERM)


def test_on_a_shared_host_there_is_no_socket(judge_shared):
    for family in range(50):
        assert judge_shared("socket", family, socket.SOCK_STREAM, 0) == EPERM


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        (socket.SOCK_STREAM, ALLOW),
        (socket.SOCK_STREAM | socket.SOCK_CLOEXEC, ALLOW),
        (socket.SOCK_SEQPACKET, ALLOW),
        (socket.SOCK_DGRAM, EPERM),  # could send to any path
        (socket.SOCK_RAW, EPERM),  # for Unix sockets this is the same
    ],
)
def test_on_a_shared_host_a_pair_stays_a_pair(judge_shared, kind, wanted):
    assert judge_shared("socketpair", socket.AF_UNIX, kind, 0) == wanted


@pytest.mark.parametrize(
    "name", ["prlimit64", "sched_setaffinity", "sched_setscheduler", "sched_setparam", "sched_setattr"]
)
def test_on_a_shared_host_a_program_changes_itself_only(judge_shared, name):
    assert judge_shared(name, 0) == ALLOW
    assert judge_shared(name, 1) == EPERM
    assert judge_shared(name, 2**32 - 1) == EPERM


def test_on_a_shared_host_priorities_are_its_own(judge_shared):
    assert judge_shared("setpriority", 0, 0, 5) == ALLOW
    assert judge_shared("setpriority", 0, 7, 5) == EPERM
    assert judge_shared("setpriority", 2, 0, 5) == EPERM  # all processes of a user
    assert judge_shared("ioprio_set", 1, 0) == ALLOW
    assert judge_shared("ioprio_set", 3, 0) == EPERM


@pytest.mark.parametrize(("pointer", "wanted"), [(0, ALLOW), (1, EPERM), (1 << 32, EPERM), (1 << 63, EPERM)])
def test_on_a_shared_host_a_pointer_is_null_in_both_halves(judge_shared, pointer, wanted):
    assert judge_shared("sendto", 3, 0, 0, 0, pointer, 0) == wanted
    assert judge_shared("utimensat", 3, pointer, own_user=False) == wanted
    assert judge_shared("utimensat", 3, pointer) == ALLOW
