"""File operations: which may be done where.

Paths are held against the rules as they are written, which is why there is only one way to write one; while the
operation runs, the same rules are asked about where a path really leads.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import replace

from remit.api.operations import FileOperation, HttpOperation
from remit.policy import needs
from remit.policy.argv import refused_character, takes_a_detour
from remit.policy.compile import CompiledPolicy
from remit.policy.filerules import CompiledFileRule
from remit.policy.globs import Overlaps, unacceptable_glob
from remit.policy.request import PolicyRequest
from remit.policy.rules import http
from remit.policy.urls import BadUrl, Url, display_url
from remit.policy.verdict import Denial, Reason


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows the operation on its path, or why none does."""
    file = request.subject
    assert isinstance(file, FileOperation)  # noqa: S101  # by its operation
    if file.glob is not None:
        return _glob(policy, file, file.glob)
    rules = []
    for field, path in zip(("path", "destination"), paths(file), strict=False):
        if wrong := unacceptable_path(path):
            return Denial(Reason.NOT_ALLOWED, f"spec.file.{field}: {wrong}", policy.key)
        for rule in policy.file_deny:
            if file.operation in rule.operations and rule.matches(path):
                message = f"{file.operation} of {path} is denied by {rule.name} of policy {policy.key}"
                return Denial(Reason.DENIED_BY_RULE, message, policy.key, rule.name)
        rule_name = next((r.name for r in matching(policy, file.operation, path)), None)
        if rule_name is None:
            lacking = needs.files(file.operation, [path], recursive=file.recursive)
            return Denial(Reason.NOT_ALLOWED, _what_is_allowed(policy, file, path), policy.key, needs=lacking)
        rules.append(rule_name)
    return _content(policy, request, file, rules[0])


def _glob(policy: CompiledPolicy, file: FileOperation, glob: str) -> str | Denial:
    """The rule that may allow some of what a glob matches, or why none does. Each path that it matches is asked about
    by itself while the operation runs."""
    if file.operation not in {"list", "delete"}:
        return Denial(Reason.NOT_ALLOWED, "spec.file.glob: a glob goes with list and delete", policy.key)
    for field, wrong in (("path", unacceptable_path(file.path)), ("glob", unacceptable_glob(glob))):
        if wrong:
            return Denial(Reason.NOT_ALLOWED, f"spec.file.{field}: {wrong}", policy.key)
    for rule in policy.file_deny:
        if file.operation in rule.operations and rule.covers(file.path):
            message = f"{file.operation} of {_shown(file)} is denied by {rule.name} of policy {policy.key}"
            return Denial(Reason.DENIED_BY_RULE, message, policy.key, rule.name)
    overlaps = Overlaps(file.path, glob)
    for rule in policy.file_allow:
        if file.operation in rule.operations and rule.overlaps(overlaps):
            return rule.name
    return Denial(Reason.NOT_ALLOWED, _what_is_allowed(policy, file, _shown(file)), policy.key)


def _shown(file: FileOperation) -> str:
    return f"{file.path.rstrip('/')}/{file.glob}" if file.glob is not None else file.path


def unacceptable(request: PolicyRequest) -> str | None:
    """Why no policy is asked about it: the URL of its content has no canonical form."""
    file = request.subject
    assert isinstance(file, FileOperation)  # noqa: S101  # by its operation
    try:
        if file.content_from and file.content_from.url:
            Url.parse(file.content_from.url)
    except BadUrl as error:
        return f"spec.file.contentFrom.url: {error}"
    return None


def _content(policy: CompiledPolicy, request: PolicyRequest, file: FileOperation, allowing: str) -> str | Denial:
    """`allowing`, and for content from an address the rule for requests that allows it to be read."""
    url = file.content_from.url if file.content_from else None
    if url is None:
        return allowing
    reading = http.judge(policy, replace(request, operation="http", subject=HttpOperation(url=url)))
    if isinstance(reading, Denial):
        return replace(reading, message=f"spec.file.contentFrom.url: {reading.message}")
    return f"{allowing} and {reading}"


def matching(policy: CompiledPolicy, operation: str, path: str) -> Iterator[CompiledFileRule]:
    """The rules that allow `operation` on `path`."""
    return (rule for rule in policy.file_allow if operation in rule.operations and rule.matches(path))


def paths(file: FileOperation) -> list[str]:
    return [_shown(file), *([file.destination] if file.destination else [])]


def describe(request: PolicyRequest) -> str:
    file = request.subject
    assert isinstance(file, FileOperation)  # noqa: S101  # by its operation
    source = f" from {display_url(file.content_from.url)}" if file.content_from and file.content_from.url else ""
    return f"{file.operation} of {' to '.join(paths(file))}{source}"


def unacceptable_path(path: str) -> str | None:
    """None, or why no rule is asked about it."""
    if refused := refused_character(path):
        return f"the path has {refused[1]} in column {refused[0]}"
    if path != "/" and (takes_a_detour(path) or posixpath.normpath(path) != path):
        return f"the path {path!r} takes a detour; write it without '..', '.', '//' or a final '/'"
    return None


def _what_is_allowed(policy: CompiledPolicy, file: FileOperation, path: str) -> str:
    start = f"no rule of policy {policy.key} allows {file.operation} of {path}"
    if not policy.file_allow:
        return f"{start}: it has no spec.files.allow"
    for rule in policy.file_allow:
        if rule.matches(path):
            return f"{start}; {rule.name} allows {', '.join(rule.operations)} there (spec.{rule.name}.operations)"
    places = [glob for rule in policy.file_allow if file.operation in rule.operations for glob, _ in rule.globs]
    if places:
        return f"{start}; it allows {file.operation} in {', '.join(places[:5])} (spec.files.allow)"
    return f"{start}; none of spec.files.allow names {file.operation}"


def root(policies: Sequence[CompiledPolicy], operation: str, path: str, glob: str | None = None) -> str:
    """The directory that no link may lead out of: that of the first rule that allows it."""
    if glob is not None:
        overlaps = Overlaps(path, glob)
        rules = (rule for policy in policies for rule in policy.file_allow if operation in rule.operations)
        return next((rule.root_above(path, overlaps) for rule in rules if rule.overlaps(overlaps)), "/")
    return next((rule.root(path) for policy in policies for rule in matching(policy, operation, path)), "/")


def owner_refusal(policies: Sequence[CompiledPolicy], namespace: str, file: tuple[str, str], owner: set[str]) -> str:
    """Empty, or whose files these would have to be. `file` is the operation and the path, `owner` the owner's name and
    number; one policy of `namespace` must accept the owner, and every ceiling that speaks of the path."""
    verdicts = []
    for policy in policies:
        if rules := list(matching(policy, *file)):
            accepted = any(not rule.owners or owner & set(rule.owners) for rule in rules)
            verdicts.append((policy, accepted, [name for rule in rules for name in rule.owners]))
    own = [accepted for policy, accepted, _ in verdicts if policy.namespace == namespace]
    ceilings = [accepted for policy, accepted, _ in verdicts if policy.namespace != namespace]
    if (any(own) or not own) and all(ceilings):
        return ""
    return "; ".join(
        f"policy {policy.key} wants {', '.join(wanted)} (files.allow[].owners)"
        for policy, accepted, wanted in verdicts
        if not accepted
    )
