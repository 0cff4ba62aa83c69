"""Run an attempt as confined processes on this host."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from remit.backends.attempt import ProcessAttempt
from remit.backends.bare import BareAttempt
from remit.backends.base import AttemptRequest, Handle, OutputSink
from remit.backends.egress.listeners import EgressListeners
from remit.backends.ending import CANCELLED_MESSAGE
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.backends.recovery import recover
from remit.errors import BackendError, OutcomeUnknown
from remit.sandbox import Host, Plan, explain_absence, plan, probe_host

if TYPE_CHECKING:
    from remit.backends.egress.listener import EgressListener


class ProcessBackend:
    """Runs commands in bubblewrap, each in its own PID namespace and, if cgroups are writable, its own cgroup.

    Where the host has no namespaces and the policy accepts that, it runs them under Landlock.

    `read_only_paths` are folders outside /usr that every attempt may read and execute, such as /opt or a Python
    installation; the operator chooses them, and the default is none. `host` is probed if it is not given. `listeners`
    creates the egress listeners of sandboxes with a restricted network; all backends of an operator share one.
    `protected` are the operator's own files and folders, which are never mounted.
    """

    name = "process"

    def __init__(
        self,
        host: Host | None = None,
        *,
        read_only_paths: Sequence[str] = (),
        listeners: EgressListeners | None = None,
        protected: Sequence[str] = (),
    ) -> None:
        self.host = host or probe_host()
        self._read_only_paths = tuple(read_only_paths)
        self._listeners = listeners or EgressListeners()
        self._protected = tuple(protected)

    async def run(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None] | None = None,
    ) -> Outcome:
        """See `Backend.run`."""
        chosen = plan(request.confinement, self.host)
        if cancel.is_set():
            return _not_started(chosen, ExitReason.CANCELLED, CANCELLED_MESSAGE)
        attempt = self._attempt(request, chosen, sink)
        try:
            outcome = await attempt.run(cancel, on_started)
        except OSError as error:
            if error.errno == errno.E2BIG:
                return _not_started(chosen, ExitReason.START_FAILED, "the arguments are longer than the kernel allows")
            failed = OutcomeUnknown if attempt.may_have_run else BackendError
            raise failed(f"the process backend could not run an attempt: {error}") from error
        hint = ""
        if outcome.reason == ExitReason.START_FAILED:
            seen = (*self._read_only_paths, *(mount.mount_path for mount in request.confinement.mounts))
            hint = await asyncio.to_thread(explain_absence, request.command.executable, seen)
        return replace(outcome, message=f"{outcome.message}; {hint}") if hint else outcome

    def _attempt(self, request: AttemptRequest, chosen: Plan, sink: OutputSink) -> ProcessAttempt | BareAttempt:
        if chosen.bubblewrap:
            listener = self._listener(request)
            return ProcessAttempt(
                request, chosen, chosen.bubblewrap, sink, self._read_only_paths, listener, self._protected
            )
        if chosen.bare:
            return BareAttempt(request, chosen, chosen.bare, sink, self._read_only_paths, self._protected)
        raise BackendError("the plan names no engine")

    def _listener(self, request: AttemptRequest) -> EgressListener | None:
        if request.confinement.network != "restricted":
            return None
        return self._listeners.create(request.egress, request.confinement.limits.network_bytes_per_second)

    async def recover(self, handle: Handle) -> bool:
        """See `Backend.recover`."""
        return await asyncio.to_thread(recover, handle)


def _not_started(chosen: Plan, reason: ExitReason, message: str) -> Outcome:
    return Outcome(reason, message, usage=Usage(), layers=chosen.layers, missing=chosen.missing)
