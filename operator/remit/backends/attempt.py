"""Run one command in namespaces, from its start until its whole process tree is dead."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from remit.backends.accounts import handle_of, usage_of, with_init
from remit.backends.base import AttemptRequest, Handle, OutputSink
from remit.backends.blocking import in_thread_or_undone
from remit.backends.child import Child, first_of
from remit.backends.ending import Ending, conclude, not_stored
from remit.backends.exceeded import exceeded
from remit.backends.filetree import DescriptorTree, collected
from remit.backends.hostmounts import open_mounts
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.sampling import Sampling
from remit.backends.status import StatusPipe
from remit.backends.stdinfeed import opened_pipe
from remit.sandbox import (
    AttemptCgroup,
    Bubblewrap,
    CgroupSpec,
    Launch,
    Limits,
    Plan,
    kill_session,
    rlimits,
)
from remit.sandbox.bubblewrap import HOST_NAME
from remit.sandbox.inside import open_inside
from remit.sandboxpaths import WORKSPACE

if TYPE_CHECKING:
    from remit.backends.egress.listener import EgressListener

_BUILDING_SECONDS = 0.001
BUBBLEWRAP_TASKS = 2
"""bubblewrap's monitor and the namespace's init are counted with the attempt: a limit of N means N of its own."""


class ProcessAttempt:
    """Used once: `run` starts, confines, watches, stops and accounts for one command in namespaces."""

    def __init__(
        self,
        request: AttemptRequest,
        chosen: Plan,
        bubblewrap: Bubblewrap,
        sink: OutputSink,
        read_only_paths: Sequence[str] = (),
        listener: EgressListener | None = None,
        protected: Sequence[str] = (),
    ) -> None:
        """`listener` is the way out of a sandbox whose network is restricted; of `protected` nothing is mounted."""
        self._request = request
        self._plan = chosen
        self._bubblewrap = bubblewrap
        self._sink = sink
        self._read_only_paths = read_only_paths
        self._listener = listener
        self._protected = protected
        self._sink_failed = asyncio.Event()
        self.may_have_run = False
        """Whether the program may have started. From then on a failure must not be retried."""

    async def run(self, cancel: asyncio.Event, on_started: Callable[[Handle], None] | None) -> Outcome:
        """Raises what `Backend.run` does, and OSError where the kernel refused a descriptor, a cgroup or a process."""
        command, confinement = self._request.command, self._request.confinement
        limits = _counting_bubblewrap(confinement.limits)
        held = self._plan.cgroups.controllers if self._plan.cgroups else frozenset()
        async with contextlib.AsyncExitStack() as stack:
            identities = self._bubblewrap.identities
            feed = await stack.enter_async_context(opened_pipe(self._request, identities, self._protected))
            mounts = None
            if confinement.mounts:
                stages = self._bubblewrap.mounts_by == "staging"
                mounts = await open_mounts(confinement, identities, self._protected, stages=stages)
                if mounts.change_hands:
                    await in_thread_or_undone(mounts.take_over, mounts.close)
                stack.callback(mounts.close)
            launch = Launch(
                self._bubblewrap,
                executable=command.executable,
                argv=command.argv,
                env={**command.env, **self._listener.environment} if self._listener else command.env,
                files=self._request.files,
                network=confinement.network,
                disk_bytes=confinement.limits.disk_bytes,
                working_dir=confinement.working_dir,
                read_only_paths=self._read_only_paths,
                rlimits=rlimits(limits, controllers=held),
                system_call_filter=self._plan.system_call_filter,
                landlock_scopes=self._plan.landlock_scopes,
                mounts=mounts,
            )
            stack.callback(launch.close)
            tree = self._plan.cgroups
            spec = CgroupSpec(tree, limits, self._plan.disks) if tree else None
            status = StatusPipe(launch.status_fd)
            stack.callback(status.close)
            job = functools.partial(launch.job, cgroup=spec)
            stdin = feed.source if feed else command.stdin
            child = await Child.start(job, stdin, self._sink, self._sink_failed, launch.uid)
            stack.push_async_callback(child.close)
            cgroup = child.cgroup
            handle, record = handle_of(child.pid, cgroup), on_started or _not_recorded
            stopped, sampler = None, None
            places: dict[str, int] = {}
            try:
                launch.begun()
                if mounts:
                    mounts.close()
                if feed:
                    feed.begin(self._sink_failed.set)
                record(handle)
                started = time.monotonic()
                self.may_have_run = True
                launch.release()
                timeout = self._request.timeout_seconds
                await first_of((status.reported, child.exited, cancel, self._sink_failed), timeout)
                if status.init:
                    record(with_init(handle, status.init.pid))
                    if self._listener:
                        await self._listener.open(status.init)
                    if self._request.collector:
                        mounted = [mount.mount_path for mount in confinement.mounts]
                        places = await _open_places(status, child, [WORKSPACE, *mounted])
                        for descriptor in places.values():
                            stack.callback(os.close, descriptor)
                    await launch.count_processes(status.init.pid)
                    launch.enter()
                sampler = None if cgroup else Sampling(child.pid)
                left = timeout - (time.monotonic() - started)
                stopped = await child.until_over(cancel, self._sink_failed, left)
                if stopped:
                    await self._ask_to_end(child, status)
            finally:
                try:
                    await _kill(child, status, cgroup)
                    if child.failure:
                        await asyncio.to_thread(kill_session, handle.pid, handle.start_time, HOST_NAME)
                    if sampler:
                        await sampler.stop()
                finally:
                    network = await self._listener.close() if self._listener else None
            finished_at, wall = datetime.now(UTC), time.monotonic() - started
            await child.drain()
            if child.failure:
                self.may_have_run = not child.refused
                raise child.failure
            if child.sink_failure:
                raise not_stored(child.sink_failure, completed=not stopped and status.exit_code == 0)
            if feed and stopped is ExitReason.CANCELLED and not cancel.is_set():
                feed.check()
            met = exceeded(
                exit_code=status.exit_code,
                oom_kills=cgroup.oom_kills() if cgroup else 0,
                refused_tasks=cgroup.refused_tasks() if cgroup else None,
                stderr=child.last_stderr,
                timed_out=stopped is ExitReason.TIMED_OUT,
            )
            ending = Ending(
                stopped=stopped,
                exit_code=status.exit_code,
                returncode=child.returncode,
                exceeded=met,
                stderr=child.first_stderr,
            )
            outcome = replace(
                conclude(ending, self._request),
                finished_at=finished_at,
                usage=replace(usage_of(cgroup, sampler, beside=BUBBLEWRAP_TASKS), wall_seconds=wall),
                layers=self._plan.layers,
                missing=self._plan.missing,
                enforced_by=self._plan.enforced_by,
                network=network,
            )
            if self._request.collector and places:
                made = DescriptorTree(places, launch.uid)
                outcome = await collected(self._request.collector, made, outcome)
            return outcome

    async def _ask_to_end(self, child: Child, status: StatusPipe) -> None:
        """Send TERM to the command's process group, and CONT so that a stopped process receives it, and wait for the
        grace period."""
        if status.init is None or self._request.grace_seconds <= 0:
            return
        status.init.signal_group(signal.SIGTERM)
        status.init.signal_group(signal.SIGCONT)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._request.grace_seconds):
                await child.exited.wait()


async def _open_places(status: StatusPipe, child: Child, paths: Sequence[str]) -> dict[str, int]:
    """Open those of `paths` that are folders in the sandbox, as soon as it is built; empty if the child ended first.

    The program waits meanwhile. bubblewrap does not report when the filesystem is complete, so this polls. Raises
    BackendError.
    """
    while status.init and not child.exited.is_set():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if (found := open_inside(status.init.pid, paths)) is not None:
                return found
        await first_of((child.exited,), _BUILDING_SECONDS)
    return {}


async def _kill(child: Child, status: StatusPipe, cgroup: AttemptCgroup | None) -> None:
    """Kill the whole process tree and wait until it is dead. When the init of a PID namespace is dead, so are all of
    its processes."""
    child.kill()
    await child.death()
    status.read()
    if status.init:
        status.init.kill()
        await status.init.death()
    if cgroup and cgroup.occupied:
        await asyncio.to_thread(cgroup.kill)


def _not_recorded(_: Handle) -> None:
    """The recorder of attempts that are not recovered after a restart."""


def _counting_bubblewrap(limits: Limits) -> Limits:
    return limits if limits.pids is None else replace(limits, pids=limits.pids + BUBBLEWRAP_TASKS)
