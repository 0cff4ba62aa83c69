"""The logs of pods on a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from remit.agent.podlogs import FORBIDDEN, NOTHING_THERE, JobLog, PushedReader, dispatch, instance_log, pod_of_attempt
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.cli.follow import Selection, Shown
from remit.cli.terminal import LogWriter
from remit.errors import ApiError, RemitError
from remit.kube.client import Kube, Object


async def show(
    kube: Kube,
    task: ExecutionTask,
    attempt: AttemptStatus,
    screen: LogWriter,
    selection: Selection,
    *,
    follow: bool,
    tell: Callable[[str], None],
) -> bool:
    """Show the output of an attempt from its Job's pod. False where there is none, or where it may not be read.

    Raises `ApiError` where the server does not answer.
    """
    try:
        pod = await pod_of_attempt(kube, task, attempt)
        if pod is None:
            return False
        await _show_job(JobLog(kube, pod), screen, selection, follow, tell)
    except ApiError as error:
        if error.status == FORBIDDEN:
            tell(f"the log of the pod of attempt {attempt.number} may not be read: {error}")
        if error.status == FORBIDDEN or error.status in NOTHING_THERE:
            return False
        raise
    return True


async def _show_job(
    log: JobLog, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]
) -> None:
    readers = {stream: PushedReader() for stream in screen.streams}
    shown = Shown(readers, screen, selection, tell)
    is_told = False
    async with contextlib.aclosing(log.pieces(follow=follow)) as pieces:
        async for batch in pieces:
            if log.records.last and not is_told:
                tell("[from the pod's log, in which secrets are not redacted]")
                is_told = True
            dispatch(batch, readers)
            shown.advance()
    shown.close()
    if log.complaint:
        tell(log.complaint)


@dataclass(frozen=True, slots=True)
class PodSource:
    """The instance of a release to Kubernetes. What it wrote to both streams is one."""

    label: str
    kube: Kube
    pod: Object
    previous: bool

    async def show(self, screen: LogWriter, selection: Selection, follow: bool, tell: Callable[[str], None]) -> None:
        """See `Source.show`."""
        reader = PushedReader()
        stream: Stream = screen.streams[0]
        shown = Shown({stream: reader}, screen, selection, tell)
        log = instance_log(self.kube, self.pod, follow=follow, previous=self.previous)
        try:
            async with contextlib.aclosing(log):
                async for batch in log:
                    for said in batch:
                        reader.put(said.data, said.moment)
                    shown.advance()
        except ApiError as error:
            raise RemitError(f"the log of {self.label} cannot be read: {error}") from None
        shown.close()
