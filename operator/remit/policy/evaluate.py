"""One policy's verdict on one request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from remit.policy.argv import canonical
from remit.policy.compile import CompiledPolicy, CompiledRule
from remit.policy.environment import steering
from remit.policy.limits import excess
from remit.policy.match import Command
from remit.policy.request import Request

_SHOWN = 200
_SHOWN_RULES = 3
_SHOWN_PROGRAMS = 20


class Reason(StrEnum):
    """Why, as one stable word: it is API."""

    ALLOWED = "Allowed"
    AUDITED = "Audited"
    INVALID_COMMAND = "InvalidCommand"
    NO_POLICY = "NoPolicy"
    POLICY_NOT_READY = "PolicyNotReady"
    DENIED_BY_RULE = "DeniedByRule"
    OPERATION_NOT_ALLOWED = "OperationNotAllowed"
    NOT_ALLOWED = "NotAllowed"
    BACKEND_NOT_ALLOWED = "BackendNotAllowed"
    NETWORK_NOT_ALLOWED = "NetworkNotAllowed"
    ENVIRONMENT_NOT_ALLOWED = "EnvironmentNotAllowed"
    IMAGE_NOT_ALLOWED = "ImageNotAllowed"
    LIMIT_EXCEEDED = "LimitExceeded"
    CEILING_EXCEEDED = "CeilingExceeded"
    EXECUTABLE_NOT_FOUND = "ExecutableNotFound"


@dataclass(frozen=True)
class Denial:
    """Why not, and what would have been needed. `policy` is `namespace/name`, or empty when there is none."""

    reason: Reason
    message: str
    policy: str = ""
    rule: str = ""

    @property
    def final(self) -> bool:
        """Whether it stands whatever other policies say."""
        return self.reason in {Reason.DENIED_BY_RULE, Reason.POLICY_NOT_READY}


@dataclass(frozen=True)
class Allowance:
    """Why. `rule` is such as `commands.allow[2]`."""

    policy: CompiledPolicy
    rule: str


def evaluate(policy: CompiledPolicy, request: Request) -> Allowance | Denial:
    """What `policy` alone says to `request`, which it selects."""

    def denied(reason: Reason, message: str, rule: str = "") -> Denial:
        return Denial(reason, message, policy.key, rule)

    if not policy.ready:
        return denied(
            Reason.POLICY_NOT_READY,
            f"policy {policy.key} selects the task but is not ready, so nothing may run: {policy.problems[0]}",
        )
    if request.operation != "command" or request.command is None:
        return denied(
            Reason.OPERATION_NOT_ALLOWED, f"policy {policy.key} has no rule for the operation {request.operation}"
        )
    command = request.command
    for rule in policy.deny:
        if rule.matcher.denies(command):
            return denied(Reason.DENIED_BY_RULE, _denied_by(policy, rule, command), rule.name)
    allowing = next((rule for rule in policy.allow if rule.matcher.allows(command)), None)
    if allowing is None:
        return denied(Reason.NOT_ALLOWED, _what_is_allowed(policy, command))
    if request.backend not in policy.spec.backends:
        return denied(
            Reason.BACKEND_NOT_ALLOWED,
            f"policy {policy.key} allows the backends {', '.join(policy.spec.backends)}, not {request.backend}"
            " (spec.backends)",
            "backends",
        )
    if request.network not in policy.spec.networks:
        return denied(
            Reason.NETWORK_NOT_ALLOWED,
            f"policy {policy.key} allows network {' or '.join(policy.spec.networks)}, not {request.network}"
            " (spec.networks)",
            "networks",
        )
    if refused := steering(request.environment, policy.spec.environment.allow):
        return denied(
            Reason.ENVIRONMENT_NOT_ALLOWED,
            f"{', '.join(refused[:_SHOWN_RULES])} can make a program run something else; policy {policy.key} would have"
            " to allow it in spec.environment.allow",
            "environment.allow",
        )
    if request.backend != "process" and not any(image.matches(request.image or "") for image in policy.images):
        return denied(
            Reason.IMAGE_NOT_ALLOWED,
            f"no image that policy {policy.key} allows matches {request.image or '(none)'}; spec.images.allow has"
            f" {', '.join(policy.spec.images.allow) or 'no entry'}",
            "images.allow",
        )
    if over := excess(request.limits, policy.bounds.max):
        return denied(
            Reason.LIMIT_EXCEEDED,
            f"{over.name} {over.asked} is above the {over.max} that policy {policy.key} allows at most"
            f" (spec.limits.{over.name}.max); ask for {over.max} or less",
            f"limits.{over.name}",
        )
    return Allowance(policy, allowing.name)


def shown(command: Command) -> str:
    """A command for messages: on one line, not too long."""
    line = canonical(command.argv)
    return f"`{line}`" if len(line) <= _SHOWN else f"`{line[:_SHOWN]}…`"


def _denied_by(policy: CompiledPolicy, rule: CompiledRule, command: Command) -> str:
    why = f": {rule.reason}" if rule.reason else f", which forbids {rule.matcher}"
    return f"{shown(command)} is denied by {rule.name} of policy {policy.key}{why}"


def _what_is_allowed(policy: CompiledPolicy, command: Command) -> str:
    start = f"no rule of policy {policy.key} allows {shown(command)}"
    if not policy.allow:
        return f"{start}: it has no spec.commands.allow"
    concerned = [rule for rule in policy.allow if rule.matcher.concerns(command)]
    for rule in concerned:
        if near := rule.matcher.near_miss(command):
            return f"{start}; {_shown_rule(rule)}, but {near}"
    if concerned:
        return f"{start}; {' and '.join(map(_shown_rule, concerned[:_SHOWN_RULES]))}"
    programs = dict.fromkeys(rule.matcher.about or f"`{rule.matcher}`" for rule in policy.allow)
    more = ", …" if len(programs) > _SHOWN_PROGRAMS else ""
    return f"{start}; what it allows is about {', '.join(list(programs)[:_SHOWN_PROGRAMS])}{more}"


def _shown_rule(rule: CompiledRule) -> str:
    return f"{rule.name}{f' ({rule.reason})' if rule.reason else ''} allows `{rule.matcher}`"
