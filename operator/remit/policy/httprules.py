"""Rules about HTTP requests, ready to be asked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from remit.api.commandpolicy import HttpRule
from remit.policy.egress import EgressRule
from remit.policy.patterns import BadPattern, Pattern, path_glob
from remit.policy.urls import BadUrl, Url, canonical_path, encode_path

AMBIGUOUS: Final = ("//", ";", "%3B", "%2F", "%3F", "%23")
"""What some servers merge, cut off or decode before they look for the resource. A wildcard does not stand for these."""
_WILDCARD: Final = re.compile(r"(\*\*|\*|\?)")


@dataclass(frozen=True)
class UrlPathPattern:
    """A glob over canonical paths, see `path_glob`."""

    source: str
    pattern: Pattern

    @classmethod
    def parse(cls, text: str) -> UrlPathPattern:
        """Raises `BadUrl` for a glob that matches no canonical path, and `BadPattern`."""
        pieces = _WILDCARD.split(text)  # literal text and wildcards alternate
        canonical_path("x".join(pieces[::2]))
        pieces[::2] = map(encode_path, pieces[::2])
        source = "".join(pieces)
        return cls(source, path_glob(source))

    def matches(self, path: str) -> bool:
        return self.pattern.matches(path) and self.ambiguity(path) is None

    def ambiguity(self, path: str) -> str | None:
        """The part of `AMBIGUOUS` that the path has more often than the glob."""
        return next((mark for mark in AMBIGUOUS if path.count(mark) > self.source.count(mark)), None)


@dataclass(frozen=True)
class CompiledHttpRule:
    """A rule by its name in the policy, such as `http.allow[0]`."""

    name: str
    hosts: EgressRule
    """The hosts to which the request may lead."""
    methods: frozenset[str]
    paths: tuple[UrlPathPattern, ...]
    """None: any path."""

    def matches(self, method: str, url: Url) -> bool:
        return (
            self.hosts.matches(url.destination)
            and method in self.methods
            and (not self.paths or any(path.matches(url.path) for path in self.paths))
        )


def compile_http_rules(
    rules: Sequence[HttpRule], hosts: Sequence[EgressRule], report: Callable[[str, str], None]
) -> Iterator[CompiledHttpRule]:
    """The rules of `http.allow`, of which `hosts` are the destinations. A mistake is reported with its field."""
    for rule, destinations in zip(rules, hosts, strict=True):
        paths = []
        for index, text in enumerate(rule.paths):
            try:
                paths.append(UrlPathPattern.parse(text))
            except (BadUrl, BadPattern) as error:
                report(f"spec.{destinations.name}.paths[{index}]", f"{text!r} matches nothing: {error}")
        yield CompiledHttpRule(destinations.name, destinations, frozenset(rule.methods), tuple(paths))
