"""How the program in a Job tells what became of a file operation, and how its operator understands it. Pure.

What the operation found is the program's standard output. The report is the last line of its standard error.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Final

import orjson

from remit.api.operations import FileOperation
from remit.backends.base import OutputSink, Stream
from remit.backends.outcome import INTERRUPTIONS, ExitReason, Outcome
from remit.operations.base import doubted

STOPPED_CODE: Final = 143
"""The program's exit code after it heard SIGTERM and stopped, as if the signal had ended it."""
_START: Final = b'{"report":'
_MOST_BYTES: Final = 64 << 10
"""Limit of standard error. Its end is kept, because that has the report."""
_READING: Final = frozenset({"read", "list", "stat", "checksum"})
_MAY_HAVE: Final = "nobody knows whether it was performed"
_INTERRUPTED: Final = "the operation was ended from outside"


@dataclass(frozen=True, slots=True)
class Report:
    """`reason` is empty where it was performed. `stopped`: it was told to stop, and did. `in_doubt`: what may have
    taken place all the same."""

    message: str
    reason: str = ""
    category: str = ""
    retryable: bool = True
    stopped: bool = False
    in_doubt: str = ""

    def encode(self) -> bytes:
        return orjson.dumps({"report": asdict(self)}) + b"\n"

    @classmethod
    def decode(cls, line: bytes) -> Report | None:
        """None for what is no report."""
        try:
            said = orjson.loads(line)["report"]
            report = cls(**said)
        except (orjson.JSONDecodeError, KeyError, TypeError):
            return None
        texts = (report.message, report.reason, report.category, report.in_doubt)
        sound = all(isinstance(text, str) for text in texts)
        return report if sound and report.retryable in (True, False) and report.stopped in (True, False) else None


def changes(file: FileOperation) -> bool:
    """Whether it leaves anything else than it was."""
    return file.operation not in _READING and not file.dry_run


class ReportedOutput:
    """Takes an attempt's output: passes on what was found to `output`, and keeps the report for `conclude`."""

    def __init__(self, file: FileOperation, output: OutputSink) -> None:
        self.changes = changes(file)
        """Whether it must not be done a second time unsaid."""
        self._output, self._said = output, b""

    def write(self, stream: Stream, chunk: bytes) -> None:
        """See `OutputSink.write`."""
        if stream == "stdout":
            self._output.write(stream, chunk)
        else:
            self._said = (self._said + chunk)[-_MOST_BYTES:]

    def conclude(self, outcome: Outcome) -> Outcome:
        """How the operation ended whose Job ended so."""
        report, lost = self._report(), _lost(outcome)
        outcome = replace(outcome, exit_code=None)
        if report is None:
            return self._unreported(outcome)
        # Also if the operation completed before the cancellation reached it.
        if not report.reason and not report.stopped:
            return replace(outcome, reason=ExitReason.COMPLETED, message=f"{report.message}{lost}")
        if report.stopped and outcome.reason in {ExitReason.EXIT_CODE, ExitReason.SIGNALED}:
            outcome = replace(outcome, reason=ExitReason.INTERRUPTED, message=_INTERRUPTED)
        elif outcome.reason == ExitReason.EXIT_CODE:
            outcome = replace(
                outcome,
                reason=report.reason,
                message=f"{report.message}{lost}",
                category=report.category,
                retryable=report.retryable,
            )
        elif report.message:
            outcome = replace(outcome, message=f"{outcome.message}; {report.message}")
        return doubted(outcome, report.in_doubt) if report.in_doubt else outcome

    def _unreported(self, outcome: Outcome) -> Outcome:
        if outcome.reason == ExitReason.COMPLETED:
            return outcome
        if outcome.reason == ExitReason.EXIT_CODE:
            said = self._said.decode(errors="replace").strip().rpartition("\n")[2][-500:]
            message = f"Remit's own program broke down in its Job{f': {said}' if said else ''}"
            outcome = replace(outcome, reason=ExitReason.INTERNAL_ERROR, message=message)
        may_have_run = outcome.usage is not None or outcome.reason in INTERRUPTIONS
        return doubted(outcome, _MAY_HAVE) if self.changes and may_have_run else outcome

    def _report(self) -> Report | None:
        lines = [line for line in self._said.split(b"\n") if line.startswith(_START)]
        return Report.decode(lines[-1]) if lines else None


def _lost(outcome: Outcome) -> str:
    """The backend's message about output that it could not read."""
    _, semicolon, rest = outcome.message.partition("; ")
    ends_by_itself = outcome.reason in {ExitReason.COMPLETED, ExitReason.EXIT_CODE}
    return f"{semicolon}{rest}" if ends_by_itself else ""
