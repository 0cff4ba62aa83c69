"""One attempt without namespaces, from start to the death of its whole tree."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from remit.backends.accounts import handle_of, usage_of
from remit.backends.base import AttemptRequest, Handle, OutputSink
from remit.backends.child import Child
from remit.backends.ending import Ending, conclude, not_stored
from remit.backends.exceeded import Exceeded, exceeded
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.backends.sampling import Sampling
from remit.backends.stdinfeed import opened_pipe
from remit.sandbox import STOP, AttemptCgroup, Bare, BareLaunch, CgroupSpec, Plan, rlimits, tasks_of_this_user

_SHELL_SIGNAL_BASE = 128
_NOTHING_ELSE = 0


@dataclass(frozen=True, slots=True)
class _Report:
    """The report of the supervisor. No exit code: the command was not executed, and `refused` is why, if that is
    known."""

    exit_code: int | None = None
    refused: tuple[int, str] | None = None
    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0


class BareAttempt:
    """Used once: `run` starts, confines, watches, stops and accounts for one command."""

    def __init__(
        self,
        request: AttemptRequest,
        chosen: Plan,
        bare: Bare,
        sink: OutputSink,
        read_only_paths: Sequence[str] = (),
        protected: Sequence[str] = (),
    ) -> None:
        """No file in `protected` may be the standard input."""
        self._request = request
        self._plan = chosen
        self._bare = bare
        self._sink = sink
        self._read_only_paths = read_only_paths
        self._protected = protected
        self._sink_failed = asyncio.Event()
        self.may_have_run = False
        """Whether the program may have started. From then on a failure must not be retried."""

    async def run(self, cancel: asyncio.Event, on_started: Callable[[Handle], None] | None) -> Outcome:
        """Raises what `Backend.run` does, and OSError where the kernel refused a descriptor, a folder or a process."""
        command = self._request.command
        async with contextlib.AsyncExitStack() as stack:
            feed = await stack.enter_async_context(opened_pipe(self._request, self._bare.identities, self._protected))
            launch = BareLaunch(
                self._bare,
                executable=command.executable,
                argv=command.argv,
                env=command.env,
                files=self._request.files,
                working_dir=self._request.confinement.working_dir,
                read_only_paths=self._read_only_paths,
                rlimits=self._rlimits(),
                system_call_filter=self._plan.system_call_filter,
                landlock_scopes=self._plan.landlock_scopes,
            )
            stack.push_async_callback(asyncio.to_thread, launch.close)
            cgroup = None
            if self._plan.cgroups:
                spec = CgroupSpec(self._plan.cgroups, self._request.confinement.limits, self._plan.disks)
                cgroup = AttemptCgroup.create(spec, self._request.id)
                stack.push_async_callback(asyncio.to_thread, cgroup.remove)
            job = functools.partial(launch.job, cgroup=cgroup)
            stdin = feed.source if feed else command.stdin
            child = await Child.start(job, stdin, self._sink, self._sink_failed, launch.uid)
            stack.push_async_callback(child.close)
            stopped, sampler = None, None
            try:
                launch.begun()
                if feed:
                    feed.begin(self._sink_failed.set)
                if on_started:
                    on_started(handle_of(child.pid, cgroup))
                started = time.monotonic()
                self.may_have_run = True
                launch.release()
                sampler = None if cgroup else Sampling(child.pid)
                stopped = await child.until_over(cancel, self._sink_failed, self._request.timeout_seconds)
                if stopped and self._request.grace_seconds > 0:
                    child.send_signal(signal.SIGTERM)  # forward the signal to the command's process group
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(self._request.grace_seconds):
                            await child.exited.wait()
            finally:
                launch.call_off()
                child.send_signal(STOP)
                child.send_signal(signal.SIGCONT)
                await child.death()
                if cgroup and cgroup.occupied:
                    await asyncio.to_thread(cgroup.kill)
                if sampler:
                    await sampler.stop()
            finished_at, wall = datetime.now(UTC), time.monotonic() - started
            await child.drain()
            if child.failure:
                self.may_have_run = not child.refused
                raise child.failure
            report = _report(child.result)
            if child.sink_failure:
                raise not_stored(child.sink_failure, completed=not stopped and report.exit_code == 0)
            if feed and stopped is ExitReason.CANCELLED and not cancel.is_set():
                feed.check()
            met = exceeded(
                exit_code=report.exit_code,
                oom_kills=cgroup.oom_kills() if cgroup else 0,
                refused_tasks=cgroup.refused_tasks() if cgroup else None,
                stderr=child.last_stderr,
                timed_out=stopped is ExitReason.TIMED_OUT,
            )
            return replace(
                self._conclude(report, stopped, child, met),
                finished_at=finished_at,
                usage=replace(_with(usage_of(cgroup, sampler, beside=_NOTHING_ELSE), report), wall_seconds=wall),
                layers=self._plan.layers,
                missing=self._plan.missing,
                enforced_by=self._plan.enforced_by,
            )

    def _rlimits(self) -> dict[str, int]:
        limits = self._request.confinement.limits
        each = [size for size in (limits.file_bytes, limits.disk_bytes) if size is not None]
        held = self._plan.cgroups.controllers if self._plan.cgroups else frozenset()
        values = rlimits(replace(limits, file_bytes=min(each, default=None)), controllers=held)
        if "nproc" in values and self._bare.identities is None:
            values["nproc"] += tasks_of_this_user()  # the kernel counts all tasks of this user together
        return values

    def _conclude(
        self, report: _Report, stopped: ExitReason | None, child: Child, met: tuple[Exceeded, ...]
    ) -> Outcome:
        if report.refused and not stopped:
            number, said = report.refused
            if number == errno.E2BIG:
                raise OSError(number, said)
            inside = f"{self._request.command.executable} in {self._request.confinement.working_dir}"
            return Outcome(ExitReason.START_FAILED, f"could not be started: {inside}: {said}", exceeded=met)
        ending = Ending(
            stopped=stopped,
            exit_code=report.exit_code,
            returncode=child.returncode,
            exceeded=met,
            stderr=child.first_stderr,
        )
        return conclude(ending, self._request)


def _report(result: object) -> _Report:
    match result:
        case {"status": status, "refused": refused, "cpu_seconds": float(cpu), "max_memory_bytes": int(memory)}:
            executed = isinstance(status, int) and not refused
            return _Report(_exit_code(status) if executed else None, refused, cpu, memory)
        case _:
            return _Report()


def _exit_code(status: int) -> int:
    """The exit code as a shell reports it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _SHELL_SIGNAL_BASE - code


def _with(usage: Usage, report: _Report) -> Usage:
    """The sampled usage, or more, if the kernel counted more for the processes that were waited for."""
    if usage.source == "cgroup":
        return usage
    return replace(
        usage,
        cpu_seconds=max(usage.cpu_seconds, report.cpu_seconds),
        max_memory_bytes=max(usage.max_memory_bytes, report.max_memory_bytes),
    )
