"""Backoff: how long to wait before the next attempt. Pure; the draw for the jitter is the caller's."""

from __future__ import annotations

from remit.api.executiontask import Backoff


def delay(backoff: Backoff, retries: int, draw: float) -> float:
    """Seconds to wait before retry number `retries` (counted from 0).

    `draw` is a number from 0 to 1; it picks the place within ±`jitter` of the wait, so that 0.5 is the wait itself.
    """
    # A large exponent would overflow; the cap is reached long before.
    growth = backoff.factor ** min(retries, 64)
    wait = min(backoff.initial_seconds * growth, backoff.max_seconds)
    return wait * (1 + backoff.jitter * (2 * draw - 1))


def longest_delay(backoff: Backoff) -> float:
    """Seconds: no retry waits longer."""
    return backoff.max_seconds * (1 + backoff.jitter)
