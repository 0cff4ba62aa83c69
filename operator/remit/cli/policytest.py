"""Policies and their tests, from files to the terminal."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import typer
from pydantic import ValidationError
from pydantic.alias_generators import to_camel

from remit.api.commandpolicy import CommandPolicy
from remit.api.mistakes import first_mistake
from remit.api.quantity import format_bytes
from remit.cli import manifests
from remit.cli.terminal import counted
from remit.didyoumean import did_you_mean
from remit.errors import InvalidInput
from remit.policy.compile import CompiledPolicy
from remit.policy.deciding import Decision
from remit.policy.limits import Limits
from remit.policy.rate import RateClaim
from remit.policy.rules import describe
from remit.policy.testing import (
    DEFAULT_OPERATOR_NAMESPACE,
    Case,
    CaseResult,
    Expectation,
    InstallationDefaults,
    Suite,
    decide_on,
    parse_policies,
    parse_suite,
    parse_tasks,
    request_of,
    run_case,
    run_cases,
)
from remit.safeyaml import load_documents
from remit.telemetry.logs import escape

T = TypeVar("T")


def read(paths: Sequence[Path]) -> tuple[list[CompiledPolicy], list[Suite]]:
    """The policies and the test tables in the files, and the policies that the tables name."""
    texts = {path: manifests.read(path) for path in paths}
    suites = {path: _at(path, parse_suite, text) for path, text in texts.items() if _is_suite(text)}
    for path, suite in suites.items():
        named = [path.parent / name for name in suite.policies]
        texts |= {
            policy: manifests.read(policy) for policy in named if policy.resolve() not in {p.resolve() for p in texts}
        }
    policies = [
        policy for path, text in texts.items() if path not in suites for policy in _at(path, parse_policies, text)
    ]
    if not policies:
        raise InvalidInput(f"there is no CommandPolicy in {', '.join(map(str, texts))}{_instead(texts.values())}")
    return policies, list(suites.values())


def _is_suite(text: str) -> bool:
    try:
        return any(isinstance(doc, dict) and doc.get("kind") == "CommandPolicyTest" for doc in load_documents(text))
    except InvalidInput:
        return False  # the parser that reads the text next reports the error with its place


def _instead(texts: Iterable[str]) -> str:
    """What kinds there are, as the end of a sentence that says which is not there."""
    kinds = {str(doc.get("kind")) for text in texts for doc in load_documents(text) if isinstance(doc, dict)}
    like = [kind for kind in sorted(kinds) if did_you_mean(kind, [CommandPolicy.__name__])]
    return f", but {' and '.join(like)}; did you mean {CommandPolicy.__name__}?" if like else ""


def explain_policies(policies: Sequence[CompiledPolicy]) -> None:
    """Say of each that is ready that it is; of the others, problems are told as warnings."""
    for policy in policies:
        if policy.ready:
            typer.echo(escape(f"policy {policy.key} is ready"))


def _at(path: Path, parse: Callable[[str], T], text: str) -> T:
    try:
        return parse(text)
    except InvalidInput as error:
        raise InvalidInput(f"{path}: {error}") from None


def installation_defaults(backend: str | None, image: str | None) -> InstallationDefaults | None:
    """None where neither is given. Raises `BadParameter`."""
    given = {name: value for name, value in (("backend", backend), ("image", image)) if value is not None}
    try:
        return InstallationDefaults.model_validate(given) if given else None
    except ValidationError as error:
        raise typer.BadParameter(f"--default-{' '.join(first_mistake(error, InstallationDefaults))}") from None


def decide_on_command(
    argv: list[str],
    policies: Sequence[CompiledPolicy],
    task: dict[str, Any],
    defaults: InstallationDefaults | None = None,
) -> Decision:
    """Decide as the operator would. The program need not be installed where policies are tested."""
    try:
        case = Case(argv=argv, expect=Expectation(decision="Allowed"), **task)
    except ValidationError as error:
        raise typer.BadParameter(" ".join(first_mistake(error, Case))) from None
    return run_case(case, policies, DEFAULT_OPERATOR_NAMESPACE, defaults).decision


def judge_tasks(
    path: Path,
    policies: Sequence[CompiledPolicy],
    namespace: str,
    resolved: str | None,
    defaults: InstallationDefaults | None = None,
) -> list[tuple[str, Decision]]:
    """What is decided on each ExecutionTask in the file, by the task's name and what it asks for."""
    tasks = _at(path, lambda text: parse_tasks(text, namespace), manifests.read(path))
    if not tasks:
        raise InvalidInput(f"there is no ExecutionTask in {path}")
    judged = []
    for written in tasks:
        key = written.task.key
        try:
            request = request_of(written.task, resolved, written.environment, defaults)
        except InvalidInput as error:
            raise InvalidInput(f"{path}: {key}: {error}") from None
        decision = decide_on(request, policies, DEFAULT_OPERATOR_NAMESPACE)
        unread = (f"envFrom: {each} is not in {path}; a policy must list its keys too" for each in written.unread)
        judged.append(
            (f"{key}: {describe(request)}", dataclasses.replace(decision, warnings=(*decision.warnings, *unread)))
        )
    return judged


def warn_about_broken(policies: Sequence[CompiledPolicy]) -> bool:
    """Whether all are ready."""
    for policy in policies:
        for problem in policy.problems:
            typer.secho(escape(f"policy {policy.name} is not ready: {problem}"), fg="red", err=True)
    return not any(policy.problems for policy in policies)


def warn_about_ceilings(policies: Sequence[CompiledPolicy], suites: Sequence[Suite]) -> None:
    """Say what is in force and likely not meant."""
    namespaces = {suite.operator_namespace for suite in suites} or {DEFAULT_OPERATOR_NAMESPACE}
    for policy in policies:
        for warning in (each for namespace in namespaces for each in policy.warnings(namespace)):
            typer.secho(f"warning: policy {policy.name}: {warning}", fg="yellow", err=True)


def explain(decision: Decision) -> None:
    """Everything that is known about why, and under which terms."""
    typer.secho("Allowed" if decision.allowed else "Denied", fg="green" if decision.allowed else "red", bold=True)
    for name, text in facts(decision).items():
        typer.echo(f"  {name + ':':<9} {escape(text)}")


def facts(decision: Decision) -> dict[str, str]:
    """What is known about why, and under which terms, each under one word."""
    known = {
        "why": decision.message,
        "reason": str(decision.reason),
        "policy": decision.policy,
        "rule": decision.rule,
        "limits": _limits(decision.limits) if decision.allowed else "",
        "sandbox": ", ".join(decision.layers),
        "rate": "; ".join(_rate(claim) for claim in decision.rates),
        "audited": "; ".join(denial.message for denial in decision.audited),
        "warning": "; ".join(decision.warnings),
    }
    return {name: text for name, text in known.items() if text}


def as_dict(decision: Decision) -> dict[str, Any]:
    """The same as `explain` has, for programs."""
    limits = {to_camel(name): value for name, value in dataclasses.asdict(decision.limits).items() if value is not None}
    return {
        "decision": "Allowed" if decision.allowed else "Denied",
        "message": decision.message,
        "reason": str(decision.reason),
        "policy": decision.policy,
        "rule": decision.rule,
        "limits": limits if decision.allowed else {},
        "sandbox": [str(layer) for layer in decision.layers],
        "rates": [_rate(claim) for claim in decision.rates],
        "audited": [denial.message for denial in decision.audited],
        "warnings": list(decision.warnings),
    }


def policies_as_dicts(policies: Sequence[CompiledPolicy]) -> list[dict[str, Any]]:
    return [{"policy": each.key, "ready": each.ready, "problems": [str(p) for p in each.problems]} for each in policies]


def result_as_dict(result: CaseResult) -> dict[str, Any]:
    mismatches = [str(mismatch) for mismatch in result.mismatches]
    return {"case": result.title, "passed": result.passed, "mismatches": mismatches} | as_dict(result.decision)


def results_of(
    suites: Sequence[Suite], policies: Sequence[CompiledPolicy], defaults: InstallationDefaults | None = None
) -> list[CaseResult]:
    """How each case of every table comes out."""
    return [result for suite in suites for result in run_cases(suite, policies, defaults)]


def explain_results(results: Sequence[CaseResult]) -> None:
    for result in results:
        mark, colour = ("ok  ", "green") if result.passed else ("FAIL", "red")
        typer.echo(f"{typer.style(mark, fg=colour)}  {escape(result.title)}")
        for mismatch in result.mismatches:
            typer.echo(escape(f"      {mismatch}: {result.decision.message}"))
    failed = sum(not result.passed for result in results)
    typer.echo(f"{counted(len(results), 'case')}, {failed or 'none'} not as expected")


def _limits(limits: Limits) -> str:
    given = {name: value for name, value in dataclasses.asdict(limits).items() if value is not None}
    written = {
        name: format_bytes(value) if name in {"memory", "disk", "file_size", "output_bytes"} else value
        for name, value in given.items()
    }
    return ", ".join(f"{to_camel(name)} {value}" for name, value in written.items())


def _rate(claim: RateClaim) -> str:
    spec = claim.spec
    words = {"a minute": spec.per_minute, "in a burst": spec.burst, "at once": spec.max_concurrent}
    return f"{claim.policy}: " + ", ".join(f"{value} {word}" for word, value in words.items() if value is not None)
