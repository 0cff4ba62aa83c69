"""What policy says to a Deployment: an instance is a command like any other, and its artifact a file that is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from remit.api import Deployment, ExecutionTask
from remit.backends import AttemptRequest
from remit.errors import DeploymentError
from remit.execution.admission import Admission, Admitted, PolicySet, Refused
from remit.execution.resolved import Resolved
from remit.reconcilers.places import task_of
from remit.release import Material, Problem, Revision


@dataclass(frozen=True, slots=True)
class Judge:
    """Asks the policies of this moment."""

    admission: Admission
    policies: Callable[[], PolicySet]

    def problem(self, deployment: Deployment, material: Material) -> Problem | None:
        """What it lacks to be released; None if nothing. A policy that comes later lets it go on."""
        for task in (self._reading(deployment), self._running(deployment, material)):
            verdict = self.admission.decide(task, self.policies(), material.env)
            if isinstance(verdict, Refused):
                return Problem(verdict.finish.reason, verdict.finish.message)
        return None

    def instance(self, deployment: Deployment, revision: Revision, material: Material) -> AttemptRequest:
        """How an instance of the revision is to run. Raises DeploymentError where it may not."""
        as_it_was = deployment.model_copy(update={"spec": revision.snapshot.spec})
        task = self._running(as_it_was, material)
        verdict = self.admission.decide(task, self.policies(), material.env)
        if not isinstance(verdict, Admitted):
            raise DeploymentError(verdict.finish.message, reason=verdict.finish.reason, retryable=True)
        resolved = Resolved(dict(material.env), dict(material.files), secrets=set(material.secrets))
        request = self.admission.attempt(task, verdict, revision.number, resolved, None).request
        assert isinstance(request, AttemptRequest)  # noqa: S101  # of a command
        return request

    def _running(self, deployment: Deployment, material: Material) -> ExecutionTask:
        return ExecutionTask.parse(dict(task_of(deployment, material)))

    def _reading(self, deployment: Deployment) -> ExecutionTask:
        artifact = deployment.spec.artifact
        file = {"operation": "read", "path": artifact.path or artifact.archive}
        metadata = deployment.metadata.model_dump(mode="json", by_alias=True, exclude_none=True)
        return ExecutionTask.parse({"metadata": metadata, "spec": {"file": file, "network": "host"}})
