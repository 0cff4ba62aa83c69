"""HTTP requests: host, port, method and path. The address that the host leads to is judged when it is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from remit.api.operations import HttpOperation
from remit.policy.argv import refused_character
from remit.policy.compile import CompiledPolicy
from remit.policy.egress import Egress, EgressRule
from remit.policy.hosts import BadHost, Destination, canonical_host
from remit.policy.patterns import path_glob
from remit.policy.request import Request
from remit.policy.verdict import Denial, Reason

DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_OWN_HEADER: Final = re.compile(
    r"host|content-length|transfer-encoding|connection|keep-alive|upgrade|expect|te|trailer|proxy-.*", re.IGNORECASE
)
"""A Host of its own would reach another site than the one that was judged; another length, a second request."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a URL leads: one spelling of its host, its port, and its path without the query."""

    scheme: str
    destination: Destination
    path: str

    @property
    def origin(self) -> tuple[str, Destination]:
        return self.scheme, self.destination


def target_of(url: str) -> Target:
    """Raises `BadHost` for what no request is sent to."""
    if refused := refused_character(url):
        raise BadHost(f"the URL has {refused[1]} in column {refused[0]}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadHost(f"{url} is not a URL: {error}") from None
    if parts.scheme not in DEFAULT_PORTS:
        raise BadHost(f"{parts.scheme or url} is not http or https")
    if "@" in parts.netloc:
        raise BadHost("the URL names a user; give credentials in a header with valueFrom instead")
    host = canonical_host(parts.netloc.rpartition(":")[0] if port is not None else parts.netloc.removesuffix(":"))
    return Target(parts.scheme, Destination(host, port or DEFAULT_PORTS[parts.scheme]), parts.path or "/")


def judge(policy: CompiledPolicy, request: Request) -> str | Denial:
    """The rule that allows the request, or why none does."""
    http = request.subject
    assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
    try:
        target = target_of(http.url)
    except BadHost as error:
        return Denial(Reason.NOT_ALLOWED, f"spec.http.url: {error}", policy.key)
    for index, header in enumerate(http.headers):
        if _OWN_HEADER.fullmatch(header.name):
            message = (
                f"spec.http.headers[{index}]: {header.name} is Remit's own, as it says where the request goes or ends"
            )
            return Denial(Reason.NOT_ALLOWED, message, policy.key)
    rules = _rules(policy, http.method, target)
    if rules:
        return rules[0].name
    return Denial(Reason.NOT_ALLOWED, _what_is_allowed(policy, http.method, target), policy.key)


def egress_of(policies: Sequence[CompiledPolicy], method: str, target: Target) -> list[Egress]:
    """Of each policy that has a say, the rules under which the address of `target` is to be judged.

    A policy that only audits, and has no rule, leaves the public addresses.
    """
    public = EgressRule("http.allow", (), frozenset({target.destination.port}))
    return [
        Egress(policy.key, tuple(_rules(policy, method, target)) or (() if policy.enforced else (public,)))
        for policy in policies
    ]


def describe(request: Request) -> str:
    http = request.subject
    assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
    return f"{http.method} {http.url.partition('?')[0]}"


def _rules(policy: CompiledPolicy, method: str, target: Target) -> list[EgressRule]:
    return [
        rule
        for rule, spec in zip(policy.http, policy.spec.http.allow, strict=True)
        if rule.matches(target.destination)
        and method in spec.methods
        and (not spec.paths or any(path_glob(glob).matches(target.path) for glob in spec.paths))
    ]


def _what_is_allowed(policy: CompiledPolicy, method: str, target: Target) -> str:
    start = f"no rule of policy {policy.key} allows {method} on {target.destination}"
    if not policy.http:
        return f"{start}: it has no spec.http.allow"
    for rule, spec in zip(policy.http, policy.spec.http.allow, strict=True):
        if not any(host.matches(target.destination.host) for host in rule.hosts):
            continue
        if target.destination.port not in rule.ports:
            return f"{start}; spec.{rule.name}.ports has {', '.join(map(str, spec.ports))}"
        if method not in spec.methods:
            return f"{start}; spec.{rule.name}.methods has {', '.join(spec.methods)}"
        return f"{start} at {target.path}; spec.{rule.name}.paths has {', '.join(spec.paths)}"
    hosts = [host for spec in policy.spec.http.allow for host in spec.hosts]
    return f"{start}; spec.http.allow[].hosts names {', '.join(hosts[:8])}"
