"""A host as policy sees it: one spelling for each name and each address. Pure: nothing is resolved here.

A host can be written in many ways that lead to the same place: in capitals, with a final dot, in Unicode, as `0x7f.1`,
`2130706433` or `[::ffff:127.0.0.1]`. Rules are held against the canonical form, and what is connected to is the
canonical form too, so no spelling means one thing to policy and another to the resolver.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

import idna

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Host = str | Address
"""A lower-case ASCII name without a final dot, or an address."""

MAX_NAME: Final = 253
_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_PORT: Final = re.compile(r"[0-9]{1,5}")
_FINAL_DOTS: Final = (".", "\u3002", "\uff0e", "\uff61")
"""What IDNA takes for a dot."""
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9a-f]*")


class BadHost(ValueError):
    """It is neither a name nor an address; the message says why."""


@dataclass(frozen=True, slots=True)
class Destination:
    """A destination: a host and a port."""

    host: Host
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> Destination:
        """Parse `host:port`, with an IPv6 address in brackets. Raises `BadHost`."""
        host, colon, port = text.rpartition(":")
        if not colon or port.endswith("]"):
            host, port = text, ""
        if ":" in host and not host.startswith("["):
            raise BadHost(f"{text[:80]!r}: an IPv6 address stands in brackets, before the port")
        if port and not (_PORT.fullmatch(port) and 0 < int(port) < 65536):
            raise BadHost(f"{port[:80]!r} is not a port")
        number = int(port) if port else default_port
        if number is None:
            raise BadHost(f"{text[:80]!r} has no port; write host:port")
        return cls(canonical_host(host), number)

    def __str__(self) -> str:
        return (
            f"[{self.host}]:{self.port}" if isinstance(self.host, ipaddress.IPv6Address) else f"{self.host}:{self.port}"
        )


def canonical_host(text: str) -> Host:
    """The one spelling of `text`. An IPv4 address is recognised in every form that resolvers accept.

    Raises `BadHost`, also for an IPv6 address with a zone, since a zone chooses one of the machine's interfaces.
    """
    if not text or len(text) > 4 * MAX_NAME:
        raise BadHost("a host name has 1 to 253 characters")
    if "/" in text:
        raise BadHost(f"{text[:80]!r} is more than a host; name the host alone, without scheme or path")
    if text.startswith("[") or ":" in text:
        return _ipv6(text)
    name = _ascii(text).removesuffix(".")
    labels = name.split(".")
    if _NUMBER.fullmatch(labels[-1]):
        return _ipv4(labels, text)
    if len(name) > MAX_NAME:
        raise BadHost(f"{text[:40]!r}… is longer than the {MAX_NAME} characters of a host name")
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise BadHost(f"{text!r} is not a host name: {label!r} is not one of the labels between its dots")
    return name


def unambiguous_host(text: str) -> Host:
    """The canonical host, for names that other programs read as well: notations that only some accept are refused."""
    host = canonical_host(text)
    if isinstance(host, ipaddress.IPv4Address) and text != str(host):
        raise BadHost(f"{text[:80]!r} is the address {host} in another spelling; write {host}")
    if text.endswith(_FINAL_DOTS):
        raise BadHost(f"{text[:80]!r} ends with a dot; leave it out")
    return host


def plain_address(address: Address) -> Address:
    """An IPv4 address that is dressed up as IPv6 (`::ffff:10.0.0.1`) as what the kernel takes it for."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _ascii(text: str) -> str:
    """Lower case, Unicode as IDNA has it. Letters that merely look alike stay other letters."""
    if text.isascii():
        return text.lower()
    try:
        return idna.encode(text, uts46=True).decode("ascii").lower()
    except UnicodeError as error:
        raise BadHost(f"{text!r} is not an internationalised host name: {error}") from None


def _ipv6(text: str) -> Address:
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in inner:
        raise BadHost(f"{text!r} has a zone; write the address without it")
    try:
        return plain_address(ipaddress.IPv6Address(inner))
    except ValueError:
        raise BadHost(f"{text!r} is not an IPv6 address") from None


def _ipv4(parts: list[str], text: str) -> ipaddress.IPv4Address:
    """Parse as `inet_aton` does: one to four numbers in decimal, octal or hex, of which the last fills the rest."""
    wrong = BadHost(f"{text!r} ends in a number and is not an IPv4 address")
    if len(parts) > 4:
        raise wrong
    try:
        *head, last = (_number(part) for part in parts)
    except ValueError:
        raise wrong from None
    if any(number > 255 for number in head) or last >= 256 ** (4 - len(head)):
        raise wrong
    value = sum(number << (24 - 8 * place) for place, number in enumerate(head))
    return ipaddress.IPv4Address(value + last)


def _number(part: str) -> int:
    if not _NUMBER.fullmatch(part):
        raise ValueError(part)
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8) if part.startswith("0") and part != "0" else int(part)
