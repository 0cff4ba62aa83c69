"""`Retry-After` (RFC 9110, 10.2.3): how long a server asks not to be asked again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

from remit.backends.failure import LONGEST_RETRY_AFTER


def retry_after(response: httpx.Response) -> float:
    """Seconds; 0.0 where the server does not say, or not so that it can be understood."""
    said = response.headers.get("retry-after", "").strip()
    if said.isascii() and said.isdigit():
        return float(said) if len(said) < 10 else LONGEST_RETRY_AFTER
    try:
        until = parsedate_to_datetime(said)
    except (ValueError, OverflowError):
        return 0.0
    if until.tzinfo is None:  # an obsolete date format, which is also in UTC
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
