"""Landlock: what a process takes from itself and its children for good. The fork server's children use it too, so it
imports the standard library only.

A domain that handles files also forbids mounting, without which bubblewrap can build nothing. So a run in namespaces,
which hold the files already, gets a domain of scopes alone: it reaches no abstract Unix socket and signals no process
outside itself. Abstract sockets belong to a network namespace, and so are the host's with `network: host`.
"""

from __future__ import annotations

import ctypes
import os
import struct

SCOPES_ABI = 6
"""The first version with scopes (Linux 6.12)."""

_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # on every architecture
_ASK_VERSION = 1
_SCOPE_ABSTRACT_UNIX_SOCKET = 1 << 0
_SCOPE_SIGNAL = 1 << 1
_PR_SET_NO_NEW_PRIVS = 38

_libc = ctypes.CDLL(None, use_errno=True)


def abi_version() -> int:
    """What the kernel has: 0 where it has no Landlock, or does not start it (`lsm=`), or a filter forbids it."""
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
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl: no_new_privs")
    attributes = struct.pack("=QQQ", 0, 0, scoped)  # struct landlock_ruleset_attr: files, network, scopes
    ruleset = _call(_CREATE_RULESET, attributes, len(attributes), 0)
    try:
        _call(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _call(number: int, *arguments: int | bytes | None) -> int:
    converted = [ctypes.c_long(each) if isinstance(each, int) else ctypes.c_char_p(each) for each in arguments]
    result: int = _libc.syscall(ctypes.c_long(number), *converted)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock: {os.strerror(error)}")
    return result
