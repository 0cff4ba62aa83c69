"""Policy tests: a table of commands and what is expected of each, so that policies can be tested like code. Pure.

The file format is described in docs/policy.md; whoever calls reads the files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from remit.api import CommandPolicy
from remit.api.base import SpecModel
from remit.api.executiontask import BackendName, ExecutionTaskSpec, Network, Resources
from remit.api.operations import Argv, CommandOperation
from remit.errors import InvalidInput
from remit.policy.argv import canonical
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.decide import Decision, decide
from remit.policy.egress import Forbidden, permits
from remit.policy.hosts import BadHost, Destination
from remit.policy.limits import asked_for
from remit.policy.match import Command
from remit.policy.request import Request, argv_of

DEFAULT_OPERATOR_NAMESPACE = "remit-system"


class Expectation(SpecModel):
    """What must come out. What is not set may be anything."""

    decision: Literal["Allowed", "Denied"]
    reason: str | None = None
    policy: str | None = None
    rule: str | None = None
    audited: bool | None = None
    """Whether a would-be denial of an Audit policy is recorded."""
    reaches: list[str] = Field(default_factory=list)
    """With `network: restricted`: destinations, such as `api.example.com:443`, that must be allowed."""
    refuses: list[str] = Field(default_factory=list)
    """Destinations that must not be."""


class Case(SpecModel):
    """One command, the task around it, and what is expected."""

    exactly_one = ("argv", "line")

    name: str = ""
    argv: Argv | None = None
    line: str | None = None
    resolved: str | None = None
    """The path that the program is found at; by default `/usr/bin/NAME` for a bare name."""
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    backend: BackendName = "process"
    image: str | None = None
    network: Network = "none"
    timeout_seconds: int | None = None
    deadline_seconds: int | None = None
    resources: Resources = Resources()
    expect: Expectation


class Suite(SpecModel):
    """A policy test file."""

    api_version: Literal["remit.dev/v1alpha1"] = "remit.dev/v1alpha1"
    kind: Literal["CommandPolicyTest"] = "CommandPolicyTest"
    operator_namespace: str = DEFAULT_OPERATOR_NAMESPACE
    """Policies of this namespace are ceilings."""
    policies: Annotated[list[str], Field(min_length=1)]
    """Files with policies, relative to the test file."""
    cases: Annotated[list[Case], Field(min_length=1)]


@dataclass(frozen=True)
class CaseResult:
    """What came of one case. `mismatches` says in sentences what was expected and not met; none: the case passed."""

    title: str
    command: str
    decision: Decision
    mismatches: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.mismatches


def parse_suite(text: str) -> Suite:
    """A test file from its YAML. Raises `InvalidInput` with the line or the field that is wrong."""
    try:
        return Suite.model_validate(_load(text)[0])
    except IndexError:
        raise InvalidInput("the policy test file is empty") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
        raise InvalidInput(first["msg"].removeprefix("Value error, "), field=where) from None


def parse_policies(text: str) -> list[CompiledPolicy]:
    """The CommandPolicies in a YAML text, compiled; objects of other kinds are passed over. Raises `InvalidInput`."""
    objects = [obj for obj in _load(text) if isinstance(obj, dict) and obj.get("kind") == "CommandPolicy"]
    return [compile_policy(CommandPolicy.parse(obj)) for obj in objects]


def run_cases(suite: Suite, policies: Sequence[CompiledPolicy]) -> list[CaseResult]:
    """Decide every case as the operator would."""
    return [run_case(case, policies, suite.operator_namespace) for case in suite.cases]


def run_case(case: Case, policies: Sequence[CompiledPolicy], operator_namespace: str) -> CaseResult:
    """Decide one case under the policies of its namespace and the ceilings."""
    own = [policy for policy in policies if policy.namespace == case.namespace]
    ceilings = [policy for policy in policies if policy.namespace == operator_namespace]
    command = CommandOperation(argv=case.argv, line=case.line)
    try:
        argv = tuple(argv_of(command))
    except InvalidInput as error:
        raise InvalidInput(str(error), field=f"{case.name or 'case'}: line") from None
    spec = ExecutionTaskSpec(
        command=command,
        timeout_seconds=case.timeout_seconds,
        deadline_seconds=case.deadline_seconds,
        resources=case.resources,
    )
    request = Request(
        namespace=case.namespace,
        labels=case.labels,
        command=Command(argv, case.resolved or _usual_path(argv[0])),
        backend=case.backend,
        network=case.network,
        image=case.image,
        limits=asked_for(spec),
    )
    decision = decide(request, own, ceilings)
    shown = canonical(argv)
    return CaseResult(case.name or shown, shown, decision, tuple(_mismatches(case.expect, decision)))


def _mismatches(expected: Expectation, decision: Decision) -> list[str]:
    found: dict[str, object] = {
        "decision": "Allowed" if decision.allowed else "Denied",
        "reason": str(decision.reason),
        "policy": decision.policy,
        "rule": decision.rule,
        "audited": bool(decision.audited),
    }
    wanted = expected.model_dump(exclude_none=True, exclude={"reaches", "refuses"})
    return [
        *(
            f"{name} should be {value}, is {found[name] or 'none'}"
            for name, value in wanted.items()
            if found[name] != value
        ),
        *(f"should be reached: {why}" for text in expected.reaches if (why := _in_the_way(text, decision))),
        *(f"{text} should be refused, is allowed" for text in expected.refuses if not _in_the_way(text, decision)),
    ]


def _in_the_way(text: str, decision: Decision) -> str | None:
    """Why `text` cannot be reached, as far as it can be told without resolving a name."""
    try:
        destination = Destination.parse(text, default_port=443)
    except BadHost as error:
        raise InvalidInput(str(error), field="expect") from None
    permit = permits(destination, decision.egress)
    if isinstance(permit, Forbidden):
        return permit.message
    return None if isinstance(destination.host, str) else permit.screen([destination.host])[1]


def _usual_path(program: str) -> str:
    return program if "/" in program else posixpath.join("/usr/bin", program)


def _load(text: str) -> list[Any]:
    try:
        return [document for document in yaml.safe_load_all(text) if document is not None]
    except yaml.YAMLError as error:
        raise InvalidInput(f"not valid YAML: {' '.join(str(error).split())}") from None
