"""Commands: a program and its exact argument list."""

from __future__ import annotations

from remit.policy import needs
from remit.policy.compile import CompiledPolicy, CompiledRule
from remit.policy.match import Command
from remit.policy.request import PolicyRequest
from remit.policy.verdict import Denial, Reason

_SHOWN = 200
_SHOWN_RULES = 3
_SHOWN_PROGRAMS = 20


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows the command, or why none does."""
    command = request.command
    if command is None:
        return Denial(Reason.NOT_ALLOWED, f"policy {policy.key} was not told which command", policy.key)
    for rule in policy.deny:
        if rule.matcher.denies(command):
            return Denial(Reason.DENIED_BY_RULE, _denied_by(policy, rule, command), policy.key, rule.name)
    allowing = next((rule for rule in policy.allow if rule.matcher.allows(command)), None)
    if allowing:
        return allowing.name
    message = _what_is_allowed(policy, command)
    return Denial(Reason.NOT_ALLOWED, message, policy.key, needs=needs.command(command.argv))


def describe(request: PolicyRequest) -> str:
    return shown(request.command) if request.command else "a command"


def shown(command: Command) -> str:
    """A command for messages: on one line, not too long."""
    line = command.line
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
    return f"{start}; what spec.commands.allow has is about {', '.join(list(programs)[:_SHOWN_PROGRAMS])}{more}"


def _shown_rule(rule: CompiledRule) -> str:
    return f"{rule.name}{f' ({rule.reason})' if rule.reason else ''} allows `{rule.matcher}`"
