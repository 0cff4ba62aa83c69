"""Find a cgroup hierarchy that the operator may write, and clear what a dead operator left in it.

The layout under each hierarchy is `remit/<pid>-<start time>/<any name>`: the middle folder names the operator process
that owns the cgroup, which holds a lock on it. So a later operator can tell leftovers from the live work of
another one, also where that is in a pid namespace of its own and its pid means nothing here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remit.sandbox.cgroup import kill_cgroups, remove_cgroups
from remit.sandbox.model import CgroupTree
from remit.sandbox.processes import start_time

_V1_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct", "blkio")
_V2_CONTROLLERS = ("memory", "pids", "cpu", "io")
_FOLDER = "remit"
_LEAF = "remit-operator"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_TOKEN = secrets.token_hex(4)
_locks: dict[Path, int] = {}
"""This process's folders, and the descriptors that hold their locks until it ends."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A cgroup filesystem as /proc/self/mountinfo has it; `root` is the cgroup that the mount point shows."""

    version: int
    point: Path
    root: str
    controllers: frozenset[str]


def parse_mounts(mountinfo: str) -> list[Mount]:
    """The cgroup mounts among the lines of /proc/self/mountinfo."""
    mounts = []
    for line in mountinfo.splitlines():
        fields, _, tail = line.partition(" - ")
        kind, _, options = tail.partition(" ")
        if kind not in {"cgroup", "cgroup2"}:
            continue
        root, point = fields.split()[3:5]
        controllers = frozenset(options.split()[-1].split(",")) if kind == "cgroup" else frozenset()
        mounts.append(Mount(2 if kind == "cgroup2" else 1, Path(point), root, controllers))
    return mounts


def parse_membership(text: str) -> dict[str, str]:
    """/proc/self/cgroup as controller → path; the v2 hierarchy's key is empty."""
    found = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        found.update(dict.fromkeys(controllers.split(","), path))
    return found


def own_folder(mount: Mount, path: str) -> Path:
    """The folder of this process's cgroup. A container may see less of the path than the kernel reports."""
    inner = path.removeprefix(mount.root.rstrip("/")).lstrip("/")
    folder = mount.point / inner
    return folder if folder.is_dir() else mount.point


def find_cgroups() -> tuple[CgroupTree | None, str]:
    """The tree to use, and in words what was found. Leftovers of dead operators are swept on the way.

    v2 is preferred where it has the memory and pids controllers.
    """
    mounts = parse_mounts(Path("/proc/self/mountinfo").read_text())
    membership = parse_membership(Path("/proc/self/cgroup").read_text())
    reasons: list[str] = []
    for mount in mounts:
        if mount.version == 2 and (folder := _prepare_v2(_own_v2(mount, membership), mount, reasons)):
            available = (folder / "cgroup.controllers").read_text().split()
            names = ["blkio" if name == "io" else name for name in available if name in _V2_CONTROLLERS]
            return CgroupTree(2, dict.fromkeys(names, folder)), f"v2 at {folder}: {', '.join(names)}"
    parents = {}
    for controller in _V1_CONTROLLERS:
        for mount in mounts:
            if controller in mount.controllers:
                try:
                    parents[controller] = _base(own_folder(mount, membership.get(controller, "/")))
                except OSError as error:
                    reasons.append(f"v1 {controller}: {error.strerror}")
    if {"memory", "pids"} <= parents.keys():
        return CgroupTree(1, parents), f"v1: {', '.join(parents)}"
    return None, "; ".join(reasons) or "no cgroup file system is mounted"


def make_room() -> None:
    """Step aside for an operator that this process will start, and which could not move it.

    What is started after this is in the same leaf, from where an operator finds the cgroup above.
    """
    membership = parse_membership(Path("/proc/self/cgroup").read_text())
    for mount in parse_mounts(Path("/proc/self/mountinfo").read_text()):
        if mount.version == 2:
            with contextlib.suppress(OSError):  # the operator reports later why it has no cgroups
                _make_room_in(_own_v2(mount, membership))


def _make_room_in(top: Path) -> None:
    if {"memory", "pids"} <= (offered := _controllers(top)) and not _enabled(top, offered):
        _step_aside(top)


def _own_v2(mount: Mount, membership: Mapping[str, str]) -> Path:
    """This process's cgroup, or the one above where it has stepped aside."""
    own = own_folder(mount, membership.get("", "/"))
    return own.parent if own.name == _LEAF and own != mount.point else own


def _controllers(top: Path) -> set[str]:
    return set((top / "cgroup.controllers").read_text().split())


def _enabled(top: Path, offered: set[str]) -> bool:
    """Whether children have all that is offered and wanted."""
    return offered & set(_V2_CONTROLLERS) <= set((top / "cgroup.subtree_control").read_text().split())


def _prepare_v2(own: Path, mount: Mount, reasons: list[str]) -> Path | None:
    """A v2 folder whose children get controllers, or None with the reason added."""
    for top in dict.fromkeys((own, mount.point)):
        try:
            offered = _controllers(top)
            if not {"memory", "pids"} <= offered:
                reasons.append(f"v2 {top}: controllers are {' '.join(sorted(offered)) or 'none'}")
                continue
            wanted = offered & set(_V2_CONTROLLERS)
            if not _enabled(top, offered):
                _step_aside(top)
                _enable(top, wanted)
            (top / _FOLDER).mkdir(exist_ok=True)
            _enable(top / _FOLDER, wanted)
            base = _base(top)
            _enable(base, wanted)
        except OSError as error:
            reasons.append(f"v2 {top}: {error.strerror}")
        else:
            return base
    return None


def _step_aside(top: Path) -> None:
    """A v2 cgroup gives controllers to children only while no process is in it: move this one to a leaf beside them."""
    if not (top / "cgroup.type").exists():  # the real root is exempt from the rule
        return
    members = set((top / "cgroup.procs").read_text().split())
    if members - {str(os.getpid())}:
        raise OSError(errno.EBUSY, "other processes are in it, so its children get no controllers")
    if members:
        leaf = top / _LEAF
        leaf.mkdir(exist_ok=True)
        (leaf / "cgroup.procs").write_text(str(os.getpid()))


def _enable(folder: Path, controllers: set[str]) -> None:
    (folder / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in sorted(controllers)))


def beside(tree: CgroupTree) -> CgroupTree:
    """One for this process, next to that of the process which started it and which it may outlive. Raises OSError."""
    parents = {controller: _base(parent.parent.parent) for controller, parent in tree.parents.items()}
    if tree.version == 2:
        for folder in {*parents.values()}:
            _enable(folder, {"io" if name == "blkio" else name for name in parents})
    return CgroupTree(tree.version, parents)


def _base(parent: Path) -> Path:
    """This operator's folder under `parent`, made and locked.

    Folders of dead operators are removed, and their processes killed.
    """
    shared = parent / _FOLDER
    shared.mkdir(exist_ok=True)
    _sweep(shared)
    name = f"{os.getpid()}-{start_time(os.getpid())}"
    base = _lock(shared / name) or _lock(shared / f"{name}-{_TOKEN}")
    if base is None:
        raise OSError(errno.EBUSY, f"{shared / name} belongs to another process")
    return base


def _lock(base: Path) -> Path | None:
    """`base`, made and locked; None if a process of another pid namespace with the same pid and start time has it."""
    while not (base in _locks and base.exists()):
        if base in _locks:
            os.close(_locks.pop(base))
        base.mkdir(exist_ok=True)
        descriptor = os.open(base, _DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        if base.exists():
            _locks[base] = descriptor
        else:  # another operator removed it first
            os.close(descriptor)
    return base


def _sweep(shared: Path) -> None:
    for owner in shared.iterdir():
        if not owner.is_dir() or owner in _locks or _is_alive(owner.name):
            continue
        with contextlib.suppress(OSError):
            descriptor = os.open(owner, _DIRECTORY)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                attempts = [path for path in owner.iterdir() if path.is_dir()]
                kill_cgroups(attempts)
                remove_cgroups([*attempts, owner])
            finally:
                os.close(descriptor)


def _is_alive(name: str) -> bool:
    """Whether the owner of the folder is a process of this pid namespace that is alive."""
    pid, started, *_ = [*name.split("-"), ""]
    return not pid.isdigit() or str(start_time(int(pid))) == started
