"""The words of confinement: what is asked for, what this host can give, what is in force."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal

from remit.sandboxpaths import WORKSPACE

Network = Literal["none", "restricted", "host"]


class Layer(StrEnum):
    """One wall of the sandbox. The values are API: they appear in `status.sandbox` and in policies."""

    NAMESPACES = "namespaces"
    SECCOMP = "seccomp"
    LANDLOCK = "landlock"
    CGROUP = "cgroup"
    RLIMITS = "rlimits"


@dataclass(frozen=True, slots=True)
class Limits:
    """The most an attempt may use. None means no limit of our own.

    `disk_bytes` is the size of each private tmpfs (the workspace, /tmp and /dev/shm); what is written there also
    counts as memory where a cgroup holds the memory limit. `cpu_cores` is a rate: 0.5 is half a core.
    `disk_bytes_per_second` is of each of the host's disks, which can only be read: what can be written is memory.
    """

    memory_bytes: int | None = None
    cpu_cores: float | None = None
    pids: int | None = None
    disk_bytes: int | None = None
    file_bytes: int | None = None
    open_files: int | None = None
    disk_bytes_per_second: int | None = None
    network_bytes_per_second: int | None = None


@dataclass(frozen=True, slots=True)
class HostMount:
    """A folder or a file of this host, found at `mount_path` inside.

    `path` is resolved beneath `root` when the attempt starts, and no link leads out of that; `sub_path` is then
    resolved beneath what was found. `run_as_user` is the uid that a policy asks for. `own` says that the folder is
    Remit's, so that its owner follows the attempt's user; of other folders the attempt's user follows the owner.
    """

    mount_path: str
    """Empty: it is mounted nowhere; the operator reads the file `sub_path` of it, for standard input."""
    root: str
    path: str
    sub_path: str = ""
    read_only: bool = True
    run_as_user: int | None = None
    own: bool = False
    internal: bool = False
    """Whether the operator keeps it in its own state, of which nothing else is ever mounted."""
    for_readers: bool = False
    """Whether it may only be read by the group of `identity.reader_group`, which the attempt is in, too."""

    @property
    def field(self) -> str:
        """The field of the task."""
        return f"the volume at {self.mount_path}" if self.mount_path else "spec.stdinFrom.volume"


@dataclass(frozen=True, slots=True)
class EmptyMount:
    """An empty folder in memory at `mount_path`; `size_bytes` None: as large as `/workspace`."""

    mount_path: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class ClaimMount:
    """A volume of a cluster's, found at `mount_path`: that of the workspace `workspace`, which has `size_bytes` where
    the cluster can give it these, and is removed when nothing has used it for `ttl_seconds`; None: it is kept."""

    mount_path: str
    workspace: str
    size_bytes: int
    sub_path: str = ""
    read_only: bool = True
    ttl_seconds: int | None = None


@dataclass(frozen=True, slots=True)
class MountedFile:
    """A file by its path in the volume; `size` in bytes."""

    path: str
    size: int
    executable: bool = False


@dataclass(frozen=True, slots=True)
class FilesMount:
    """Copies of `files` in the operator's `folder`, found at `mount_path`, read-only: a Job's mount of the volume
    `volume`. Of `sub_path` in it, where that is set."""

    mount_path: str
    volume: str
    folder: str
    files: tuple[MountedFile, ...]
    sub_path: str = ""

    @property
    def read_only(self) -> bool:
        return True


Mount = HostMount | EmptyMount | ClaimMount | FilesMount


@dataclass(frozen=True, slots=True)
class Confinement:
    """How one attempt is to be walled in. `require` names layers without which it must not run."""

    limits: Limits = Limits()
    network: Network = "none"
    require: frozenset[Layer] = frozenset({Layer.NAMESPACES})
    working_dir: str = WORKSPACE
    mounts: tuple[Mount, ...] = ()
    stdin_file: HostMount | None = None
    """The file that the program reads as its standard input, instead of what its command says."""
    stdin_volume: ClaimMount | FilesMount | None = None
    """The same of a Job: `sub_path` in a volume that is mounted for that."""


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether this host gives a layer: `detail` says what was seen, `remedy` how to get what is missing."""

    layer: Layer
    available: bool
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Identities:
    """Users that belong to nobody, for an operator that is root: each attempt becomes one before bubblewrap starts.

    So nothing of root's can be read even where it is bound, RLIMIT_NPROC counts one attempt, and attempts cannot
    see each other's processes by being the same user.
    """

    first: int
    count: int
    groups: tuple[int, ...] = ()
    """Further groups that attempts are in."""

    def uid(self, slot: int) -> int:
        """The user (and group) of any attempt number `slot`."""
        return self.first + slot % self.count


@dataclass(frozen=True, slots=True)
class Bubblewrap:
    """A bubblewrap that was seen to confine. `identities` is None where the operator is an ordinary user."""

    path: str
    version: str
    sets_argv0: bool
    identities: Identities | None
    mounts_by: Literal["staging", "descriptor"] | None = None
    """How it gets folders of the host without resolving their names: from where the fork server's child, as root, has
    put them; or by descriptors, which it compares with what it has mounted. None: it cannot."""


@dataclass(frozen=True, slots=True)
class Bare:
    """The engine without namespaces, seen to confine. `identities` is None where the operator is an ordinary user."""

    identities: Identities | None


@dataclass(frozen=True, slots=True)
class CgroupTree:
    """A cgroup hierarchy in which attempts get a cgroup of their own.

    `parents` maps a controller (memory, pids, cpu, cpuacct, blkio) to the folder under which to create it: one and
    the same folder on v2, usually one each on v1.
    """

    version: Literal[1, 2]
    parents: Mapping[str, Path] = field(hash=False)

    @property
    def controllers(self) -> frozenset[str]:
        return frozenset(self.parents)


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """`total` bytes for all attempts at once; None: the operator has no limit of its own, so there is none for them.

    `tmpfs` is how many of an attempt's private tmpfs, each of the size of its disk limit, nothing counts towards its
    memory limit.
    """

    total: int | None = None
    tmpfs: int = 0

    def demand(self, memory: int | None, disk: int | None, volumes: int = 0) -> int:
        """The bytes that an attempt with these limits takes of the total, if its empty folders have `volumes` bytes.
        Without a memory limit only its tmpfs count: nothing else is known of it."""
        return (memory or 0) + self.tmpfs * (disk or 0) + (volumes if self.tmpfs else 0)


@dataclass(frozen=True, slots=True)
class Host:
    """The abilities of this host, found by trying."""

    abilities: Mapping[Layer, Ability]
    bubblewrap: Bubblewrap | None
    cgroups: CgroupTree | None
    machine: str
    """The architecture as uname(2) names it."""
    landlock_scopes: int = 0
    """The scopes that a Landlock domain can have here."""
    disks: tuple[str, ...] = ()
    """`major:minor` of its disks, for limits of bandwidth."""
    bare: Bare | None = None
    """Set if Landlock, seccomp and rlimits can confine a run without namespaces."""
    memory: MemoryBudget = MemoryBudget()


@dataclass(frozen=True, slots=True)
class Plan:
    """How an attempt will be confined on this host.

    One of `bubblewrap` and `bare` is set: the engine. `enforced_by` maps each limit's field name to what holds it
    ("cgroup v2 memory", "rlimit NPROC", "not enforced").
    """

    confinement: Confinement
    bubblewrap: Bubblewrap | None
    cgroups: CgroupTree | None
    layers: tuple[Layer, ...]
    missing: tuple[Layer, ...]
    enforced_by: Mapping[str, str]
    disks: tuple[str, ...] = ()
    system_call_filter: bytes | None = None
    landlock_scopes: int = 0
    bare: Bare | None = None
