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
_SPOKEN_PART: Final = re.compile(r"(\d+)\s*([A-Za-zµ]+)", re.ASCII)
_SPOKEN_UNITS: Final = {
    r"ns|nano.*": 1e-9, r"us|µs|micro.*": 1e-6, r"ms|milli.*": 1e-3, r"s|sec.*": 1, r"m|min.*": 60,
    r"h|hr|hour.*": 3600, r"d|day.*": 86_400, r"w|wk|week.*": 604_800,
}  # fmt: skip
_UNIT_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def timestamp(moment: datetime.datetime) -> str:
    """RFC 3339 in whole seconds of UTC, as Kubernetes writes times."""
    return moment.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_date_time(text: str) -> datetime.datetime:
    """RFC 3339. Raises ValueError."""
    if not _DATE_TIME.fullmatch(text):
        raise ValueError(text)
    return datetime.datetime.fromisoformat(text.upper())


def parse_duration(text: str) -> datetime.timedelta:
    """Parse a duration as Go writes it, `1h30m` and `-1.5s`, or as people do: `2 days`. Raises ValueError."""
    try:
        return _go_duration(text)
    except ValueError:
        seconds = [
            int(number) * size
            for number, unit in _SPOKEN_PART.findall(text)
            for units, size in _SPOKEN_UNITS.items()
            if re.fullmatch(units, unit, re.IGNORECASE)
        ]
        if not seconds:
            raise
        return datetime.timedelta(seconds=sum(seconds))


def _go_duration(text: str) -> datetime.timedelta:
    sign, rest = (text[0], text[1:]) if text[:1] in {"-", "+"} else ("", text)
    if rest == "0":
        return datetime.timedelta()
    seconds, position = 0.0, 0
    for part in _DURATION_PART.finditer(rest):
        if part.start() != position:
            raise ValueError(text)
        seconds += float(part[1]) * _UNIT_SECONDS[part[2]]
        position = part.end()
    if not rest or position != len(rest):
        raise ValueError(text)
    return datetime.timedelta(seconds=-seconds if sign == "-" else seconds)


def _email(text: str) -> None:
    if not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise ValueError(text)


def _uri(text: str) -> None:
    if not urlsplit(text).scheme and not text.startswith("/"):
        raise ValueError(text)


def _hostname(text: str) -> None:
    if not re.fullmatch(r"(?=.{1,253}$)([a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)(\.[a-zA-Z0-9-]{1,63})*\.?", text):
        raise ValueError(text)


def _byte(text: str) -> None:
    if not text:
        raise ValueError(text)
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
