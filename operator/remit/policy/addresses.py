"""Which addresses belong to everybody, and which to the machine, its network or its cloud. Pure.

The kinds are those of IANA's special-purpose registries (RFC 6890) and the addresses on which clouds hand out
credentials. An IPv6 address that carries an IPv4 one (NAT64, 6to4, Teredo, IPv4-compatible) leads there, so it is
judged by both.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from typing import Final

from remit.policy.hosts import Address, plain_address

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

OWN: Final = "an address of the operator's own machine"
METADATA: Final = "a cloud's metadata address"
_METADATA: Final = frozenset(
    map(
        ipaddress.ip_address,
        (
            "169.254.169.254",  # almost every cloud
            "169.254.170.2",  # credentials of AWS containers
            "169.254.170.23",  # credentials of EKS pods
            "fd00:ec2::254",  # AWS
            "fd00:ec2::23",  # EKS
            "fd20:ce::254",  # Google
            "fd00:42::42",  # Scaleway
            "100.100.100.200",  # Alibaba
            "168.63.129.16",  # Azure's host; the address otherwise looks public
            "192.0.0.192",  # Oracle
        ),
    )
)
_KINDS: Final = tuple(
    (kind, tuple(map(ipaddress.ip_network, networks)))
    for kind, networks in (
        ("an unspecified address", ("0.0.0.0/8", "::/128")),
        ("a loopback address", ("127.0.0.0/8", "::1/128")),
        ("a link-local address", ("169.254.0.0/16", "fe80::/10")),
        ("a private address", ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10")),
        ("a shared (carrier-grade NAT) address", ("100.64.0.0/10",)),
        ("a multicast or broadcast address", ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")),
        (
            "an address for documentation or benchmarks",
            ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15", "2001:db8::/32", "3fff::/20",
             "2001:2::/48"),
        ),
        (
            "a reserved address",
            ("192.0.0.0/24", "192.88.99.0/24", "240.0.0.0/4", "100::/64", "64:ff9b:1::/48", "2001::/23", "5f00::/16"),
        ),
    )
)  # fmt: skip
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")
_GLOBAL_UNICAST: Final = ipaddress.ip_network("2000::/3")


def special_kind(address: Address) -> str | None:
    """The kind of the address, if it is not one of the public Internet: to be read after "is"."""
    return next((kind for one in _meant(address) if (kind := _kind(one))), None)


def admitted(address: Address, named: Sequence[Network], *, own: bool = False) -> bool:
    """Whether it may be connected to: public, and not the machine's `own`; or in one of the networks that are `named`.

    A metadata address must be named by itself: no wider network that happens to hold it will do.
    """
    return all(
        (_kind(one) is None and not own) or any(_names(network, one) for network in named) for one in _meant(address)
    )


def _names(network: Network, address: Address) -> bool:
    if network.version != address.version or address not in network:
        return False
    return address not in _METADATA or network.num_addresses == 1


def _kind(address: Address) -> str | None:
    if address in _METADATA:
        return METADATA
    for kind, networks in _KINDS:
        if any(address.version == network.version and address in network for network in networks):
            return kind
    outside = address.version == 6 and address not in _GLOBAL_UNICAST and address not in _NAT64
    return "a reserved address" if outside or not (address.is_global or address in _NAT64) else None


def _meant(address: Address) -> Iterator[Address]:
    """The address, and the IPv4 address that it leads to."""
    address = plain_address(address)
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
            yield ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if address.sixtofour is not None:
            yield address.sixtofour
        if address.teredo is not None:
            yield from address.teredo
