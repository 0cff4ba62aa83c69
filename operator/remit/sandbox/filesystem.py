"""The files of the host that an attempt sees: the least that a dynamically linked program needs, read-only."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

from remit.sandbox.model import Network
from remit.sandboxpaths import WORKSPACE

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_FOLDERS = ("/etc/alternatives",)
_TRUST_FOLDERS = ("/etc/ssl/certs", "/etc/pki/tls/certs", "/etc/pki/ca-trust/extracted")
_FILES = ("/etc/ld.so.cache", "/etc/localtime", "/etc/nsswitch.conf")
_TRUST_FILES = ("/etc/ssl/openssl.cnf",)
_NETWORK_FILES = (
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/protocols",
    "/etc/services",
)

UID = 1000
PRIVATE_TMPFS = 3
"""How many tmpfs `private_mounts` gives the size of the disk limit."""
_ROOT = "root:x:0:0:root:/nonexistent:/usr/sbin/nologin"
_USER = f"remit:x:{UID}:{UID}:remit:{WORKSPACE}:/bin/sh"


def system_files(*, network: Network) -> dict[str, bytes]:
    """Path inside → content: accounts that are the attempt's own, and the host's public configuration.

    Copies, because each bind mount costs bubblewrap a quarter of a millisecond. A file the host lacks is left out.
    """
    files = {"/etc/passwd": f"{_ROOT}\n{_USER}\n".encode(), "/etc/group": f"root:x:0:\nremit:x:{UID}:\n".encode()}
    trusted = () if network == "none" else _TRUST_FILES
    for name in _FILES + trusted + (_NETWORK_FILES if network == "host" else ()):
        with contextlib.suppress(OSError):
            files[name] = Path(name).read_bytes()
    return files


def system_mounts(*, network: Network, read_only_paths: Iterable[str] = ()) -> list[str]:
    """Bubblewrap arguments that bind the host's system and `read_only_paths`.

    A merged-/usr host has symlinks for /bin and /lib, an older one folders: each is repeated as it is.
    """
    mounts = ["--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM:
        path = Path(name)
        if path.is_symlink():
            mounts += ["--symlink", str(path.readlink()), name]
        elif path.is_dir():
            mounts += ["--ro-bind", name, name]
    for name in _FOLDERS + (() if network == "none" else _TRUST_FOLDERS):
        mounts += ["--ro-bind-try", name, name]
    for name in read_only_paths:
        mounts += ["--ro-bind", name, name]
    return mounts


def readable_paths() -> tuple[str, ...]:
    """The paths of the host that a run may read and execute if it has no mounts of its own."""
    return ("/usr", *_SYSTEM, *_FOLDERS, *_FILES)


def private_mounts(disk_bytes: int) -> list[str]:
    """Bubblewrap arguments for what belongs to the attempt alone: sized tmpfs, a minimal /dev and its own /proc, with
    PID 1 covered.

    Left as bubblewrap makes them, `/`, `/dev` and `/dev/shm` would be writable without bound: `/dev/shm` gets a size
    here, and `sealing` makes the others read-only once everything is in place.
    """
    size = str(disk_bytes)
    return [
        *("--proc", "/proc"),
        # The namespace's init reports the exit code and runs as the same user, so its memory must not be accessible.
        *("--perms", "0555", "--size", "4096", "--tmpfs", "/proc/1", "--remount-ro", "/proc/1"),
        *("--dev", "/dev"),
        *("--perms", "1777", "--size", size, "--tmpfs", "/dev/shm"),  # noqa: S108  # the attempt's own
        *("--perms", "1777", "--size", size, "--tmpfs", "/tmp"),  # noqa: S108  # the attempt's own
        *("--perms", "0700", "--size", size, "--tmpfs", WORKSPACE),
        *("--perms", "0755", "--dir", "/etc", "--perms", "0755", "--dir", "/run"),
    ]


def sealing() -> list[str]:
    """Bubblewrap arguments that come last: nothing but the sized tmpfs stays writable."""
    return ["--remount-ro", "/dev", "--remount-ro", "/"]
