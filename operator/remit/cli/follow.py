"""Shows a task's output as it comes: from the run store where that is on this machine, else the tails in status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.cli.observe import Observed
from remit.cli.terminal import LogWriter, note
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.execution.keptoutput import is_pruned
from remit.execution.lines import LineReader, Reader, last_lines
from remit.execution.output import RAW
from remit.execution.reading import OutputReader

POLL_SECONDS = 0.1
"""How often the files of a run in progress are looked at. A run that is followed is watched by a person."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which lines are shown, and how. By default all bytes as they are."""

    tail: int | None = None
    """How many of the last existing lines of each stream are shown; None: all."""
    since: datetime | None = None
    timestamps: bool = False
    by_line: bool = False
    """Also where nothing above is set."""

    @property
    def is_all(self) -> bool:
        return self.tail is None and self.since is None and not self.timestamps and not self.by_line

    @property
    def needs_times(self) -> bool:
        return self.since is not None or self.timestamps


class Shown:
    """The readers' progress in each stream, as far as it has been shown. `tell` is told what is missing."""

    def __init__(
        self,
        readers: Mapping[Stream, Reader],
        screen: LogWriter,
        selection: Selection = Selection(),
        tell: Callable[[str], None] = note,
    ) -> None:
        self._readers, self._screen, self._selection, self._tell = readers, screen, selection, tell
        lines = selection.tail, selection.since
        self._lines = {} if selection.is_all else {name: LineReader(each, *lines) for name, each in readers.items()}

    def advance(self, *, at_end: bool = False) -> None:
        """Show what has come since. `at_end`: nothing more will."""
        for stream, lines in self._lines.items():
            for line in lines.lines(at_end=at_end):
                if line.gap:
                    self._tell_gap(stream)
                self._screen.write_line(stream, self._stamp(line.time), line.data)
        if self._lines:
            return
        for stream, reader in self._readers.items():
            while data := reader.read():
                if reader.gaps:
                    self._tell_gap(stream)
                    reader.gaps = 0
                self._screen.write(stream, data)

    def close(self) -> None:
        """Show the rest."""
        self.advance(at_end=True)
        self.release()

    def release(self) -> None:
        """Show nothing more."""
        for reader in self._readers.values():
            reader.close()

    def _tell_gap(self, stream: Stream) -> None:
        self._tell(f"[… more was written to {stream} than is kept; some is left out here …]")

    def _stamp(self, time: datetime | None) -> bytes:
        if not self._selection.timestamps:
            return b""
        return b"- " if time is None else f"{time:%FT%T.%fZ} ".encode()


def shown_run(
    directory: Path,
    screen: LogWriter,
    selection: Selection = Selection(),
    tell: Callable[[str], None] = note,
) -> Shown:
    """The output of the run in `directory`."""
    return Shown({stream: OutputReader(directory, stream) for stream in screen.streams}, screen, selection, tell)


@dataclass
class Follower:
    """Follows the attempts of one task, from `first` on. `tell` is given sentences about what happens in between.

    Raw output, which may have secrets in it, is shown where `raw_output` is set; otherwise the redacted end that status
    has of it.
    """

    connection: Connection
    observed: Observed
    screen: LogWriter
    first: int = 1
    tell: Callable[[str], None] = note
    raw_output: bool = False
    selection: Selection = Selection()
    _open: dict[int, Shown] = field(default_factory=dict)
    _done: set[int] = field(default_factory=set)
    _told: str = ""

    async def to_the_end(self) -> ExecutionTask:
        """Follow the task until it is finished, and return its final state. Raises `NotTakenUp` where no operator looks
        at it."""
        try:
            return await self._follow()
        finally:
            for shown in self._open.values():
                shown.release()

    async def _follow(self) -> ExecutionTask:
        await self.observed.taken_up(self.tell)
        while True:
            task = self.observed.task
            for attempt in task.status.attempts:
                if attempt.number >= self.first and attempt.number not in self._done:
                    self._show(task, attempt)
            self._narrate(task)
            if task.status.phase is not None and task.status.phase.final:
                return task
            # Poll also before the run has a directory, because an attempt appears in status before it is on disk.
            going = any(attempt.finished_at is None for attempt in task.status.attempts)
            await self.observed.changed(within=POLL_SECONDS if going else None)

    def _show(self, task: ExecutionTask, attempt: AttemptStatus) -> None:
        shown = self._open.get(attempt.number) or self._find(task, attempt)
        if attempt.finished_at is None:
            if shown:
                shown.advance()
            return
        if shown:
            shown.close()
        else:
            show_tails(task, attempt, self.screen, self.selection, self.tell if self.selection.by_line else note)
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
        self._open[attempt.number] = shown_run(directory, self.screen, self.selection, self.tell)
        return self._open[attempt.number]

    def _narrate(self, task: ExecutionTask) -> None:
        """Tell people what they wait for: a turn in the queue, a missing Secret, the next attempt."""
        phase = task.status.phase
        if phase in {"Pending", "Queued", "Backoff"} and task.status.message != self._told:
            self._told = task.status.message
            self.tell(task.status.message)


def show_once(
    connection: Connection,
    task: ExecutionTask,
    attempt: AttemptStatus,
    screen: LogWriter,
    selection: Selection = Selection(),
    tell: Callable[[str], None] = note,
) -> None:
    """Show the present output of one attempt."""
    metadata = task.metadata
    directory = connection.run_directory(metadata.namespace, metadata.uid, attempt.id)
    if directory is not None and is_pruned(directory):
        tell(f"the output of attempt {attempt.number} was removed, because it was old or to make room")
        show_tails(task, attempt, screen, selection, tell)
    elif directory is None:
        show_tails(task, attempt, screen, selection, tell)
    elif task.spec.output.raw:
        tell(_raw_is_shown(attempt))
        shown_run(directory / RAW, screen, selection, tell).close()
    else:
        shown_run(directory, screen, selection, tell).close()
    if changed := _redactions(task, attempt):
        tell(changed)


def _redactions(task: ExecutionTask, attempt: AttemptStatus) -> str:
    """What is to be told of redactions in the output of `attempt`, as far as status has it: of the last that ended."""
    output = task.status.output
    known = output is not None and output.altered and attempt.number == _last_ended(task)
    return output.changed(attempt.number) if output is not None and known else ""


def _last_ended(task: ExecutionTask) -> int:
    """The number of the attempt whose output status has; 0 before the first one has ended."""
    return max((each.number for each in task.status.attempts if each.finished_at is not None), default=0)


def _raw_is_shown(attempt: AttemptStatus) -> str:
    return f"the output of attempt {attempt.number} is kept as written; secrets in it are shown"


def show_tails(
    task: ExecutionTask,
    attempt: AttemptStatus,
    screen: LogWriter,
    selection: Selection = Selection(),
    tell: Callable[[str], None] = note,
) -> None:
    """The ends of the output as status has them: those of the last attempt that ended."""
    output = task.status.output
    if output is None or attempt.number != _last_ended(task):
        where = "is kept on the operator's host, and is in status once the attempt has ended"
        tell(f"the output of attempt {attempt.number} {where}")
        return
    tails: dict[Stream, tuple[str, int]] = {
        "stdout": (output.stdout_tail, output.stdout_bytes),
        "stderr": (output.stderr_tail, output.stderr_bytes),
    }
    if selection.needs_times:
        tell("[when it was written is known on the operator's host only; --since and --timestamps change nothing here]")
    for stream in screen.streams:
        text, size = tails[stream]
        if output.raw and size:
            tell(
                f"[only the redacted end of {size} bytes of {stream}; all is kept as written on the operator's host,"
                f" where 'remit logs {task.metadata.name}' shows it: {output.ref}]"
            )
        elif size > len(text.encode()):
            tell(
                f"[only the end of {size} bytes of {stream}; all that is kept is on the operator's host: {output.ref}]"
            )
        screen.write(stream, last_lines(text.encode(), selection.tail))


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
