"""A cgroup for one attempt, on v2 or v1: limits that count the whole tree, usage that misses nothing, a sure kill."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.errors import InvalidInput
from remit.sandbox.joining import write_files
from remit.sandbox.model import CgroupTree, Limits

CPU_PERIOD_MICROSECONDS = 100_000
_MINIMUM_QUOTA_MICROSECONDS = 1_000
_PAGE = 4096
_MOMENTS, _MOMENT_SECONDS = 20, 0.005
_LEAST_MEMORY_BYTES = 512 * 1024
"""Not enough for any program to start, but more than a fork has touched already, for which the kernel could not go."""


@dataclass(frozen=True, slots=True)
class CgroupUsage:
    """The usage of the whole process tree: `cpu_seconds`, the peak of memory (page cache and tmpfs included), block I/O
    in bytes.

    None: this host's cgroups do not count it.
    """

    cpu_seconds: float | None
    max_memory_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    throttled_seconds: float | None = None
    max_tasks: int | None = None


@dataclass(frozen=True, slots=True)
class CgroupSpec:
    """A cgroup of one's own below `tree`, with these limits. `disks` are what a limit of bandwidth is for."""

    tree: CgroupTree
    limits: Limits
    disks: Sequence[str] = ()


class AttemptCgroup:
    """One folder on v2, one per controller on v1. Made before the attempt starts and removed when its tree is dead.

    Either here, by `create`, for a process that joins it; or by the process that is to be in it, which takes the step
    for `entering` while nobody waits for it, and the steps `limiting` once it is known what for.
    """

    def __init__(self, tree: CgroupTree, name: str) -> None:
        """Nothing is made yet. Raises InvalidInput for a name that is no plain file name."""
        if name in {"", ".", ".."} or "/" in name or "\0" in name:
            raise InvalidInput(f"{name!r} cannot name a cgroup: use a plain name without '/'", field="id")
        self.version = tree.version
        self._folders = {controller: parent / name for controller, parent in tree.parents.items()}
        # Creating a folder of cgroups v1 takes a fifth of a millisecond, and that of the cpu controller is useful only
        # with a limit.
        self._processor = self._folders.pop("cpu", None) if tree.version == 1 else None

    @classmethod
    def create(cls, spec: CgroupSpec, name: str) -> AttemptCgroup:
        """Make the cgroup with its limits in place.

        Raises:
            OSError: the tree is not writable any more, or a limit was refused, or the name is taken.
            InvalidInput: the name is no plain file name.
        """
        cgroup = cls(spec.tree, name)
        cgroup._add_processor(spec.limits)
        try:
            for path in cgroup.paths:
                path.mkdir()
            write_files(cgroup._settings(spec))
        except OSError:
            cgroup.remove()
            raise
        return cgroup

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(self._folders.values()))

    def joining(self) -> tuple[object, ...]:
        """The step of the fork server by which a process moves itself in; all that it starts from then on stays in."""
        return "join_cgroups", [str(path) for path in self.paths], self._members

    def entering(self) -> tuple[list[str], str, str]:
        """The folders for a process to make and to enter by which file of theirs, and one that `limiting` may add."""
        return [str(path) for path in self.paths], self._members, str(self._processor or "")

    def limiting(self, spec: CgroupSpec) -> list[tuple[object, ...]]:
        """The steps by which a process that is inside limits itself and all that it starts."""
        made = len(self.paths)
        self._add_processor(spec.limits)
        late = [str(path) for path in self.paths[made:]]
        entering = [("enter_cgroups", late, self._members)] if late else []
        return [*entering, ("write_files", self._settings(spec))]

    def oom_kills(self) -> int:
        """How many processes the kernel killed here for want of memory."""
        if (folder := self._folders.get("memory")) is None:
            return 0
        return _keyed(f"{folder}/{'memory.events' if self.version == 2 else 'memory.oom_control'}").get("oom_kill", 0)

    def refused_tasks(self) -> int | None:
        """How often a process or a thread was refused for want of room; None where nothing counts that."""
        if (folder := self._folders.get("pids")) is None:
            return None
        return _keyed(f"{folder}/pids.events").get("max")

    def usage(self) -> CgroupUsage:
        """The usage so far. Read it before `remove`."""
        if self.version == 2:
            folder = self.paths[0]
            processor = _keyed(f"{folder}/cpu.stat")
            microseconds = processor.get("usage_usec")
            reads, writes = _io_v2(f"{folder}/io.stat")
            return CgroupUsage(
                cpu_seconds=None if microseconds is None else microseconds / 1e6,
                max_memory_bytes=_number(f"{folder}/memory.peak"),
                read_bytes=reads,
                written_bytes=writes,
                throttled_seconds=processor.get("throttled_usec", 0) / 1e6,
                max_tasks=_number(f"{folder}/pids.peak"),
            )
        throttled = _keyed(f"{self._folders['cpu']}/cpu.stat").get("throttled_time", 0) if "cpu" in self._folders else 0
        nanoseconds = _number(f"{self._folders['cpuacct']}/cpuacct.usage") if "cpuacct" in self._folders else None
        reads, writes = _io_v1(self._folders.get("blkio"))
        return CgroupUsage(
            cpu_seconds=None if nanoseconds is None else nanoseconds / 1e9,
            max_memory_bytes=_number(f"{self._folders['memory']}/memory.max_usage_in_bytes"),
            read_bytes=reads,
            written_bytes=writes,
            throttled_seconds=throttled / 1e9,
            max_tasks=_number(f"{self._folders['pids']}/pids.peak") if "pids" in self._folders else None,
        )

    @property
    def occupied(self) -> bool:
        """Whether any process is inside. They joined in the order of `paths`: who is in any is in the first."""
        return bool(_pids(self.paths[0]))

    def kill(self) -> None:
        """KILL every process inside, now. Blocks for up to a second while they die."""
        kill_cgroups(self.paths[:1])

    def remove(self) -> None:
        """Remove the folders; one that still holds a dying process is left to the sweep at the next start.

        A process is told of as ended a moment before it has left, for which this blocks.
        """
        for _ in range(_MOMENTS):
            if remove_cgroups(self.paths):
                return
            time.sleep(_MOMENT_SECONDS)

    @property
    def _members(self) -> str:
        return "cgroup.procs" if self.version == 2 else "tasks"

    def _add_processor(self, limits: Limits) -> None:
        if self._processor and limits.cpu_cores is not None:
            self._folders["cpu"] = self._processor

    def _settings(self, spec: CgroupSpec) -> list[tuple[str, str, bool]]:
        """The file, its content and whether it may be missing, for each limit that is set and can be held."""
        return [
            (f"{self._folders[controller]}/{file}", value, optional)
            for controller, file, value, optional in _settings(self.version, spec)
            if controller in self._folders
        ]


def kill_cgroups(paths: Iterable[Path]) -> bool:
    """KILL whatever lives in these cgroups; True if anything did. Forks that race with it are met by
    going round; gives up after a second, which only an uninterruptible process outlives."""
    found = False
    for path in paths:
        for _ in range(100):
            pids = _pids(path)
            if not pids:
                break
            if found:
                time.sleep(0.01)
            found = True
            if not _try_write(path / "cgroup.kill", "1"):
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
    return found


def remove_cgroups(paths: Iterable[Path]) -> bool:
    """Remove these cgroups if they are empty; True if none is left."""
    gone = True
    for path in paths:
        try:
            path.rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            gone = False
    return gone


def _settings(version: int, spec: CgroupSpec) -> Iterator[tuple[str, str, str, bool]]:
    """(controller, file, value, whether it may be missing) for each limit that is set.

    Swap counts as memory: without this the limit would only move the excess to disk. Its file is absent without swap.
    Bandwidth is of each disk by itself: that is how the kernel counts it.
    """
    limits = spec.limits
    if limits.memory_bytes is not None:
        memory = str(max(limits.memory_bytes, _LEAST_MEMORY_BYTES))
        yield "memory", "memory.max" if version == 2 else "memory.limit_in_bytes", memory, False
        if version == 2:
            yield "memory", "memory.swap.max", "0", True
        else:
            yield "memory", "memory.memsw.limit_in_bytes", memory, True
    if limits.pids is not None:
        yield "pids", "pids.max", str(limits.pids), False
    if limits.cpu_cores is not None:
        quota = max(_MINIMUM_QUOTA_MICROSECONDS, round(limits.cpu_cores * CPU_PERIOD_MICROSECONDS))
        if version == 2:
            yield "cpu", "cpu.max", f"{quota} {CPU_PERIOD_MICROSECONDS}", False
        else:
            yield "cpu", "cpu.cfs_period_us", str(CPU_PERIOD_MICROSECONDS), False
            yield "cpu", "cpu.cfs_quota_us", str(quota), False
    if (rate := limits.disk_bytes_per_second) is not None:
        for disk in spec.disks:
            if version == 2:
                yield "blkio", "io.max", f"{disk} rbps={rate} wbps={rate}", False
            else:
                yield "blkio", "blkio.throttle.read_bps_device", f"{disk} {rate}", False
                yield "blkio", "blkio.throttle.write_bps_device", f"{disk} {rate}", False


def _try_write(path: Path, value: str) -> bool:
    try:
        write_files([(str(path), value, False)])
    except OSError:
        return False
    return True


def _read(path: str) -> str:
    """The file's text; empty where this kernel has no such file or the cgroup is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP}:
            return ""
        raise
    try:  # takes a third of the time of read_text, and is called half a dozen times for each attempt
        content = os.read(descriptor, _PAGE)
        while content and len(content) % _PAGE == 0 and (more := os.read(descriptor, 1 << 16)):
            content += more
        return content.decode()
    except OSError as error:
        if error.errno in {errno.ENODEV, errno.EOPNOTSUPP}:
            return ""
        raise
    finally:
        os.close(descriptor)


def _pids(folder: Path) -> list[int]:
    return [int(line) for line in _read(f"{folder}/cgroup.procs").split()]


def _number(path: str) -> int | None:
    text = _read(path).strip()
    return int(text) if text.isdigit() else None


def _keyed(path: str) -> dict[str, int]:
    pairs = (line.split() for line in _read(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}


def _io_v2(path: str) -> tuple[int | None, int | None]:
    """`8:0 rbytes=1 wbytes=2 …`, a line per device."""
    text = _read(path)
    if not os.path.exists(path):  # noqa: PTH110  # as what is read
        return None, None
    fields = [field.partition("=") for field in text.split() if "=" in field]
    return (
        sum(int(value) for key, _, value in fields if key == "rbytes"),
        sum(int(value) for key, _, value in fields if key == "wbytes"),
    )


def _io_v1(folder: Path | None) -> tuple[int | None, int | None]:
    """`8:0 Read 1`, a line per device and direction."""
    if folder is None:
        return None, None
    rows = [line.split() for line in _read(f"{folder}/blkio.throttle.io_service_bytes").splitlines()]
    return (
        sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == "Read"),
        sum(int(row[2]) for row in rows if len(row) == 3 and row[1] == "Write"),
    )
