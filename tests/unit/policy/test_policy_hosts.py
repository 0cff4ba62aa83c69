"""Tests that each host has one canonical form, however it is written."""

import ipaddress
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.policy.hosts import BadHost, Destination, canonical_host

LOCAL = ipaddress.IPv4Address("127.0.0.1")


@pytest.mark.parametrize(
    "spelling",
    [
        "127.0.0.1", "127.0.0.1.", "127.1", "127.0.1", "0x7f.1", "0x7F000001", "2130706433", "0177.0.0.1",
        "017700000001", "[::ffff:127.0.0.1]", "::ffff:7f00:1", "１２７.0.0.1", "127。0。0。1",
    ],
)  # fmt: skip
def test_an_ipv4_address_is_known_in_every_spelling(spelling: str) -> None:
    assert canonical_host(spelling) == LOCAL


@pytest.mark.parametrize("spelling", ["api.example.com", "API.Example.COM", "api.example.com.", "ａｐｉ.example.com"])
def test_a_name_has_one_spelling(spelling: str) -> None:
    assert canonical_host(spelling) == "api.example.com"


def test_letters_that_look_alike_are_other_letters() -> None:
    assert canonical_host("exаmple.com") == "xn--exmple-4nf.com"  # intentionally a Cyrillic letter


@pytest.mark.parametrize(
    "nonsense",
    [
        "", ".", "..", "a..b", "a.b..", "-a.b", "a-.b", "a b", "a@b", "a/b", "a\0b", "a%00b", "a:b", "*.a", "a" * 64,
        ".".join(["abcdefg"] * 40), "256.1.1.1", "1.2.3.4.5", "09.1", "example.0x", "example.5", "[::1", "[1.2.3.4]",
        "fe80::1%eth0", "[fe80::1%25eth0]", "::1::", "9" * 500, "\u200b.example.com", "xn--\u0430.example",
    ],
)  # fmt: skip
def test_nonsense_is_refused(nonsense: str) -> None:
    with pytest.raises(BadHost):
        canonical_host(nonsense)


@pytest.mark.parametrize("address", ["http://example.com", "example.com/", "https://[::1]:8080/x"])
def test_an_address_of_the_web_is_distinguished_from_a_host(address: str) -> None:
    with pytest.raises(BadHost, match="name the host alone, without scheme or path"):
        canonical_host(address)


@given(st.text(max_size=300))
def test_canonical_is_final_and_nothing_else_is_raised(text: str) -> None:
    try:
        host = canonical_host(text)
    except BadHost:
        return
    assert canonical_host(str(host)) == host
    assert str(host).isascii()


@given(st.from_regex(r"(0x[0-9a-fA-F]{0,9}|0?[0-9]{1,11})(\.(0x[0-9a-f]{0,3}|0?[0-9]{1,4})){0,3}", fullmatch=True))
def test_numbers_are_read_as_the_resolver_reads_them(text: str) -> None:
    try:
        ours: str | None = str(canonical_host(text))
    except BadHost:
        ours = None
    try:
        theirs: str | None = socket.inet_ntoa(socket.inet_aton(text))
    except OSError:
        theirs = None
    if theirs is not None and "0x." not in f"{text}.":  # browsers read a bare 0x as zero, and libc rejects it
        assert ours == theirs
    assert ours is None or isinstance(canonical_host(text), ipaddress.IPv4Address)


def test_a_destination_is_written_with_its_port() -> None:
    assert str(Destination("example.com", 443)) == "example.com:443"
    assert str(Destination(canonical_host("::1"), 8080)) == "[::1]:8080"
