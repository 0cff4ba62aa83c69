"""HTTP requests: host, port, method and path. The address that the host leads to is judged when it is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from remit.api.operations import HttpOperation
from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.egress import Egress, EgressRule
from remit.policy.httprules import CompiledHttpRule
from remit.policy.request import PolicyRequest
from remit.policy.urls import BadUrl, Url, display_url
from remit.policy.verdict import Denial, Reason

_RESERVED_HEADER: Final = re.compile(
    # These headers determine the destination or the end of the request.
    r"host|content-length|transfer-encoding|connection|keep-alive|upgrade|http2-settings|expect|te|trailer|proxy-.*"
    # With these headers, proxies and frameworks replace the host, path or method that the policy check has read.
    r"|forwarded|x-forwarded-(host|server|method|path|prefix|uri|url)|x-original-(host|method|path|uri|url)"
    r"|x-(rewrite|override)-(path|uri|url)|x-envoy-original-path|x-host|x-http-method|(x-)?script-name"
    r"|(x-)?(http-)?(host|method|path|uri|url)-override",
    re.IGNORECASE,
)


def unacceptable(request: PolicyRequest) -> str | None:
    """Why no policy is asked about the request: it has no canonical form, or a header would make it another one."""
    http = request.subject
    assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
    try:
        Url.parse(http.url)
    except BadUrl as error:
        return f"spec.http.url: {error}"
    for index, header in enumerate(http.headers):
        # CGI and WSGI do not distinguish the two characters.
        if _RESERVED_HEADER.fullmatch(header.name.replace("_", "-")):
            return (
                f"spec.http.headers[{index}]: {header.name} is Remit's own, as it says where the request goes or ends"
            )
    return None


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows the request, which is not `unacceptable`, or why none does."""
    http = request.subject
    assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
    url = Url.parse(http.url)
    rules = _rules(policy, http.method, url)
    if rules:
        return rules[0].name
    host, port = str(url.destination.host), url.destination.port
    lacking = needs.http(http.method, host, port, url.path)
    return Denial(Reason.NOT_ALLOWED, _what_is_allowed(policy, http.method, url), policy.key, needs=lacking)


def egress_of(policies: Sequence[CompiledPolicy], method: str, url: Url) -> list[Egress]:
    """The rules of each policy that has a say by which the address of `url` is to be judged.

    A policy that only audits, and has no rule, leaves the public addresses.
    """
    public = EgressRule("http.allow", (), frozenset({url.destination.port}))
    return [
        Egress(
            policy.key,
            tuple(rule.hosts for rule in _rules(policy, method, url)) or (() if policy.enforced else (public,)),
        )
        for policy in policies
    ]


def describe(request: PolicyRequest) -> str:
    http = request.subject
    assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
    return f"{http.method} {display_url(http.url)}"


def _rules(policy: CompiledPolicy, method: str, url: Url) -> list[CompiledHttpRule]:
    return [rule for rule in policy.http if rule.matches(method, url)]


def _what_is_allowed(policy: CompiledPolicy, method: str, url: Url) -> str:
    start = f"no rule of policy {policy.key} allows {method} on {url.destination}"
    if not policy.http:
        return f"{start}: it has no spec.http.allow"
    for rule, spec in zip(policy.http, policy.spec.http.allow, strict=True):
        if not any(host.matches(url.destination.host) for host in rule.hosts.hosts):
            continue
        if url.destination.port not in rule.hosts.ports:
            return f"{start}; spec.{rule.name}.ports has {', '.join(map(str, spec.ports))}"
        if method not in rule.methods:
            return f"{start}; spec.{rule.name}.methods has {', '.join(spec.methods)}"
        return f"{start} at {url.path}; spec.{rule.name}.paths has {', '.join(spec.paths)}{_ambiguity(rule, url)}"
    hosts = [host for spec in policy.spec.http.allow for host in spec.hosts]
    return f"{start}; spec.http.allow[].hosts names {', '.join(hosts[:8])}"


def _ambiguity(rule: CompiledHttpRule, url: Url) -> str:
    """The characters that a glob which otherwise matches would have to contain."""
    for glob in rule.paths:
        if glob.pattern.matches(url.path) and (mark := glob.ambiguity(url.path)):
            return f"; servers differ in how they read {mark}, so a glob must contain it as it stands in the path"
    return ""
