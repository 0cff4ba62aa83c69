"""Landlock: what a process takes from itself and its children for good. The fork server's children use it too, so it
imports the standard library only.

A domain that handles files also forbids mounting, without which bubblewrap can build nothing. So a run in namespaces,
which hold the files already, gets a domain of scopes alone: it reaches no abstract Unix socket and signals no process
outside itself. Abstract sockets belong to a network namespace, and so are the host's with `network: host`.

A run without namespaces gets the whole: no file but those it is given, no TCP, and the scopes.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct

TYPE_CHECKING = False  # every fork would copy an imported typing module
if TYPE_CHECKING:
    from collections.abc import Sequence

SCOPES_ABI = 6
"""The first version with scopes (Linux 6.12)."""

READ = 1 << 2 | 1 << 3
"""Read files and list folders."""
EXECUTE = 1 << 0 | READ
"""Run programs, too."""
WRITE = 1 << 1 | 1 << 14 | READ
"""Write to files that are there, too."""
EVERYTHING = (1 << 16) - 1
"""Every right to files that version 6 knows: also to make, remove, rename and link them."""

_ON_FILES = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15  # the rights that apply to files other than folders
_TCP = 1 << 0 | 1 << 1  # bind and connect

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_ASK_VERSION = 1
_PATH_BENEATH = 1
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> int:
    """The version of Landlock that the kernel has: 0 where it has no Landlock, or does not start it (`lsm=`), or a
    filter forbids it."""
    try:
        return _call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    except OSError:
        return 0


def scopes(abi: int) -> int:
    """The scopes to ask for on a kernel of this version; 0 where it has none. Pure."""
    return _SCOPE_ABSTRACT_UNIX_SOCKET | _SCOPE_SIGNAL if abi >= SCOPES_ABI else 0


def restrict(scoped: int) -> None:
    """Enter a domain with these scopes. It cannot be left, and holds for every process that this one starts.

    Raises:
        OSError: the kernel refuses, so the process is not confined and must not go on.
    """
    _enter(0, 0, scoped, ())


def enclose(scoped: int, grants: Sequence[tuple[str, int]]) -> None:
    """Enter a domain that has these files alone, each path with READ, EXECUTE, WRITE or EVERYTHING; no TCP; and scopes.

    A path that is not there is not granted.

    Raises:
        OSError: the kernel refuses, so the process is not confined and must not go on.
    """
    _enter(EVERYTHING, _TCP, scoped, grants)


def _enter(files: int, network: int, scoped: int, grants: Sequence[tuple[str, int]]) -> None:
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: no_new_privs")
    attributes = struct.pack("=QQQ", files, network, scoped)  # struct landlock_ruleset_attr
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path, rights in grants:
            _grant(ruleset, path, rights)
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _grant(ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return
    try:
        if not stat.S_ISDIR(os.fstat(descriptor).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, descriptor)  # struct landlock_path_beneath_attr
        _call(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: int | bytes | None) -> int:
    converted = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result
