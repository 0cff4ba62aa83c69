"""What a connection Secret may say. It is written by users, and read in the operator: nothing of the operator's own
files, sockets or environment may come into it."""

from __future__ import annotations

from collections.abc import Mapping, Set
from urllib.parse import parse_qsl, urlsplit

from remit.backends.failure import OperationFailed


def checked(values: Mapping[str, bytes], schemes: Set[str], options: Set[str]) -> str:
    """The URL in the connection Secret. Raises `OperationFailed` without ever showing it."""
    raw = values.get("connection")
    if raw is None:
        raise invalid("the key that spec…connection names is not there")
    try:
        url = raw.decode().strip()
        parts = urlsplit(url)
        unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - options
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise invalid("it is not a URL") from None
    if parts.scheme not in schemes:
        raise invalid(f"it must be a URL that begins with {' or '.join(sorted(f'{s}://' for s in schemes))}")
    if not host or host.startswith("/") or "%2f" in parts.netloc.lower():
        raise invalid("it must name a host; sockets of the operator's own machine are closed")
    if "," in parts.netloc:
        raise invalid("it must name one host")
    if unknown:
        listed = ", ".join(sorted(options))
        raise invalid(f"it may have the options {listed}, and no others; {len(unknown)} others are given")
    return url


def invalid(message: str) -> OperationFailed:
    return OperationFailed(
        "InvalidConnection", f"the connection Secret: {message}", retryable=False, category="Invalid"
    )
