"""Executes one of Remit's own operations within its timeout, and returns its outcome."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remit.backends.base import Handle, OutputSink
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import RemitError
from remit.operations.base import OVERDUE, AdoptingExecutor, OperationExecutor, OperationRequest, failed, not_retried


async def execute(
    executor: OperationExecutor, request: OperationRequest, output: OutputSink, cancel: asyncio.Event
) -> Outcome:
    """Executes an operation, and returns its outcome once nothing of it runs any more.

    Every failure of the operation becomes an outcome. Only a bug in Remit raises; `request.effect` then says whether a
    retry is safe.
    """
    doing = asyncio.ensure_future(executor.execute(request, output))
    asked = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({doing, asked}, timeout=request.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel(None if asked.done() else OVERDUE)
            why = ""
            try:
                # The operation finished before the cancellation took effect.
                return Outcome(ExitReason.COMPLETED, await doing)
            except asyncio.CancelledError:
                pass
            except RemitError as error:
                why = f"; {error}"
            if asked.done():
                outcome = Outcome(ExitReason.CANCELLED, f"cancelled while it was performed{why}")
            else:
                outcome = Outcome(ExitReason.TIMED_OUT, f"timed out after {request.timeout_seconds:g} s{why}")
        else:
            return Outcome(ExitReason.COMPLETED, doing.result())
    except RemitError as error:
        outcome = failed(error)
    finally:
        asked.cancel()
        if not doing.done():  # this call itself is being cancelled
            doing.cancel()
    return not_retried(outcome, request.effect.in_doubt) if request.effect.in_doubt else outcome


async def attend(
    executor: AdoptingExecutor,
    request: OperationRequest,
    output: OutputSink,
    cancel: asyncio.Event,
    *,
    on_started: Callable[[Handle], None],
    adopt: bool = False,
    recorded: Handle | None = None,
) -> Outcome | None:
    """Like `execute`, for operations that outlive the operator: start one, or with `adopt` follow one that runs.

    `recorded` is what is known of the running one. Returns None if there is none to adopt. Cancelling this leaves the
    operation running.
    """
    try:
        if adopt:
            outcome = await executor.adopt(request, output, cancel=cancel, on_found=on_started, recorded=recorded)
        else:
            outcome = await executor.run(request, output, cancel=cancel, on_started=on_started)
    except RemitError as error:
        outcome = failed(error)
    if outcome is None or outcome.reason == ExitReason.COMPLETED or not request.effect.in_doubt:
        return outcome
    return not_retried(outcome, request.effect.in_doubt)
