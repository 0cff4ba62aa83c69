"""Policy tests: a table of operations and what is expected of each, so that policies can be tested like code. Pure.

The file format is described in docs/policy.md; whoever calls reads the files.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError

from remit.api.base import EnvVar, SpecModel
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import (
    BackendName,
    ExecutionTask,
    ExecutionTaskSpec,
    Network,
    Output,
    Resources,
    StdinSource,
)
from remit.api.mistakes import first_mistake
from remit.api.operationnames import OPERATIONS
from remit.api.operations import (
    Argv,
    CommandOperation,
    ContainerOperation,
    FileOperation,
    HttpOperation,
    PostgresOperation,
    ProcessOperation,
    RedisOperation,
    ScriptOperation,
)
from remit.api.pods import PodOptions
from remit.api.privatefile import PrivateFile
from remit.api.resource import ObjectMeta
from remit.api.volumes import Artifact, Volume, VolumeMount
from remit.errors import InvalidInput
from remit.policy.argv import canonical
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.hosts import BadHost, Destination
from remit.policy.match import Command
from remit.policy.request import Installation, PolicyRequest, executed, request_for
from remit.policy.rules import describe
from remit.safeyaml import load_documents
from remit.sandboxpaths import WORKSPACE

DEFAULT_OPERATOR_NAMESPACE = "remit-system"


class Expectation(SpecModel):
    """The expected result. Fields that are not set may be anything."""

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
    """One operation, the task around it, and what is expected."""

    exactly_one = ("argv", "line", *(name for name in OPERATIONS if name != "command"))

    name: str = ""
    argv: Argv | None = None
    line: str | None = None
    script: ScriptOperation | None = None
    file: FileOperation | None = None
    process: ProcessOperation | None = None
    http: HttpOperation | None = None
    redis: RedisOperation | None = None
    postgres: PostgresOperation | None = None
    container: ContainerOperation | None = None
    resolved: str | None = None
    """The path that the program is found at; by default `/usr/bin/NAME` for a bare name."""
    namespace: str = "default"
    labels: dict[str, str] = Field(default_factory=dict)
    backend: BackendName | None = None
    image: str | None = None
    pod: PodOptions | None = None
    network: Network = "none"
    env: list[EnvVar] = Field(default_factory=list)
    private_files: list[PrivateFile] = Field(default_factory=list)
    volumes: list[Volume] = Field(default_factory=list)
    volume_mounts: list[VolumeMount] = Field(default_factory=list)
    stdin_from: StdinSource | None = None
    artifacts: list[Artifact] = Field(default_factory=list)
    working_dir: str = WORKSPACE
    output: Output = Output()
    timeout_seconds: int | None = None
    deadline_seconds: int | None = None
    resources: Resources = Resources()
    expect: Expectation

    @property
    def task(self) -> ExecutionTask:
        """The task that it stands for."""
        command = CommandOperation(argv=self.argv, line=self.line) if self.argv or self.line is not None else None
        spec = ExecutionTaskSpec(
            command=command,
            script=self.script,
            file=self.file,
            process=self.process,
            http=self.http,
            redis=self.redis,
            postgres=self.postgres,
            container=self.container,
            backend=self.backend,
            image=self.image,
            pod=self.pod,
            network=self.network,
            env=self.env,
            private_files=self.private_files,
            volumes=self.volumes,
            volume_mounts=self.volume_mounts,
            stdin_from=self.stdin_from,
            artifacts=self.artifacts,
            working_dir=self.working_dir,
            output=self.output,
            timeout_seconds=self.timeout_seconds,
            deadline_seconds=self.deadline_seconds,
            resources=self.resources,
        )
        return ExecutionTask(metadata=ObjectMeta(name="case", namespace=self.namespace, labels=self.labels), spec=spec)


_REMIT_IMAGE: Final = "remit"
"""Stands for the one that an installation has."""


class InstallationDefaults(SpecModel):
    """The operator's defaults for what a task does not say: its first `--backend`, and its `--default-image`."""

    backend: BackendName = "process"
    image: str = ""

    @property
    def installation(self) -> Installation:
        for_images: BackendName | None = "docker" if self.backend == "process" else None
        return Installation(backend=self.backend, image=self.image, for_images=for_images, remit_image=_REMIT_IMAGE)


class Suite(SpecModel):
    """A policy test file."""

    api_version: Literal["remit.dev/v1alpha1"] = "remit.dev/v1alpha1"
    kind: Literal["CommandPolicyTest"] = "CommandPolicyTest"
    operator_namespace: str = DEFAULT_OPERATOR_NAMESPACE
    """Policies of this namespace are ceilings."""
    installation: InstallationDefaults | None = None
    policies: Annotated[list[str], Field(min_length=1)]
    """Files with policies, relative to the test file."""
    cases: Annotated[list[Case], Field(min_length=1)]


@dataclass(frozen=True)
class CaseResult:
    """The result of one case. `mismatches` are sentences about what was expected and not met; none: the case passed."""

    title: str
    command: str
    decision: Decision
    mismatches: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return not self.mismatches


@dataclass(frozen=True)
class WrittenTask:
    """A task from a file. `environment` has what its `envFrom` brings, as far as the file has the ConfigMaps and
    Secrets; `unread` names those that it does not have. None stands for a value that is not looked at."""

    task: ExecutionTask
    environment: Mapping[str, str | None]
    unread: tuple[str, ...]


def parse_tasks(text: str, namespace: str = "default") -> list[WrittenTask]:
    """The ExecutionTasks in a YAML text, in `namespace` where they name none; objects of other kinds are passed over.
    Raises `InvalidInput`."""
    objects = [obj for obj in load_documents(text) if isinstance(obj, dict)]
    tasks = []
    for obj in objects:
        if obj.get("kind") == "ExecutionTask":
            task = ExecutionTask.parse(obj)
            if "namespace" not in task.metadata.model_fields_set:
                metadata = task.metadata.model_copy(update={"namespace": namespace})
                task = task.model_copy(update={"metadata": metadata})
            tasks.append(_with_environment(task, objects, namespace))
    return tasks


def _with_environment(task: ExecutionTask, objects: Sequence[dict[str, Any]], namespace: str) -> WrittenTask:
    found: dict[str, str | None] = {}
    unread = []
    for source in task.spec.env_from:
        kind, reference = ("Secret", source.secret_ref) if source.secret_ref else ("ConfigMap", source.config_map_ref)
        assert reference is not None  # noqa: S101  # one of the two is set
        data = _data(objects, kind, reference.name, task.metadata.namespace, namespace)
        if data is None:
            unread.append(f"{kind} {reference.name}")
        found |= {f"{source.prefix}{key}": value for key, value in (data or {}).items()}
    written = {each.name: None if each.value_from else each.value or "" for each in task.spec.env}
    return WrittenTask(task, {**found, **written}, tuple(unread))


def _data(
    objects: Sequence[dict[str, Any]], kind: str, name: str, namespace: str, default_namespace: str
) -> dict[str, str | None] | None:
    """The data of a ConfigMap or a Secret among `objects`, by key; None if it is not among them."""
    for obj in objects:
        metadata = obj.get("metadata")
        if obj.get("kind") != kind or not isinstance(metadata, dict) or metadata.get("name") != name:
            continue
        if (metadata.get("namespace") or default_namespace) == namespace:
            plain = _texts(obj, "data" if kind == "ConfigMap" else "stringData")
            encoded = _texts(obj, "binaryData" if kind == "ConfigMap" else "data")
            return {**{key: _decoded(value) for key, value in encoded.items()}, **plain}
    return None


def _texts(obj: dict[str, Any], field: str) -> dict[str, str]:
    """The texts of a ConfigMap or a Secret in `field`. Raises `InvalidInput` for what an API server refuses."""
    found = obj.get(field) or {}
    if not isinstance(found, dict):
        raise InvalidInput("must have texts under keys", field=field)
    for key, value in found.items():
        if not isinstance(value, str | None):
            raise InvalidInput("must be a text; put it in quotes", field=f"{field}.{key}")
    return {key: value or "" for key, value in found.items()}


def _decoded(value: str) -> str | None:
    """The text that is encoded; None where it is none."""
    try:
        return base64.b64decode(value, validate=True).decode()
    except ValueError:
        return None


def parse_suite(text: str) -> Suite:
    """A test file from its YAML. Raises `InvalidInput` with the line or the field that is wrong."""
    try:
        return Suite.model_validate(load_documents(text)[0])
    except IndexError:
        raise InvalidInput("the policy test file is empty") from None
    except ValidationError as error:
        field, message = first_mistake(error, Suite)
        raise InvalidInput(message, field=field) from None


def parse_policies(text: str) -> list[CompiledPolicy]:
    """The CommandPolicies in a YAML text, compiled; objects of other kinds are passed over. Raises `InvalidInput`."""
    objects = [obj for obj in load_documents(text) if isinstance(obj, dict) and obj.get("kind") == "CommandPolicy"]
    return [compile_policy(CommandPolicy.parse(obj)) for obj in objects]


def run_cases(
    suite: Suite, policies: Sequence[CompiledPolicy], defaults: InstallationDefaults | None = None
) -> list[CaseResult]:
    """Decide every case as the operator would: one with `defaults`, or else with the suite's."""
    chosen = defaults or suite.installation
    return [run_case(case, policies, suite.operator_namespace, chosen) for case in suite.cases]


def run_case(
    case: Case,
    policies: Sequence[CompiledPolicy],
    operator_namespace: str,
    defaults: InstallationDefaults | None = None,
) -> CaseResult:
    """Decide one case under the policies of its namespace and the ceilings."""
    try:
        request = request_of(case.task, case.resolved, defaults=defaults)
    except InvalidInput as error:
        raise InvalidInput(str(error), field=f"{case.name or 'case'}: line") from None
    decision = decide_on(request, policies, operator_namespace)
    shown = canonical(request.command.argv) if request.operation == "command" and request.command else describe(request)
    return CaseResult(case.name or shown, shown, decision, tuple(_mismatches(case.expect, decision)))


def request_of(
    task: ExecutionTask,
    resolved: str | None = None,
    environment: Mapping[str, str | None] | None = None,
    defaults: InstallationDefaults | None = None,
) -> PolicyRequest:
    """The request of `task` to policy, on a host where programs are where they usually are, or at `resolved`.
    `environment` as `request_for` takes it. Raises `InvalidInput`."""
    installation = defaults.installation if defaults else Installation(remit_image=_REMIT_IMAGE)
    request, argv = request_for(task, None, environment or {}, installation), tuple(executed(task.spec))
    if not argv:
        return request
    found = resolved or _usual_path(argv[0]) if request.beside_the_operator else None
    return replace(request, command=Command(argv, found))


def decide_on(request: PolicyRequest, policies: Sequence[CompiledPolicy], operator_namespace: str) -> Decision:
    """Decide as the operator would, with the policies of `operator_namespace` as ceilings."""
    own = [policy for policy in policies if policy.namespace == request.namespace]
    ceilings = [policy for policy in policies if policy.namespace == operator_namespace != request.namespace]
    return decide(request, own, ceilings)


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
    return decision.objection([destination])


def _usual_path(program: str) -> str:
    return program if "/" in program else posixpath.join("/usr/bin", program)
