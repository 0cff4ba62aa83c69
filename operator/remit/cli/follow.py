"""Shows a task's output as it comes: from the run store where that is on this machine, or from its Job's pod, else the
tails in status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from remit.api import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.cli.connect import Connection
from remit.cli.observe import Observed
from remit.cli.podlogs import PodOutput
from remit.cli.terminal import Screen, note
from remit.errors import RemitError
from remit.execution.output import RAW
from remit.execution.reading import OutputReader

UNREDACTED = "[from the log of the pod, as your own permissions allow; secrets in it are shown]"
POLL_SECONDS = 0.1
"""How often the files of a run in progress are looked at. A run that is followed is watched by a person."""


@dataclass
class Shown:
    """One attempt's output, as far as it has been shown."""

    directory: Path
    screen: Screen
    _readers: dict[Stream, OutputReader] = field(default_factory=dict)
    _gaps: int = 0

    def __post_init__(self) -> None:
        self._readers = {stream: OutputReader(self.directory, stream) for stream in self.screen.streams}

    def advance(self) -> None:
        """Show what has come since."""
        for stream, reader in self._readers.items():
            while data := reader.read():
                if reader.gaps:
                    note(f"[… more was written to {stream} than is kept; some is left out here …]")
                    reader.gaps = 0
                self.screen.write(stream, data)

    def close(self) -> None:
        self.advance()
        for reader in self._readers.values():
            reader.close()


@dataclass
class Follower:
    """Follows the attempts of one task, from `first` on. `tell` is given sentences about what happens in between.

    Raw output, which may have secrets in it, is shown where `raw_output` is set; otherwise the redacted end that status
    has of it.
    """

    connection: Connection
    observed: Observed
    screen: Screen
    first: int = 1
    tell: Callable[[str], None] = note
    raw_output: bool = False
    _open: dict[int, Shown] = field(default_factory=dict)
    _pods: dict[int, PodOutput] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    _told: str = ""

    async def to_the_end(self) -> ExecutionTask:
        """Until the task is finished. Gives its final state. Raises `NotTakenUp` where no operator looks at it."""
        await self.observed.taken_up(self.tell)
        while True:
            task = self.observed.task
            for attempt in task.status.attempts:
                if attempt.number >= self.first and attempt.number not in self._done:
                    await self._show(task, attempt)
            self._narrate(task)
            if task.status.phase is not None and task.status.phase.final:
                return task
            # Also before the run has a directory: an attempt is in status before it is on disk.
            going = any(attempt.finished_at is None for attempt in task.status.attempts)
            await self.observed.changed(within=POLL_SECONDS if going else None)

    async def _show(self, task: ExecutionTask, attempt: AttemptStatus) -> None:
        shown = self._open.get(attempt.number) or self._find(task, attempt)
        if attempt.finished_at is None:
            if shown:
                shown.advance()
            elif pod := self._pod(task, attempt):
                pod.follow()
            return
        pod = self._pods.pop(attempt.number, None)
        if pod is not None:
            await pod.close()
        if shown:
            shown.close()
        elif pod is None or not pod.shown_bytes:
            show_tails(task, attempt, self.screen)
        if changed := _redactions(task, attempt):
            self.tell(changed)
        self._open.pop(attempt.number, None)
        self._done.add(attempt.number)

    def _find(self, task: ExecutionTask, attempt: AttemptStatus) -> Shown | None:
        metadata = task.metadata
        directory = self.connection.run_directory(metadata.namespace, metadata.uid, attempt.id)
        if directory is None:
            return None
        if task.spec.output.raw:
            if not self.raw_output:
                return None
            self.tell(_raw_is_shown(attempt))
            directory = directory / RAW
        self._open[attempt.number] = Shown(directory, self.screen)
        return self._open[attempt.number]

    def _pod(self, task: ExecutionTask, attempt: AttemptStatus) -> PodOutput | None:
        """Only for who asks for output as it is: nobody has redacted what is in a pod's log."""
        if not self.raw_output:
            return None
        kube, number = self.connection.kube, attempt.number
        if number not in self._pods and (pod := PodOutput.of(kube, task, attempt, self.screen, self.tell)):
            self.tell(UNREDACTED)
            self._pods[number] = pod
        return self._pods.get(number)

    def _narrate(self, task: ExecutionTask) -> None:
        """What people wait for: a turn in the queue, a missing Secret, the next attempt."""
        phase = task.status.phase
        if phase in {"Pending", "Queued", "Backoff"} and task.status.message != self._told:
            self._told = task.status.message
            self.tell(task.status.message)


def show_once(connection: Connection, task: ExecutionTask, attempt: AttemptStatus, screen: Screen) -> None:
    """What there is of one attempt's output at this moment."""
    metadata = task.metadata
    directory = connection.run_directory(metadata.namespace, metadata.uid, attempt.id)
    if directory is None:
        show_tails(task, attempt, screen)
    elif task.spec.output.raw:
        note(_raw_is_shown(attempt))
        Shown(directory / RAW, screen).close()
    else:
        Shown(directory, screen).close()
    if changed := _redactions(task, attempt):
        note(changed)


def _redactions(task: ExecutionTask, attempt: AttemptStatus) -> str:
    """What is to be told of redactions in the output of `attempt`, as far as status has it: of the last that ended."""
    output = task.status.output
    latest = max((each.number for each in task.status.attempts if each.finished_at is not None), default=0)
    known = output is not None and output.altered and attempt.number == latest
    return output.changed(attempt.number) if output is not None and known else ""


def _raw_is_shown(attempt: AttemptStatus) -> str:
    return f"the output of attempt {attempt.number} is kept as written; secrets in it are shown"


def show_tails(task: ExecutionTask, attempt: AttemptStatus, screen: Screen) -> None:
    """The ends of the output as status has them: those of the last attempt that ended."""
    output = task.status.output
    latest = max((a.number for a in task.status.attempts if a.finished_at is not None), default=0)
    if output is None or attempt.number != latest:
        where = "is kept on the operator's host, and is in status once the attempt has ended"
        note(f"the output of attempt {attempt.number} {where}")
        return
    tails: dict[Stream, tuple[str, int]] = {
        "stdout": (output.stdout_tail, output.stdout_bytes),
        "stderr": (output.stderr_tail, output.stderr_bytes),
    }
    for stream in screen.streams:
        text, size = tails[stream]
        if output.raw and size:
            note(
                f"[only the redacted end of {size} bytes of {stream}; all is kept as written on the operator's host,"
                f" where 'remit logs {task.metadata.name}' shows it: {output.ref}]"
            )
        elif size > len(text.encode()):
            note(
                f"[only the end of {size} bytes of {stream}; all that is kept is on the operator's host: {output.ref}]"
            )
        screen.write(stream, text.encode())


def chosen_attempt(task: ExecutionTask, number: int | None) -> AttemptStatus | None:
    """Attempt `number` or the latest one; None when there was none yet. Raises `RemitError` where it is not there."""
    attempts = task.status.attempts
    if number is None:
        return attempts[-1] if attempts else None
    found = next((attempt for attempt in attempts if attempt.number == number), None)
    if found is None:
        there = ", ".join(str(attempt.number) for attempt in attempts) or "none"
        raise RemitError(f"task {task.key} has no attempt {number} in its status; there are: {there}")
    return found
