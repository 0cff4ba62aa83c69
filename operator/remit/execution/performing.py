"""Performs one operation of Remit's own within its time, and says how it ended."""

from __future__ import annotations

import asyncio

from remit.backends import OutputSink
from remit.errors import PolicyDenied, RemitError
from remit.execution.lifecycle import CANCELLED, COMPLETED, DENIED, TIMEOUT, Ended
from remit.operations.base import OVERDUE, Performer, Work
from remit.operations.failure import GivenUp, OperationFailed


async def perform(performer: Performer, work: Work, output: OutputSink, cancel: asyncio.Event) -> Ended:
    """Raises only what is a mistake of Remit's own. Returns when nothing of the operation goes on."""
    doing = asyncio.ensure_future(performer.perform(work, output))
    asked = asyncio.ensure_future(cancel.wait())
    try:
        await asyncio.wait({doing, asked}, timeout=work.timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
        if not doing.done():
            doing.cancel(None if asked.done() else OVERDUE)
            unknown = ""
            try:
                return Ended(COMPLETED, await doing)  # it was done before it heard
            except GivenUp as error:
                unknown = f"; {error}"
            except (asyncio.CancelledError, RemitError):
                pass
            if asked.done():
                return Ended(CANCELLED, f"cancelled while it was performed{unknown}")
            return Ended(TIMEOUT, f"timed out after {work.timeout_seconds:g} s{unknown}", retryable=not unknown)
        return Ended(COMPLETED, doing.result())
    except OperationFailed as error:
        return Ended(error.reason, str(error), category=error.category, retryable=error.retryable)
    except PolicyDenied as error:
        return Ended(DENIED, str(error), category=DENIED, retryable=False)
    except RemitError as error:
        return Ended(type(error).__name__, str(error), category="Infrastructure", retryable=error.retryable)
    finally:
        asked.cancel()
        if not doing.done():  # we ourselves are being cancelled
            doing.cancel()
