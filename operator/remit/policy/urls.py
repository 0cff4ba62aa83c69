"""The canonical form of an HTTP URL, which is what policy judges, what is sent and what is recorded. Pure.

The canonical form is the normal form of the WHATWG URL standard, with two additions of RFC 3986 for the path:
hexadecimal digits of percent-encodings are upper case, and unreserved characters are never encoded. Encodings in the
query stay as they are, since some servers sign its very characters. A URL that clients, proxies and servers are known
to read in different ways has no canonical form and is refused.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urljoin

import idna

from remit.policy.argv import refused_character
from remit.policy.hosts import BadHost, Destination, Host, unambiguous_host

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
MAX_CHARACTERS: Final = 8192

_URL: Final = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_AUTHORITY: Final = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,6}))?")
_NO_PORT: Final = re.compile(r"\A([^/]*//[^/:\[]*:)(?![0-9]*(?:/|\Z)).*", re.DOTALL)
"""What follows the colon may be the start of a password, in which a delimiter was not encoded."""
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})")
_BARE_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_TWICE_ENCODED: Final = re.compile(r"%25[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_PATH_SAFE: Final = "%/:@!$&'()*+,;="
"""What RFC 3986 allows in a path besides unreserved characters; a percent sign begins an encoding."""
_QUERY_SAFE: Final = _PATH_SAFE + "?"


class BadUrl(ValueError):
    """The URL has no canonical form; the message says why."""


@dataclass(frozen=True, slots=True)
class Url:
    """A canonical HTTP URL. `str()` gives its text, and parsing that text gives the same URL."""

    scheme: str
    destination: Destination
    path: str
    query: str | None = None

    @classmethod
    def parse(cls, text: str) -> Url:
        """Raises `BadUrl`."""
        return _parse(text)

    def join(self, reference: str) -> Url:
        """The URL that a `Location` header of a response from here refers to. Its fragment is dropped, since it is
        never sent. Dot segments are resolved only where the reference is relative to this path. Raises `BadUrl`."""
        reference = reference.partition("#")[0]
        _check_characters(reference)
        if _SCHEME.match(reference):
            return _parse(reference)
        if reference.startswith("//"):
            return _parse(f"{self.scheme}:{reference}")
        if reference.startswith("/"):
            return _parse(f"{self.scheme}://{self.authority}{reference}")
        return _parse(urljoin(str(self), reference))

    @property
    def origin(self) -> tuple[str, Destination]:
        return self.scheme, self.destination

    @property
    def authority(self) -> str:
        """The value of the header `Host`: the port only where it is not the scheme's own."""
        if self.destination.port == DEFAULT_PORTS[self.scheme]:
            return str(self.destination).rpartition(":")[0]
        return str(self.destination)

    @property
    def target(self) -> str:
        """The target in the request line."""
        return self.path if self.query is None else f"{self.path}?{self.query}"

    @property
    def without_query(self) -> str:
        """The URL for messages and records, without its query, which may have secrets."""
        return f"{self.scheme}://{self.authority}{self.path}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def display_url(text: str) -> str:
    """`text` for messages and records: canonical if possible, and never with a query, a fragment or a user."""
    try:
        return Url.parse(text).without_query
    except BadUrl:
        shown = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", text, maxsplit=1)[0])
        return _NO_PORT.sub(r"\1…", shown)


def encode_path(text: str) -> str:
    """A path, or a part of one, with the canonical percent-encoding. Raises `BadUrl`."""
    return _ENCODED.sub(_decoded_if_unreserved, _quoted(text, _PATH_SAFE))


def canonical_path(text: str) -> str:
    """The canonical form of a path. Raises `BadUrl`, also where it contains a dot segment in any encoding."""
    path = encode_path(text) or "/"
    try:
        decoded = unquote(path, errors="strict")
    except UnicodeDecodeError:
        raise BadUrl("the path has a percent-encoding that is not UTF-8") from None
    if any(unicodedata.category(character) == "Cc" for character in decoded):
        raise BadUrl("the path has an encoded control character")
    if "\\" in decoded:
        raise BadUrl("the path has a backslash, which some servers read as a slash")
    if _TWICE_ENCODED.search(path):
        raise BadUrl("the path is percent-encoded twice, and servers differ in how often they decode it")
    # Some servers normalize compatibility characters, Java servers remove what follows a semicolon, and Windows removes
    # a final space.
    for segment in unicodedata.normalize("NFKC", decoded).split("/"):
        name, semicolon, _ = segment.partition(";")
        if name.strip() in {".", ".."}:
            raise BadUrl(f"the path has a dot segment ({segment[:80]!r}); write the path that it leads to")
        if semicolon and not name:
            raise BadUrl("the path has a segment that begins with a semicolon, which some servers leave out")
    return path


@functools.lru_cache(maxsize=256)
def _parse(text: str) -> Url:
    _check_characters(text)
    if "#" in text:
        raise BadUrl("the URL has a fragment, which is never sent; leave out the # and what follows it")
    match = _URL.fullmatch(text)
    if match is None:
        raise BadUrl("the URL is not of the form https://HOST:PORT/PATH?QUERY")
    scheme = match[1].lower()
    if scheme not in DEFAULT_PORTS:
        raise BadUrl(f"{scheme[:80]} is not http or https")
    if "@" in match[2]:
        raise BadUrl("the URL names a user; give credentials in a header with valueFrom instead")
    authority = _AUTHORITY.fullmatch(match[2])
    if authority is None:
        raise BadUrl(f"what follows {scheme}:// is not HOST or HOST:PORT")
    port = int(authority[2]) if authority[2] else DEFAULT_PORTS[scheme]
    if not 0 < port < 65536:
        raise BadUrl(f"{port} is not a port")
    query = match[4] if match[4] is None else _quoted(match[4], _QUERY_SAFE)
    url = Url(scheme, Destination(_host(authority[1]), port), canonical_path(match[3]), query)
    if len(str(url)) > MAX_CHARACTERS:
        raise BadUrl(f"the URL has more than {MAX_CHARACTERS} characters when it is percent-encoded")
    return url


def _check_characters(text: str) -> None:
    if len(text) > MAX_CHARACTERS:
        raise BadUrl(f"the URL has more than {MAX_CHARACTERS} characters")
    if refused := refused_character(text):
        raise BadUrl(f"the URL has {refused[1]} in column {refused[0]}")
    if "\\" in text:
        raise BadUrl(
            f"the URL has a backslash in column {text.index(chr(92)) + 1}, which some programs read as a slash"
        )
    if text != text.strip():
        raise BadUrl("the URL begins or ends with a space")


def _host(text: str) -> Host:
    """The canonical host. What only some programs take for it is refused."""
    try:
        host = unambiguous_host(text)
        if isinstance(host, str) and "xn--" in host:
            idna.decode(host)
    except BadHost as error:
        raise BadUrl(str(error)) from None
    except UnicodeError as error:
        raise BadUrl(f"{text[:200]!r} is not an internationalised host name: {error}") from None
    return host


def _quoted(text: str, safe: str) -> str:
    """Each character that needs it percent-encoded."""
    if bare := _BARE_PERCENT.search(text):
        raise BadUrl(f"the % in {text[bare.start() : bare.start() + 3]!r} begins no percent-encoding; write %25")
    return quote(text, safe=safe)


def _decoded_if_unreserved(encoded: re.Match[str]) -> str:
    character = chr(int(encoded[1], 16))
    return character if character in _UNRESERVED else encoded[0].upper()
