"""Scripts: the interpreter must be listed, and the source known by its digest or by a pattern.

A script that a pattern lets through is arbitrary code as far as the pattern allows: the sandbox is what holds it.
"""

from __future__ import annotations

import hashlib

from remit.api.operations import ScriptOperation
from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.verdict import Denial, Reason


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows the script, or why none does."""
    script, rules = request.subject, policy.spec.scripts
    assert isinstance(script, ScriptOperation)  # noqa: S101  # by its operation

    digest = digest_of(script)

    def denied(message: str) -> Denial:
        return Denial(Reason.NOT_ALLOWED, message, policy.key, needs=needs.script(script.interpreter, digest))

    resolved = request.command.resolved if request.command else None
    if script.interpreter not in rules.interpreters and resolved not in rules.interpreters:
        listed = ", ".join(rules.interpreters) or "none"
        return denied(
            f"policy {policy.key} allows no script for {script.interpreter}: spec.scripts.interpreters lists {listed}"
        )
    if digest in rules.sha256:
        return f"scripts.sha256[{rules.sha256.index(digest)}]"
    for index, pattern in enumerate(policy.scripts):
        if pattern.matches(script.source):
            return f"scripts.patterns[{index}]"
    return denied(
        f"policy {policy.key} does not know this script: its digest {digest} would have to be in spec.scripts.sha256,"
        " or a pattern of spec.scripts.patterns match the whole source"
    )


def describe(request: PolicyRequest) -> str:
    script = request.subject
    assert isinstance(script, ScriptOperation)  # noqa: S101  # by its operation
    return f"the {script.interpreter} script {digest_of(script)[:12]}"


def digest_of(script: ScriptOperation) -> str:
    """SHA-256 of the source, as `sha256sum` gives it for the file."""
    return hashlib.sha256(script.source.encode()).hexdigest()
