"""Performs one operation of Remit's own within its time, and says how it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from remit.backends import ExitReason, Handle, Outcome, OutputSink
from remit.errors import RemitError
from remit.operations.base import OVERDUE, AdoptingPerformer, Performer, Work, failed, not_retried


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
    except RemitError as error:
        outcome = failed(error)
    finally:
        asked.cancel()
        if not doing.done():  # we ourselves are being cancelled
            doing.cancel()
    return not_retried(outcome, work.effect.in_doubt) if work.effect.in_doubt else outcome


async def attend(
    performer: AdoptingPerformer,
    work: Work,
    output: OutputSink,
    cancel: asyncio.Event,
    *,
    on_started: Callable[[Handle], None],
    adopt: bool = False,
    recorded: Handle | None = None,
) -> Outcome | None:
    """The same for work that outlives the operator: begun, or with `adopt` taken up, of which `recorded` is known; None
    where nothing of it is there. Cancelled itself, it lets go of what runs."""
    try:
        if adopt:
            outcome = await performer.adopt(work, output, cancel=cancel, on_found=on_started, recorded=recorded)
        else:
            outcome = await performer.run(work, output, cancel=cancel, on_started=on_started)
    except RemitError as error:
        outcome = failed(error)
    if outcome is None or outcome.reason == ExitReason.COMPLETED or not work.effect.in_doubt:
        return outcome
    return not_retried(outcome, work.effect.in_doubt)
