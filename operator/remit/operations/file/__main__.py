"""Performs one file operation in a Job: what to do comes on standard input, see `handover` and `report`.

It is run isolated (`python -I`), so that nothing in an environment or in a working directory decides what it imports.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable

from remit.backends.outcome import ExitReason
from remit.errors import RemitError
from remit.operations.base import Effect, OperationRequest, failed
from remit.operations.file.access import Access
from remit.operations.file.errors import Stopped
from remit.operations.file.executor import act, content
from remit.operations.file.handover import decode
from remit.operations.file.job import Job
from remit.operations.file.report import STOPPED_CODE, Report
from remit.operations.file.writing import Limit
from remit.sandboxpaths import OWN_FILES

_MOST_TOLD = 500


def execute(text: bytes, emit: Callable[[bytes], None], stop: threading.Event) -> Report:
    """Do what `text` says, until `stop`; what it finds goes to `emit`."""
    effect = Effect()
    try:
        told = decode(text)
        request = told.grant.request
        operation = OperationRequest("", request.namespace, "", told.grant, 0.0, values=told.values)
        job = Job(
            file=told.file,
            access=Access(told.grant, told.file, [OWN_FILES], stop, mounts=told.mounts),
            content=content(operation, told.file),
            emit=emit,
            limit=Limit(told.file_size),
            effect=effect,
        )
        return Report(act(job))
    except Stopped:
        return Report("", stopped=True, in_doubt=effect.in_doubt)
    except RemitError as error:
        outcome = failed(error)
        return Report(outcome.message, outcome.reason, outcome.category, outcome.retryable, in_doubt=effect.in_doubt)
    except Exception as error:
        message = f"Remit's own program broke down in its Job: {type(error).__name__}: {error}"[:_MOST_TOLD]
        return Report(message, ExitReason.INTERNAL_ERROR, retryable=False, in_doubt=effect.in_doubt)


def _emit(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def main() -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    report = execute(sys.stdin.buffer.read(), _emit, stop)
    sys.stderr.buffer.write(report.encode())
    sys.stderr.buffer.flush()
    return STOPPED_CODE if report.stopped else 1 if report.reason else 0


if __name__ == "__main__":
    sys.exit(main())
