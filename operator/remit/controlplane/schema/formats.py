"""The string formats that an API server checks. Formats that are not listed say nothing."""

from __future__ import annotations

import base64
import binascii
import datetime
import ipaddress
import re
import uuid
from collections.abc import Callable
from typing import Final
from urllib.parse import urlsplit

_DATE_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)", re.ASCII)
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse_date_time(text: str) -> datetime.datetime:
    """RFC 3339. Raises ValueError."""
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text.upper())


def parse_duration(text: str) -> datetime.timedelta:
    """As Go writes durations: `1h30m`, `-1.5s`. Raises ValueError."""
    rest = text.removeprefix("-").removeprefix("+")
    seconds, position = 0.0, 0
    for part in _DURATION_PART.finditer(rest):
        if part.start() != position:
            raise ValueError(text)
        seconds += float(part[1]) * _UNIT_SECONDS[part[2]]
        position = part.end()
    if position != len(rest) or ((not rest or rest == "0") and text not in {"0", "+0", "-0"}):
        raise ValueError(text)
    return datetime.timedelta(seconds=-seconds if text.startswith("-") else seconds)


def _email(text: str) -> None:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError(text)


def _uri(text: str) -> None:
    if not urlsplit(text).scheme:
        raise ValueError(text)


def _hostname(text: str) -> None:
    if not re.fullmatch(r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9-]{1,63})*\.?", text):
        raise ValueError(text)


def _byte(text: str) -> None:
    base64.b64decode(text, validate=True)


_CHECKS: Final[dict[str, Callable[[str], object]]] = {
    "date-time": parse_date_time,
    "date": datetime.date.fromisoformat,
    "duration": parse_duration,
    "byte": _byte,
    "ipv4": ipaddress.IPv4Address,
    "ipv6": ipaddress.IPv6Address,
    "cidr": ipaddress.ip_network,
    "email": _email,
    "uri": _uri,
    "hostname": _hostname,
    "uuid": uuid.UUID,
}


def conforms(text: str, format_: str) -> bool:
    """Whether `text` is of a format. True for a format that nobody checks."""
    check = _CHECKS.get(format_)
    if check is None:
        return True
    try:
        check(text)
    except (ValueError, binascii.Error):
        return False
    return True
