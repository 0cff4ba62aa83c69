"""The functions that Kubernetes adds to CEL, for the expression library.

Quantities, URLs and addresses are maps of one entry inside CEL; the text in them is canonical, so that `==` works. A
function that cannot answer gives null, and the rule that asked fails.
"""

from __future__ import annotations

import ipaddress
import itertools
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import re2

NATIVE: Final = frozenset(
    [
        "all",
        "bool",
        "bytes",
        "contains",
        "double",
        "duration",
        "dyn",
        "endsWith",
        "exists",
        "exists_one",
        "existsOne",
        "filter",
        "getDate",
        "getDayOfMonth",
        "getDayOfWeek",
        "getDayOfYear",
        "getFullYear",
        "getHours",
        "getMilliseconds",
        "getMinutes",
        "getMonth",
        "getSeconds",
        "has",
        "hasValue",
        "int",
        "map",
        "matches",
        "max",
        "min",
        "none",
        "of",
        "ofNonZeroValue",
        "optional",
        "orValue",
        "size",
        "startsWith",
        "string",
        "timestamp",
        "type",
        "uint",
        "value",
    ]
)
"""What the library brings along."""

_QUANTITY: Final = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:([eE][+-]?\d+)|([numkMGTPE]|[KMGTPE]i)?)", re.ASCII)
_UNITS: Final = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1),
    **{unit: Decimal(1000) ** power for power, unit in enumerate("kMGTPE", start=1)},
    **{f"{unit}i": Decimal(1024) ** power for power, unit in enumerate("KMGTPE", start=1)},
}  # fmt: skip


def _amount(text: Any) -> Decimal | None:
    match = _QUANTITY.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return None
    number, exponent, unit = match.groups()
    return Decimal(number + (exponent or "")) * _UNITS[unit or ""]


def _boxed(amount: Decimal) -> dict[str, str]:
    return {"quantity": format(amount.normalize(), "f")}


def _unboxed(quantity: Any) -> Decimal:
    return Decimal(quantity["quantity"]) if isinstance(quantity, dict) else Decimal(quantity)


def _quantity(text: Any) -> dict[str, str] | None:
    amount = _amount(text)
    return None if amount is None else _boxed(amount)


def _compare(left: Any, right: Any) -> int:
    a, b = _unboxed(left), _unboxed(right)
    return (a > b) - (a < b)


def _is_sorted(values: list[Any]) -> bool:
    return all(a <= b for a, b in itertools.pairwise(values))


def _index_of(target: Any, wanted: Any, start: int = 0) -> int:
    if isinstance(target, str):
        return target.find(wanted, start)
    return next((index for index, item in enumerate(target) if item == wanted), -1)


def _last_index_of(target: Any, wanted: Any, *end: int) -> int:
    if isinstance(target, str):
        return target.rfind(wanted, 0, end[0] + len(wanted)) if end else target.rfind(wanted)
    return next((index for index in range(len(target) - 1, -1, -1) if target[index] == wanted), -1)


def _substring(text: str, start: int, end: int | None = None) -> str | None:
    stop = len(text) if end is None else end
    return text[start:stop] if 0 <= start <= stop <= len(text) else None


def _split(text: str, separator: str, limit: int = -1) -> list[str]:
    if limit == 0:
        return []
    if not separator:
        return list(text) if limit < 0 else [*text[: limit - 1], text[limit - 1 :]]
    return text.split(separator, limit - 1 if limit > 0 else -1)


def _find(text: str, pattern: str) -> str:
    found = re2.search(pattern, text)
    return found.group(0) if found else ""


def _find_all(text: str, pattern: str, limit: int = -1) -> list[str]:
    found = [match.group(0) for match in re2.finditer(pattern, text)]
    return found if limit < 0 else found[:limit]


_FORMATS: Final[dict[str, Callable[[Any], str]]] = {
    "s": lambda value: str(value).lower() if isinstance(value, bool) else str(value),
    "d": lambda value: str(int(value)),
    "f": lambda value: f"{float(value):f}",
    "e": lambda value: f"{float(value):e}",
    "x": lambda value: value.encode().hex() if isinstance(value, str) else f"{value:x}",
    "X": lambda value: value.encode().hex().upper() if isinstance(value, str) else f"{value:X}",
    "o": lambda value: f"{value:o}",
    "b": lambda value: str(value).lower() if isinstance(value, bool) else f"{value:b}",
}


def _format(template: str, values: list[Any]) -> str | None:
    rest = iter(values)

    def put(match: re.Match[str]) -> str:
        if match[0] == "%%":
            return "%"
        value = next(rest)
        if match[1]:
            if len(match[1]) > 2:
                raise ValueError(match[0])  # longer numbers are not useful to show
            return f"{float(value):.{match[1]}{match[2]}}"
        return _FORMATS[match[2]](value)

    try:
        return re.sub(r"%%|%(?:\.(\d+))?([sdfexXob])", put, template)
    except (StopIteration, TypeError, ValueError):
        return None


def _url(text: Any) -> dict[str, str] | None:
    return {"url": text} if _is_url(text) else None


def _is_url(text: Any) -> bool:
    try:
        parts = urlsplit(text)
        return bool(parts.scheme and (parts.netloc or parts.path)) or text.startswith("/")
    except (ValueError, AttributeError):
        return False


def _url_part(take: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda url: take(urlsplit(url["url"]))


def _host(parts: Any) -> str:
    host: str = parts.netloc.rpartition("@")[2]
    return host


def _ip(text: Any) -> dict[str, str] | None:
    """The IP of a text, or of the address in a CIDR."""
    try:
        if isinstance(text, dict):
            return {"ip": str(ipaddress.ip_interface(text["cidr"]).ip)}
        return {"ip": str(ipaddress.ip_address(text))}
    except ValueError:
        return None


def _cidr(text: Any) -> dict[str, str] | None:
    try:
        return {"cidr": str(ipaddress.ip_interface(text))} if "/" in text else None
    except (ValueError, TypeError):
        return None


def _address(box: Any) -> Any:
    return ipaddress.ip_address(box["ip"] if isinstance(box, dict) else box)


def _is_link_local_multicast(address: Any) -> bool:
    network = "224.0.0.0/24" if address.version == 4 else "ff02::/16"
    return address in ipaddress.ip_network(network)


def _network(box: Any) -> Any:
    return ipaddress.ip_network(box["cidr"] if isinstance(box, dict) else box, strict=False)


FUNCTIONS: Final[dict[str, Callable[..., Any]]] = {
    # lists
    "isSorted": _is_sorted,
    "sum": lambda values: sum(values) if values else 0,
    "min": lambda values, *more: min([values, *more] if more else values),
    "max": lambda values, *more: max([values, *more] if more else values),
    "indexOf": _index_of,
    "lastIndexOf": _last_index_of,
    # strings
    "charAt": lambda text, index: text[index] if 0 <= index < len(text) else "",
    "find": _find,
    "findAll": _find_all,
    "format": _format,
    "join": lambda values, separator="": separator.join(values),
    "lowerAscii": lambda text: re.sub(r"[A-Z]+", lambda match: match[0].lower(), text),
    "upperAscii": lambda text: re.sub(r"[a-z]+", lambda match: match[0].upper(), text),
    "replace": lambda text, old, new, limit=-1: text.replace(old, new, limit),
    "split": _split,
    "substring": _substring,
    "trim": str.strip,
    # quantities
    "quantity": _quantity,
    "isQuantity": lambda text: _amount(text) is not None,
    "isGreaterThan": lambda left, right: _compare(left, right) > 0,
    "isLessThan": lambda left, right: _compare(left, right) < 0,
    "compareTo": _compare,
    "sign": lambda quantity: _compare(quantity, 0),
    "isInteger": lambda quantity: _unboxed(quantity) % 1 == 0,
    "asInteger": lambda quantity: int(_unboxed(quantity)) if _unboxed(quantity) % 1 == 0 else None,
    "asApproximateFloat": lambda quantity: float(_unboxed(quantity)),
    "add": lambda left, right: _boxed(_unboxed(left) + _unboxed(right)),
    "sub": lambda left, right: _boxed(_unboxed(left) - _unboxed(right)),
    # URLs
    "url": _url,
    "isURL": _is_url,
    "getScheme": _url_part(lambda parts: parts.scheme),
    "getHost": _url_part(_host),
    "getHostname": _url_part(lambda parts: parts.hostname or ""),
    "getPort": _url_part(lambda parts: str(parts.port or "")),
    "getEscapedPath": _url_part(lambda parts: parts.path),
    "getQuery": _url_part(lambda parts: parse_qs(parts.query, keep_blank_values=True)),
    # addresses
    "ip": _ip,
    "isIP": lambda text: _ip(text) is not None,
    "family": lambda box: _address(box).version,
    "isLoopback": lambda box: _address(box).is_loopback,
    "isLinkLocalMulticast": lambda box: _is_link_local_multicast(_address(box)),
    "isLinkLocalUnicast": lambda box: _address(box).is_link_local,
    "isUnspecified": lambda box: _address(box).is_unspecified,
    "isGlobalUnicast": lambda box: not (_address(box).is_multicast or _address(box).is_unspecified),
    "cidr": _cidr,
    "isCIDR": lambda text: _cidr(text) is not None,
    "containsIP": lambda box, ip: _address(ip) in _network(box),
    "containsCIDR": lambda box, other: _network(other).subnet_of(_network(box)),
    "masked": lambda box: {"cidr": str(_network(box))},
    "prefixLength": lambda box: _network(box).prefixlen,
}
