"""Judges a Deployment by policy: each instance is held like a task that does the same.

A process is a command, and its artifact a file that is read; a container or a pod is a container that is run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from remit.api.deployment import Deployment, DeploymentSpec, DockerTarget
from remit.api.executiontask import ExecutionTask
from remit.backends.base import AttemptRequest
from remit.errors import DeploymentError, InvalidInput
from remit.execution.admission import Admission, Admitted, PolicySet, Refused
from remit.execution.resolved import Resolved
from remit.policy.grant import Grant
from remit.policy.limits import Limits
from remit.policy.request import PolicyRequest, ReleasePlace
from remit.policy.testing import request_of
from remit.policy.verdict import Reason
from remit.release.model import Revision, SpecProblem
from remit.release.target import Material
from remit.telemetry.redact import Redactor

_Making = Callable[[Deployment, Material], ExecutionTask]


def requests(deployment: Deployment, material: Material, engine: str = DockerTarget().host) -> list[PolicyRequest]:
    """All that policy is asked for a release, with programs where they usually are; `engine` is the operator's own.
    Raises `InvalidInput`."""
    place = _place(deployment, engine)
    return [replace(request_of(task, None, material.env), place=place) for task in _tasks(deployment, material)]


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks the policies of this moment."""

    admission: Admission
    policies: Callable[[], PolicySet]
    engine: str = DockerTarget().host
    """The operator's own, where releases need no leave of their own; `off` where it has none."""

    def problem(self, deployment: Deployment, material: Material) -> SpecProblem | None:
        """Describe what the Deployment lacks to be released; None if nothing. A policy that comes later lets it go
        on."""
        try:
            tasks = _tasks(deployment, material)
        except InvalidInput as error:
            return SpecProblem("InvalidSpec", _as_written(error, material), retryable=False)
        for task in tasks:
            verdict = self._decide(task, deployment, material)
            if isinstance(verdict, Refused):
                # Names the field that the user wrote.
                message = verdict.finish.message.replace("spec.http.url", "spec.artifact.archive")
                reason = verdict.finish.reason
                redacted = Redactor(material.secrets).redact(message)
                return SpecProblem(reason, redacted, retryable=reason != Reason.INVALID_REQUEST)
        return None

    def command(self, deployment: Deployment, revision: Revision, material: Material) -> AttemptRequest:
        """How a process of the revision is to run. Raises DeploymentError where it may not."""
        return self._running(_instance, deployment, revision, material)

    def check(
        self, deployment: Deployment, revision: Revision, material: Material, argv: Sequence[str]
    ) -> AttemptRequest:
        """How a command that checks a process is to run. Raises DeploymentError where it may not."""
        return self._running(_checking(argv), deployment, revision, material)

    def reading(self, deployment: Deployment, revision: Revision, material: Material) -> Grant:
        """Leave to get the artifact from where it is. Raises DeploymentError where there is none."""
        return self._admitted(_reading, deployment, revision, material)[1].grant

    def limits(self, deployment: Deployment, revision: Revision, material: Material) -> Limits:
        """The limits of a container of the revision. Raises DeploymentError where it, or what checks it, may not
        run."""
        for check in _checks(revision.snapshot.spec):
            self._admitted(check, deployment, revision, material)
        return self._admitted(_instance, deployment, revision, material)[1].limits

    def _running(self, make: _Making, deployment: Deployment, revision: Revision, material: Material) -> AttemptRequest:
        task, verdict = self._admitted(make, deployment, revision, material)
        resolved = Resolved(dict(material.env), dict(material.files), secrets=set(material.secrets))
        request = self.admission.attempt(task, verdict, revision.number, resolved, None).request
        assert isinstance(request, AttemptRequest)  # noqa: S101  # of a command
        return request

    def _admitted(
        self, make: _Making, deployment: Deployment, revision: Revision, material: Material
    ) -> tuple[ExecutionTask, Admitted]:
        as_it_was = deployment.model_copy(update={"spec": revision.snapshot.spec})
        try:
            task = make(as_it_was, material)
        except InvalidInput as error:
            raise DeploymentError(_as_written(error, material), reason="InvalidSpec") from None
        verdict = self._decide(task, as_it_was, material)
        if not isinstance(verdict, Admitted):
            message = Redactor(material.secrets).redact_cut(verdict.finish.message)
            raise DeploymentError(message, reason=verdict.finish.reason, retryable=True)
        return task, verdict

    def _decide(self, task: ExecutionTask, deployment: Deployment, material: Material) -> Admitted | Refused:
        admission = self.admission
        if deployment.spec.target.process is None:
            # A target may support containers where tasks do not, and has its own capacity, so the host's limits do not
            # apply.
            admission = replace(admission, performed=admission.performed | {"container"}, defaults=Limits())
        return admission.decide(task, self.policies(), material.env, _place(deployment, self.engine))


def _place(deployment: Deployment, engine: str) -> ReleasePlace:
    target = deployment.spec.target
    if target.docker is not None and target.docker.host != engine:
        return ReleasePlace(engine=target.docker.host)
    if target.kubernetes is None:
        return ReleasePlace()
    namespace = target.kubernetes.namespace or ""
    return ReleasePlace(
        namespace="" if namespace == deployment.metadata.namespace else namespace,
        service_account=target.kubernetes.service_account_name or "",
    )


def _as_written(error: InvalidInput, material: Material) -> str:
    """Describe what is wrong in the words of a Deployment."""
    place, _, rest = error.field.removeprefix("spec.privateFiles[").partition("]")
    if error.field.startswith("spec.privateFiles[") and rest == ".path":
        path = sorted(material.files)[int(place)]
        return (
            f"spec.config and spec.secrets: {path} cannot be there; on processes, a mountPath is a folder below /run,"
            " /workspace or /tmp, and each key the plain name of a file"
        )
    return str(error)


def _tasks(deployment: Deployment, material: Material) -> list[ExecutionTask]:
    """All that the release would do on the operator's host, or on its engine."""
    spec = deployment.spec
    reading = [] if spec.target.process is None else [_reading]
    return [make(deployment, material) for make in (*reading, _instance, *_checks(spec))]


def _checks(spec: DeploymentSpec) -> list[_Making]:
    """Make the tasks of the commands that check an instance."""
    checks = [check.command for check in (spec.health_check, spec.liveness_check) if check is not None]
    return [_checking(command.argv) for command in checks if command is not None]


def _instance(deployment: Deployment, material: Material) -> ExecutionTask:
    """The task that an instance is like: what policy is asked about, and how a process is confined."""
    spec = deployment.spec
    if spec.target.process is not None:
        return _process(deployment, material, spec.target.process.command)
    chosen = spec.target.docker or spec.target.kubernetes
    return _container(deployment, chosen.command if chosen is not None else None)


def _checking(argv: Sequence[str]) -> _Making:
    def make(deployment: Deployment, material: Material) -> ExecutionTask:
        inside = deployment.spec.target.process is None
        return _container(deployment, argv) if inside else _process(deployment, material, argv)

    return make


def _container(deployment: Deployment, argv: Sequence[str] | None) -> ExecutionTask:
    command = {"argv": list(argv)} if argv else {}
    return _task(deployment, container={"action": "run", "image": deployment.spec.artifact.image, **command})


def _process(deployment: Deployment, material: Material, argv: Sequence[str]) -> ExecutionTask:
    """Beside the operator, wherever it runs what does not say."""
    files = [{"path": path, "value": ""} for path in sorted(material.files)]
    return _task(deployment, command={"argv": list(argv)}, backend="process", network="host", privateFiles=files)


def _reading(deployment: Deployment, material: Material) -> ExecutionTask:
    artifact = deployment.spec.artifact
    if artifact.address is not None:
        return _task(deployment, http={"url": artifact.address})
    return _task(deployment, file={"operation": "read", "path": artifact.path or artifact.archive}, network="host")


def _task(deployment: Deployment, **spec: Any) -> ExecutionTask:
    metadata = deployment.metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
    resources = deployment.spec.resources.model_dump(mode="json", by_alias=True, exclude_none=True)
    if (grace := deployment.spec.termination_grace_period_seconds) is not None:
        spec["terminationGracePeriodSeconds"] = grace
    return ExecutionTask.parse({"metadata": metadata, "spec": {"resources": resources, **spec}})
