"""System calls that no confined program needs: their numbers, and the error that each gets instead.

An own table, because a filter by libseccomp would be gone wherever that library is (slim images lack it), and could not
refuse calls that are newer than the library. The numbers are the kernel's ABI and never change; from 424 on they are
the same on every architecture.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping

NEWEST = 469
"""The last call that was considered here (file_setattr, Linux 6.17). What came later does not exist inside."""

_ABSENT = -1

_X86_64, _AARCH64 = 0, 1
_COLUMNS = {"x86_64": _X86_64, "aarch64": _AARCH64}

INSPECTED = {
    "clone": (56, 220),
    "ioctl": (16, 29),
    "personality": (135, 92),
    "socket": (41, 198),
    "socketpair": (53, 199),
    "unshare": (272, 97),
}
"""Calls that are judged by their arguments."""

_MOUNTS = {
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_tree_attr": (467, 467),
    "setns": (308, 268),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "fanotify_init": (300, 262),
}
_OTHER_PROCESSES = {
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_getfd": (438, 438),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
}
_KEYRINGS = {
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}
_KERNEL_MACHINERY = {
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "syslog": (103, 116),
}
_MACHINE = {
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "vhangup": (153, 58),
    "iopl": (172, _ABSENT),
    "ioperm": (173, _ABSENT),
    "modify_ldt": (154, _ABSENT),
}
_WITH_A_FALLBACK = {
    "clone3": (435, 435),  # the flags are behind a pointer, which a filter cannot read; libc falls back to clone
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "vmsplice": (278, 75),
}
_OBSOLETE = {
    "uselib": (134, _ABSENT),
    "sysfs": (139, _ABSENT),
    "_sysctl": (156, _ABSENT),
    "create_module": (174, _ABSENT),
    "get_kernel_syms": (177, _ABSENT),
    "query_module": (178, _ABSENT),
    "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18),
}

INSPECTED_ON_A_SHARED_HOST = {
    "setpriority": (141, 140),
    "prlimit64": (302, 261),
    "sched_setaffinity": (203, 122),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "ioprio_set": (251, 30),
    "sendto": (44, 206),
    "utimensat": (280, 88),
}
"""Calls that, without namespaces, a program may make about itself only; and two that no Landlock right stands for."""

REFUSED_ON_A_SHARED_HOST = {
    "bind": (49, 200),
    "connect": (42, 203),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    "inotify_add_watch": (254, 27),
}
"""Without namespaces these reach what is not the run's own, and Landlock does not stand in the way."""

REFUSED_TO_THE_SAME_USER = {
    "chmod": (90, _ABSENT),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, _ABSENT),
    "lchown": (94, _ABSENT),
    "fchownat": (260, 54),
    "utime": (132, _ABSENT),
    "utimes": (235, _ABSENT),
    "futimesat": (261, _ABSENT),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
}
"""Landlock has no right for them, so they would change the operator's own files; by descriptor they are allowed."""

REFUSED: Mapping[str, tuple[int, int]] = (
    _MOUNTS | _OTHER_PROCESSES | _KEYRINGS | _KERNEL_MACHINERY | _MACHINE | _WITH_A_FALLBACK | _OBSOLETE
)
"""Calls that are refused whatever their arguments: name → numbers on x86-64 and on aarch64 (-1: not there)."""

_AS_IF_ABSENT = frozenset(_WITH_A_FALLBACK | _OBSOLETE)


def error_of(name: str) -> int:
    """The error that a refused call gets: ENOSYS where programs then use something older, else EPERM."""
    return errno.ENOSYS if name in _AS_IF_ABSENT else errno.EPERM


def numbers(calls: Mapping[str, tuple[int, int]], machine: str) -> dict[str, int]:
    """The calls that `machine` has. Raises KeyError for a machine that is not known."""
    column = _COLUMNS[machine]
    return {name: each[column] for name, each in calls.items() if each[column] != _ABSENT}
