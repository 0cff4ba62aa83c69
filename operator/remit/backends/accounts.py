"""The accounts that both engines of the process backend give of an attempt."""

from __future__ import annotations

from dataclasses import replace

from remit.backends.base import Handle
from remit.backends.outcome import Usage
from remit.backends.sampling import Sampling
from remit.sandbox import AttemptCgroup, boot_id, pid_namespace, start_time


def handle_of(pid: int, cgroup: AttemptCgroup | None) -> Handle:
    """How to find the attempt again whose outermost process is `pid`."""
    paths = tuple(str(path) for path in cgroup.paths) if cgroup else ()
    return Handle(pid, start_time(pid) or 0, boot_id(), paths)


def with_init(handle: Handle, init: int) -> Handle:
    """The same attempt, by now with the init of its pid namespace."""
    return replace(handle, init=init, init_start_time=start_time(init) or 0, pid_namespace=pid_namespace(init) or 0)


def usage_of(cgroup: AttemptCgroup | None, sampler: Sampling | None, *, beside: int) -> Usage:
    """`beside` tasks in the cgroup are the sandbox's own."""
    if cgroup is None:
        return sampler.usage() if sampler else Usage()
    used = cgroup.usage()
    return Usage(
        cpu_seconds=used.cpu_seconds or 0.0,
        max_memory_bytes=used.max_memory_bytes or 0,
        read_bytes=used.read_bytes or 0,
        written_bytes=used.written_bytes or 0,
        throttled_seconds=used.throttled_seconds or 0.0,
        max_tasks=max(0, (used.max_tasks or 0) - beside),
        source="cgroup",
    )
