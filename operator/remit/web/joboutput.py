"""Reads the output of a task where the operator's files are not on this machine: from the pods of its Jobs, read with
the viewer's own permissions, and else the end of it that status has."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

from remit.agent.logs import LogChunk, Wanted, chosen
from remit.agent.podlogs import FORBIDDEN, NOTHING_THERE, JobLog, lines, pod_of_attempt
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.errors import ApiError
from remit.web.viewer import Viewer

_MOST_BYTES: Final = 4 << 20
"""Limit of the output that is there at first."""
_PAUSE_SECONDS: Final = 1.0
_NOT_REDACTED: Final = "From the pod's log, in which secrets are not redacted."
_NOT_A_JOB: Final = (
    "It runs in the operator's pod, which keeps what it writes on its volume. Once it has ended, the end of it is here."
)
_TOO_MANY: Final = "This waits until fewer logs are followed; close pages that show one."

Parts = AsyncGenerator[LogChunk | str | AttemptStatus, None]
Refresh = Callable[[], Awaitable[ExecutionTask]]


@dataclass
class JobOutput:
    """The output of one task: the lines of attempt `number` and later ones, or of the latest and later ones."""

    viewer: Viewer
    task: ExecutionTask
    number: int | None
    tail: int
    """Lines of each stream that an attempt begins with."""
    _told: set[str] = field(default_factory=set)
    _whole: set[int] = field(default_factory=set)
    """Attempts whose output was shown to its end."""
    _begun: set[int] = field(default_factory=set)
    """Attempts of which something was shown."""

    async def parts(self, again: Refresh) -> Parts:
        """Lines as `LogChunk`, notes as text, and attempts whose end status is all that there is. `again` gives the
        newest state of the task. Raises `ApiError`, and `InvalidInput` for an attempt that it does not have."""
        attempt = chosen(self.task, self.number)
        following = attempt.number if attempt else 1
        while True:
            for attempt in self.task.status.attempts:
                if attempt.number < following:
                    continue
                if attempt.number not in self._begun:
                    async with contextlib.aclosing(self._log_of(attempt)) as parts:
                        async for part in parts:
                            yield part
                    self.task = await again()
                known = next((each for each in self.task.status.attempts if each.number == attempt.number), attempt)
                if known.finished_at is not None:
                    following = attempt.number + 1
                    if attempt.number not in self._whole:
                        yield known
            if self.task.status.phase is not None and self.task.status.phase.final:
                return
            await asyncio.sleep(_PAUSE_SECONDS)
            self.task = await again()

    async def _log_of(self, attempt: AttemptStatus) -> Parts:
        kube = self.viewer.kube
        if attempt.backend != "kubernetes":
            for note in self._once(_NOT_A_JOB) if attempt.finished_at is None else ():
                yield note
            return
        try:
            if (pod := await pod_of_attempt(kube, self.task, attempt)) is None:
                return
            log = JobLog(kube, pod, _MOST_BYTES)
            going = attempt.finished_at is None
            for note in self._once(_TOO_MANY) if self.viewer.logs.locked() else ():
                yield note
            async with self.viewer.logs:
                chunks = lines(log.pieces(follow=going), Wanted(tail=self.tail), attempt=attempt.number)
                async with contextlib.aclosing(chunks):
                    async for chunk in chunks:
                        for note in self._once(_NOT_REDACTED):
                            yield note
                        self._begun.add(attempt.number)
                        yield chunk
        except ApiError as error:
            if error.status == FORBIDDEN:
                for note in self._once(f"You may not read the log of its pod: {error}"):
                    yield note
            elif error.status not in NOTHING_THERE:
                raise
        else:
            if log.is_whole:
                self._begun.add(attempt.number)
                self._whole.add(attempt.number)
            elif log.complaint:
                yield log.complaint

    def _once(self, note: str) -> list[str]:
        if note in self._told:
            return []
        self._told.add(note)
        return [note]
