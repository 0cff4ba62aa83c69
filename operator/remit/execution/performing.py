"""Performs one operation of Remit's own within its time, and says how it ended."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from remit.backends import ExitReason, Outcome, OutputSink
from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied, RemitError
from remit.operations.base import OVERDUE, Performer, Work


async def perform(performer: Performer, work: Work, output: OutputSink, cancel: asyncio.Event) -> Outcome:
    """Raises only what is a mistake of Remit's own; whether a retry is safe then, `work.effect` says. Returns when
    nothing of the operation goes on."""
    doing = asyncio.ensure_future(performer.perform(work, output))
    asked = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({doing, asked}, timeout=work.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel(None if asked.done() else OVERDUE)
            why = ""
            try:
                return Outcome(ExitReason.COMPLETED, await doing)  # it was done before it heard
            except asyncio.CancelledError:
                pass
            except RemitError as error:
                why = f"; {error}"
            if asked.done():
                outcome = Outcome(ExitReason.CANCELLED, f"cancelled while it was performed{why}")
            else:
                outcome = Outcome(ExitReason.TIMED_OUT, f"timed out after {work.timeout_seconds:g} s{why}")
        else:
            return Outcome(ExitReason.COMPLETED, doing.result())
    except OperationFailed as error:
        outcome = Outcome(
            error.reason,
            str(error),
            category=error.category,
            retryable=error.retryable,
            retry_after_seconds=error.retry_after,
        )
    except PolicyDenied as error:
        outcome = Outcome(ExitReason.DENIED, str(error), category="Denied", retryable=False)
    except RemitError as error:
        outcome = Outcome(type(error).__name__, str(error), category="Infrastructure", retryable=error.retryable)
    finally:
        asked.cancel()
        if not doing.done():  # we ourselves are being cancelled
            doing.cancel()
    return not_retried(outcome, work.effect.in_doubt) if work.effect.in_doubt else outcome


def not_retried(outcome: Outcome, in_doubt: str) -> Outcome:
    """A failure after what was asked for may have taken place: a retry could do it a second time."""
    if not outcome.retryable:
        return outcome
    return replace(outcome, message=f"{outcome.message}; {in_doubt}", retryable=False)
