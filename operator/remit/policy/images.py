"""Globs over image references. A registry is matched as a host, so that no other registry matches by its spelling."""

from __future__ import annotations

from dataclasses import dataclass

from remit.policy.hostpatterns import HostPattern, RangePattern, host_or_range
from remit.policy.hosts import BadHost, unambiguous_host
from remit.policy.patterns import Pattern, glob

_ANY = "*"


@dataclass(frozen=True, slots=True)
class ImagePattern:
    """`*` and `?` in `rest` stand for any characters, `/` included; it covers what follows the registry.

    A glob that begins with `*/`, or whose name is `*` alone, is about images of every registry. Any other that names
    none is about images that name none either, and one without `/` about images without `/`.
    """

    rest: Pattern
    registry: HostPattern | RangePattern | None = None
    """None: no registry."""
    port: str = ""
    """`*`: any, or none."""
    anywhere: bool = False
    nested: bool = True
    """Whether the image may have a `/` after the registry."""

    @classmethod
    def parse(cls, text: str) -> ImagePattern:
        """Raises `BadHost` for a registry that is no host pattern, and `BadPattern`."""
        registry, rest = _split(text)
        if not registry:
            first, slash, _ = text.partition("/")
            name = first if slash else first.partition("@")[0].partition(":")[0]
            return cls(glob(text), anywhere=name == _ANY, nested=bool(slash) or name == _ANY)
        host, colon, port = registry.rpartition(":")
        if not colon:
            host, port = registry, ""
        if port != _ANY and not port.isdecimal() and colon:
            raise BadHost(f"{registry[:80]!r}: the port of a registry is a number or *")
        return cls(glob(rest), host_or_range(host), port)

    def matches(self, image: str) -> bool:
        if self.anywhere:
            return self.rest.matches(image)
        registry, rest = _split(image)
        if self.registry is None:
            return not registry and (self.nested or "/" not in image) and self.rest.matches(image)
        host, _, port = registry.partition(":")
        try:
            named = bool(registry) and self.registry.matches(unambiguous_host(host))
        except BadHost:
            return False
        return named and self.port in {_ANY, port} and self.rest.matches(rest)


def _split(reference: str) -> tuple[str, str]:
    """The registry and what follows it, as Docker tells them apart: without a registry the first part is a folder."""
    first, slash, rest = reference.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost" or first != first.lower()):
        return first, rest
    return "", reference
