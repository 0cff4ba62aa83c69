"""Decides whether a task may run under the policies, and returns the attempt or the reason for the refusal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeVar

from pydantic.alias_generators import to_camel

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import PolicyStatus
from remit.api.operations import ScriptOperation
from remit.api.phases import Phase
from remit.api.quantity import parse_bytes
from remit.api.volumes import Artifact
from remit.backends.base import JOB_ARTIFACT_BYTES, AttemptRequest, TaskReference
from remit.backends.base import Command as Process
from remit.errors import InvalidInput
from remit.execution.artifacts.collecting import WantedArtifact, WantedResult
from remit.execution.filejobs import file_job, unfit
from remit.execution.jobmounts import stdin_volume_of
from remit.execution.lifecycle import Finish
from remit.execution.mounts import empty_bytes, mounts_of, stdin_file_of
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.operations.base import OperationRequest
from remit.operations.command import SEARCH_PATH, look_up
from remit.policy.compile import CompiledPolicy
from remit.policy.deciding import Decision, decide
from remit.policy.egress import Egress
from remit.policy.grant import Grant
from remit.policy.limits import Limits
from remit.policy.match import Command
from remit.policy.rate import RateClaim
from remit.policy.request import (
    BY_BACKENDS,
    OPERATOR,
    SCRIPT_PATH,
    WITH_IMAGES,
    Installation,
    PolicyRequest,
    ReleasePlace,
    executed,
    request_for,
)
from remit.policy.verdict import Denial, Reason
from remit.policy.volumes import artifact_bytes, path_inside, workspace_claims
from remit.sandbox import Confinement, Host, Layer, MemoryBudget, explain_absence
from remit.sandbox import Limits as SandboxLimits
from remit.telemetry.redact import Redactor

_PACED_BY_THE_SANDBOX = ("disk_bytes_per_second", "network_bytes_per_second")
"""Limits that a task must not seem to have where no sandbox is."""

_NOT_HERE = {
    "container": "this operator has no Docker engine (--docker-host); use a command, which runs as a Job on a cluster",
    "file": (
        "file would work on the disk of the operator's own pod, where it runs nothing of yours; leave spec.backend out,"
        " and start the operator with --remit-image, so that it is a Job with a volume"
    ),
    "process": "this operator starts no processes beside itself; use a Deployment of remit.dev, or a command",
}
"""What to do where an operator does not perform an operation that others do."""
_NOWHERE_ELSE = ReleasePlace()
_UNREAD: Mapping[str, str] = MappingProxyType({})
_PROCESS_BY_DEFAULT = Installation()
JOB_DEFAULTS = Limits(memory=1024**3, disk=256 * 1024**2)
"""What a Job has fields for, of all that limits an attempt."""
_TASKS_THAT_FIT = 4

MAX_OUTPUT_BYTES = 256 * 1024 * 1024
"""A task must not be able to fill the operator's disk: without room for the audit trail nothing would run any more."""

BASE_ENVIRONMENT: Mapping[str, str] = {
    "PATH": ":".join(SEARCH_PATH),
    "HOME": "/workspace",
    "TMPDIR": "/tmp",  # noqa: S108 (the sandbox's own)
    "LANG": "C.UTF-8",
}
"""What every run finds in its environment. Nothing of the operator's own is passed on."""


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All policies, compiled, by namespace; and the namespace whose policies are the ceiling of all others."""

    by_namespace: Mapping[str, Sequence[CompiledPolicy]]
    ceiling_namespace: str

    def ceilings_for(self, namespace: str) -> Sequence[CompiledPolicy]:
        return () if namespace == self.ceiling_namespace else self.by_namespace.get(self.ceiling_namespace, ())

    def charged(self, task: ExecutionTask) -> tuple[RateClaim, ...]:
        """The limits that the task's last start counted for: rates of the policy named in status and of ceilings,
        workspaces."""
        namespace, decided = task.metadata.namespace, task.status.policy
        own = f"{namespace}/{decided.name}" if decided is not None else ""
        chosen = [policy for policy in self.by_namespace.get(namespace, ()) if policy.key == own]
        ceilings = [
            policy for policy in self.ceilings_for(namespace) if policy.selects(namespace, task.metadata.labels)
        ]
        binding = [policy for policy in (*chosen, *ceilings) if policy.enforced]
        rates = tuple(RateClaim(policy.key, policy.rate) for policy in binding if policy.rate)
        return (*rates, *workspace_claims(request_for(task, None)))


@dataclass(frozen=True, slots=True)
class Admitted:
    """It may run, under these terms."""

    command: Command | None
    status: PolicyStatus
    grant: Grant
    limits: Limits
    layers: frozenset[Layer]
    rates: tuple[RateClaim, ...]
    memory: int = 0
    """What it takes of the memory that tasks may use together, in bytes."""
    egress: tuple[Egress, ...] = ()
    policies: tuple[CompiledPolicy, ...] = ()
    """The policy that allowed it and the ceilings, whose terms its volumes are under."""
    audited: tuple[Denial, ...] = ()
    """What policies in Audit enforcement would have denied."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The task may not run. `by_policy` distinguishes a denial from a task that cannot run at all."""

    finish: Finish
    status: PolicyStatus | None = None
    command: Command | None = None
    request: PolicyRequest | None = None
    """The request that the policies decided on. None if it must not be reported."""
    audited: tuple[Denial, ...] = ()
    """Denials by policies that only audit, as in `Admitted`."""
    by_policy: bool = False
    withheld: bool = False
    """Whether the request must not be reported."""


_V = TypeVar("_V", Admitted, Refused)


def redacted(verdict: _V, redactor: Redactor) -> _V:
    """The verdict as it may be told: a denial quotes arguments, and they may hold a secret."""
    audited = tuple(replace(each, message=redactor.redact_cut(each.message), needs=None) for each in verdict.audited)
    status = verdict.status and verdict.status.model_copy(update={"audited": [each.message for each in audited]})
    if isinstance(verdict, Refused):
        finish = replace(verdict.finish, message=redactor.redact_cut(verdict.finish.message))
        return replace(verdict, finish=finish, status=status, audited=audited)
    return replace(verdict, status=status, audited=audited)


def withheld(refused: Refused, why: str) -> Refused:
    """The refusal without a word of what was asked, which may hold a secret that cannot be redacted."""
    status = refused.status.model_copy(update={"audited": []}) if refused.status is not None else None
    message = f"{refused.finish.reason}; what was asked is not told, because {why}"
    finish = replace(refused.finish, message=message)
    audited = tuple(replace(each, message="", needs=None) for each in refused.audited)
    return replace(refused, finish=finish, status=status, command=None, request=None, audited=audited, withheld=True)


@dataclass(frozen=True, slots=True)
class Admission:
    """Puts policy, operation and limits together. Reads the disk only to look programs up."""

    search_path: Sequence[str] = SEARCH_PATH
    read_only_paths: Sequence[str] = ()
    """The folders that sandboxes see besides the system's."""
    defaults: Limits = field(default_factory=Limits)
    """Limits that apply where neither the task nor a policy sets one."""
    performed: frozenset[str] = frozenset()
    """The operations that this operator performs itself, besides those that a backend runs."""
    backends: frozenset[str] = frozenset({"process"})
    """The backends on which this operator runs commands and scripts."""
    max_output_bytes: int = MAX_OUTPUT_BYTES
    """The maximum that is kept of each stream of a run, in bytes. Neither the task nor policies can raise it."""
    memory: MemoryBudget = field(default_factory=MemoryBudget)
    """The memory for attempts that run beside the operator."""
    host_paths: bool = True
    """Whether it is known which host they would be of."""
    installation: Installation = _PROCESS_BY_DEFAULT
    job_defaults: Limits = JOB_DEFAULTS
    """The `defaults` of Jobs."""

    def placed(self, task: ExecutionTask) -> ExecutionTask:
        """`task` with a status that tells where it runs."""
        backend, image = self.installation.placed(task)
        where = {"backend": backend, "image": image or ""}
        return task.model_copy(update={"status": task.status.model_copy(update=where)})

    def decide(
        self,
        task: ExecutionTask,
        policies: PolicySet,
        environment: Mapping[str, str] = _UNREAD,
        place: ReleasePlace = _NOWHERE_ELSE,
    ) -> Admitted | Refused:
        """Evaluated before every attempt, on the exact argv that will run; `environment` has the variables that `env`
        and `envFrom` come to, once they are read, and `place` is where a release would put it."""
        spec, namespace = task.spec, task.metadata.namespace
        if (missing := _not_offered(task, self)) is not None:
            return Refused(Finish(Phase.FAILED, "NotSupported", "Invalid", missing))
        try:
            argv = executed(spec)
        except InvalidInput as error:
            return Refused(Finish(Phase.FAILED, "Invalid", "Invalid", f"spec.{spec.operation}: {error}"))
        command = self._command(task, argv) if argv else None
        request = replace(request_for(task, command, environment, self.installation), place=place)
        own, ceilings = policies.by_namespace.get(namespace, ()), policies.ceilings_for(namespace)
        decision = decide(request, own, ceilings)
        if not decision.allowed:
            return _refused(decision, request, self.read_only_paths)
        limits = _filled(decision.limits, self.job_defaults if request.backend == "kubernetes" else self.defaults)
        beside_us = request.backend == "process"
        volumes = empty_bytes(request, limits.disk or 0)
        memory = self.memory.demand(limits.memory, limits.disk, volumes) if beside_us else 0
        if self.memory.total is not None and memory > self.memory.total:
            finish = Finish(Phase.FAILED, "InsufficientMemory", "Resources", _too_large(limits, volumes, self.memory))
            return Refused(finish, _status(decision), command, audited=decision.audited)
        return Admitted(
            command=command,
            status=_status(decision),
            grant=Grant(request, own, ceilings),
            limits=limits,
            layers=frozenset(Layer(name) for name in decision.layers),
            rates=(*decision.rates, *workspace_claims(request)),
            memory=memory,
            egress=decision.egress,
            policies=decision.binding,
            audited=decision.audited,
        )

    async def decided(
        self, task: ExecutionTask, policies: PolicySet, environment: Mapping[str, str] = _UNREAD
    ) -> Admitted | Refused:
        """The same for an event loop: in a thread where statements are to be parsed, which takes its time."""
        if task.spec.operation == "postgres":
            return await asyncio.to_thread(self.decide, task, policies, environment)
        return self.decide(task, policies, environment)

    def _command(self, task: ExecutionTask, argv: list[str]) -> Command:
        """Find the command's program, unless it is in an image, which cannot be looked into here."""
        elsewhere = self.installation.placed(task)[0] in WITH_IMAGES or task.spec.operation == "container"
        mounted = [mount.mount_path for mount in task.spec.volume_mounts]
        return Command(tuple(argv)) if elsewhere else look_up(argv, self.search_path, mounted)

    def attempt(
        self,
        task: ExecutionTask,
        admitted: Admitted,
        number: int,
        resolved: Resolved,
        seconds_left: float | None,
    ) -> Attempt:
        """The attempt itself. `seconds_left` is what the task's deadline leaves of its time-out."""
        spec, limits = task.spec, admitted.limits
        timeout = float(limits.timeout_seconds or 300)
        timeout = timeout if seconds_left is None else max(0.0, min(timeout, seconds_left))
        file = spec.file if admitted.grant.request.on_a_backend else None
        make = _file_job if file else _confined if spec.operation in BY_BACKENDS else _performed
        return Attempt(
            key=task.key,
            namespace=task.metadata.namespace,
            uid=task.metadata.uid,
            backend=admitted.grant.request.backend,
            operation=spec.operation,
            request=make(task, admitted, number, resolved, timeout),
            max_output_bytes=min(limits.output_bytes or 0, self.max_output_bytes),
            tail_bytes=spec.output.tail_bytes,
            raw_output=spec.output.raw,
            secrets=frozenset(resolved.secrets),
            secret_versions=resolved.secret_versions,
            task=task.metadata.name,
            file=file,
            artifacts=tuple(_wanted_artifact(each, spec.working_dir, admitted) for each in spec.artifacts),
            results=tuple(
                WantedResult(each.name, path_inside(each.path, spec.working_dir), each.optional)
                for each in spec.results
            ),
        )


def default_limits(host: Host) -> Limits:
    """The limits that apply where neither a task nor a policy gives any. Memory and processes only where a cgroup
    counts them: as rlimits they would count address space and all of a user's processes, and break programs that do
    nothing wrong. Where all tasks share a limit, four fit in with these."""
    counted = host.abilities[Layer.CGROUP].available
    share = 1024**3 if host.memory.total is None else host.memory.total // _TASKS_THAT_FIT
    return Limits(
        memory=min(1024**3, share) if counted else None,
        pids=512 if counted else None,
        disk=min(256 * 1024**2, share // max(1, host.memory.tmpfs)),
        open_files=1024,
    )


def _too_large(limits: Limits, volumes: int, budget: MemoryBudget) -> str:
    parts = [f"the {limits.memory} of spec.resources.memory"] if limits.memory else []
    if budget.tmpfs and limits.disk:
        parts.append(f"{budget.tmpfs} times the {limits.disk} of spec.resources.disk")
    if budget.tmpfs and volumes:
        parts.append(f"{volumes} of emptyDir volumes")
    return (
        f"needs {budget.demand(limits.memory, limits.disk, volumes)} bytes of memory ({' and '.join(parts)}), and this"
        f" operator has {budget.total} for all of its tasks; ask for less, or give the operator a higher memory limit"
    )


def _confined(
    task: ExecutionTask, admitted: Admitted, number: int, resolved: Resolved, timeout: float
) -> AttemptRequest:
    spec, metadata, limits, judged = task.spec, task.metadata, admitted.limits, admitted.grant.request
    command = judged.command
    if command is None:
        raise InvalidInput("has nothing to execute", field=f"spec.{spec.operation}")
    ours = {
        **_base_environment(judged.backend),
        "REMIT_TASK_NAME": metadata.name,
        "REMIT_TASK_NAMESPACE": metadata.namespace,
        "REMIT_ATTEMPT": str(number),
    }
    env = {**ours, **resolved.env, **{name: ours[name] for name in ours if name.startswith("REMIT_")}}
    written = {each.name for each in spec.env if each.value_from is None} | (ours.keys() - resolved.env.keys())
    public = {name for name in written if not any(secret in env[name] for secret in resolved.secrets)}
    return AttemptRequest(
        id=attempt_id(task, number),
        command=Process(
            argv=command.argv,
            executable=command.resolved or "",
            env=env,
            stdin=spec.stdin.encode() if resolved.stdin is None else resolved.stdin,
            public=frozenset(public & env.keys()),
        ),
        confinement=Confinement(
            limits=SandboxLimits(
                memory_bytes=limits.memory,
                cpu_cores=limits.cpu,
                pids=limits.pids,
                disk_bytes=limits.disk,
                file_bytes=limits.file_size,
                open_files=limits.open_files,
                disk_bytes_per_second=limits.disk_bytes_per_second,
                network_bytes_per_second=limits.network_bytes_per_second,
            ),
            network=judged.network,
            require=admitted.layers,
            working_dir=judged.working_dir,
            mounts=mounts_of(judged, admitted.policies, resolved.folders, resolved.artifacts),
            stdin_file=stdin_file_of(judged, admitted.policies, resolved.folders),
            stdin_volume=stdin_volume_of(judged, admitted.policies, resolved.folders, resolved.artifacts),
        ),
        timeout_seconds=timeout,
        grace_seconds=float(limits.termination_grace_period_seconds or 0),
        files={**resolved.files, **_script(judged)},
        egress=admitted.egress,
        image=judged.image or "",
        pod=judged.pod.model_dump(mode="json", by_alias=True, exclude_unset=True) if judged.pod else {},
        task=TaskReference(metadata.namespace, metadata.name, metadata.uid),
        secret_versions=resolved.secret_versions,
    )


def _file_job(
    task: ExecutionTask, admitted: Admitted, number: int, resolved: Resolved, timeout: float
) -> AttemptRequest:
    return file_job(task, admitted, attempt_id(task, number), resolved, timeout)


def _wanted_artifact(artifact: Artifact, working_dir: str, admitted: Admitted) -> WantedArtifact:
    most = artifact_bytes(admitted.policies, artifact)
    if admitted.grant.request.backend == "kubernetes":
        most = min(most, JOB_ARTIFACT_BYTES)
    return WantedArtifact(
        name=artifact.name,
        pattern=path_inside(artifact.path, working_dir),
        most_bytes=most,
        always=artifact.when == "Always",
        optional=artifact.optional,
        retain_seconds=artifact.retain_seconds or 0,
    )


def _script(judged: PolicyRequest) -> Mapping[str, bytes]:
    return {SCRIPT_PATH: judged.subject.source.encode()} if isinstance(judged.subject, ScriptOperation) else {}


def _base_environment(backend: str) -> Mapping[str, str]:
    """An image knows best where its programs are."""
    if backend not in WITH_IMAGES:
        return BASE_ENVIRONMENT
    return {name: value for name, value in BASE_ENVIRONMENT.items() if name != "PATH"}


def _performed(
    task: ExecutionTask, admitted: Admitted, number: int, resolved: Resolved, timeout: float
) -> OperationRequest:
    return OperationRequest(
        id=attempt_id(task, number),
        namespace=task.metadata.namespace,
        task=task.metadata.name,
        grant=admitted.grant,
        timeout_seconds=timeout,
        limits=admitted.limits,
        values=resolved.values,
        run=_confined(task, admitted, number, resolved, timeout) if admitted.command else None,
        secrets=frozenset(resolved.secrets),
    )


def attempt_id(task: ExecutionTask, number: int) -> str:
    """The id of an attempt in status, in the run store and on the audit trail."""
    return f"{task.metadata.uid}-{number}"


def _not_offered(task: ExecutionTask, here: Admission) -> str | None:
    spec, offered = task.spec, BY_BACKENDS | here.performed
    backend, image = here.installation.placed(task)
    if spec.file is not None and backend == "kubernetes":
        offered |= {"file"}
        if backend in here.backends and (why := unfit(spec, here.installation.remit_image)) is not None:
            return why
    if spec.operation not in offered and (hint := _NOT_HERE.get(spec.operation)) is not None:
        return f"spec.{spec.operation}: {hint}"
    if spec.operation not in offered:
        return f"this version of Remit does not perform {spec.operation}; it performs {', '.join(sorted(offered))}"
    if spec.file is not None and backend == OPERATOR and spec.volumes:
        return (
            "spec.volumes: beside the operator a file operation has the paths of its host, and no volumes; leave them"
            " out, or set backend: kubernetes"
        )
    if backend not in here.backends | {OPERATOR}:
        return f"this operator has no backend {backend}; use {', '.join(sorted(here.backends))}"
    if backend in WITH_IMAGES and not image:
        return f"spec.image: the backend {backend} needs one, and this operator has no default image; set it"
    if backend not in WITH_IMAGES and spec.image:
        return f"spec.image goes with backends docker and kubernetes, and this runs on {backend}; set spec.backend"
    if backend != "kubernetes" and spec.pod:
        return f"spec.pod is for the backend kubernetes, and this runs on {backend}; leave it out, or set spec.backend"
    if backend == "kubernetes" and (large := next(filter(_too_large_for_a_job, spec.artifacts), None)):
        return (
            f"spec.artifacts[{large.name}].maxBytes: a Job keeps at most {JOB_ARTIFACT_BYTES >> 20}Mi in all its"
            " artifacts; ask for less, or write large files into a workspace"
        )
    here_alone = here.host_paths and backend != "kubernetes"
    if not here_alone and (volume := next((each for each in spec.volumes if each.host_path), None)):
        return (
            f"spec.volumes[{volume.name}].hostPath: on a cluster nobody knows which host that would be;"
            " use a workspace, an artifact or a ConfigMap"
        )
    if backend == OPERATOR:
        wanted = spec.resources
        unheld = [name for name in _PACED_BY_THE_SANDBOX if getattr(wanted, name) is not None]
        if unheld:
            fields = " and ".join(f"spec.resources.{to_camel(name)}" for name in unheld)
            return f"nothing holds {fields} for {spec.operation}, which Remit performs itself; leave it out"
    return None


def _too_large_for_a_job(artifact: Artifact) -> bool:
    return artifact.max_bytes is not None and parse_bytes(artifact.max_bytes) > JOB_ARTIFACT_BYTES


def _status(decision: Decision) -> PolicyStatus:
    return PolicyStatus(
        name=decision.policy,
        rule=decision.rule,
        decision="Allowed" if decision.allowed else "Denied",
        audited=[denial.message for denial in decision.audited],
    )


def _refused(decision: Decision, request: PolicyRequest, read_only_paths: Sequence[str]) -> Refused:
    command = request.command
    if decision.reason is Reason.EXECUTABLE_NOT_FOUND:
        hint = explain_absence(command.program, read_only_paths) if command else ""
        message = f"{decision.message}; {hint}" if hint else decision.message
        finish = Finish(Phase.FAILED, str(decision.reason), "Invalid", message)
    else:
        finish = Finish(Phase.DENIED, str(decision.reason), "Denied", decision.message)
    by_policy = finish.phase is Phase.DENIED
    return Refused(finish, _status(decision), command, request, decision.audited, by_policy)


def _filled(limits: Limits, defaults: Limits) -> Limits:
    unset = {name: getattr(defaults, name) for name in Limits.__dataclass_fields__ if getattr(limits, name) is None}
    return replace(limits, **unset)
