"""Tests that exactly what the policy checked is executed: the executor receives no part of a task that was not
checked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from randomtasks import operations, surroundings
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.backends.base import AttemptRequest
from remit.execution import admission
from remit.execution.admission import Admission, Admitted, PolicySet
from remit.execution.resolved import Resolved
from remit.operations.base import OperationRequest
from remit.policy.compile import compile_policy
from remit.policy.deciding import decide
from remit.policy.request import SCRIPT_PATH, PolicyRequest
from support import repetitions

pytestmark = pytest.mark.no_cover

ANYTHING = {
    "commands": {"allow": [{"pattern": ".*"}]},
    "scripts": {"interpreters": ["sh"], "patterns": ["(?s).*"]},
    "backends": ["process", "docker", "kubernetes"],
    "networks": ["none", "restricted", "host"],
    "environment": {"allow": ["*"]},
    "images": {"allow": ["*"]},
    "files": {"allow": [{"paths": ["/**"], "operations": ["read", "write", "copy"]}]},
    "processes": {"operations": ["start", "status"]},
    "http": {"allow": [{"hosts": ["*"], "methods": ["GET", "POST"], "ports": [80, 443]}]},
    "databases": {
        "postgres": {"secrets": ["db"], "statements": ["select", "insert"], "functions": ["*"]},
        "redis": {"secrets": ["db"], "commands": ["GET", "SET"]},
    },
    "containers": {
        "operations": ["run", "exec", "logs"],
        "options": ["network", "user"],
        "mounts": ["/**"],
        "workingDirs": ["/**"],
    },
}
OPERATIONS = frozenset({"file", "process", "http", "redis", "postgres", "container"})
POLICY = compile_policy(CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": ANYTHING}))


@settings(max_examples=repetitions(40, soak=2000), deadline=None)
@given(operation=operations, around=surroundings, folder=st.sampled_from(["/workspace", "/workspace/a"]))
def test_the_executor_is_given_what_was_judged(operation: dict[str, Any], around: dict[str, Any], folder: str) -> None:
    judged: list[PolicyRequest] = []

    def recording(request: PolicyRequest, *rest: Any) -> Any:
        judged.append(request)
        return decide(request, *rest)

    starts = not operation.keys().isdisjoint({"command", "script", "process"})
    spec = {**operation, **around, **({"workingDir": folder} if starts else {})}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns", "uid": "u"}, "spec": spec})
    environment = {each["name"]: each["value"] for each in around.get("env", ())}
    admit = Admission(performed=OPERATIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "decide", recording)
        verdict = admit.decide(task, PolicySet({"ns": [POLICY]}, "remit-system"), environment)
    assert isinstance(verdict, Admitted), verdict
    request = admit.attempt(task, verdict, 1, Resolved(env=dict(environment)), None).request
    (asked,) = judged
    if isinstance(request, OperationRequest):
        assert request.subject is asked.subject is verdict.grant.request.subject
        assert request.grant.request is asked
    run = request if isinstance(request, AttemptRequest) else request.run
    assert (run is None) == (asked.command is None)
    if run is None or asked.command is None:
        return
    assert run.command.argv == asked.command.argv
    assert run.command.executable == (asked.command.resolved or "")
    assert (run.confinement.working_dir, run.confinement.network, run.image) == (asked.working_dir, asked.network, "")
    own = {*admission.BASE_ENVIRONMENT, "REMIT_TASK_NAME", "REMIT_TASK_NAMESPACE", "REMIT_ATTEMPT"}
    assert run.command.env.keys() - own == {each["name"] for each in around.get("env", ())}
    assert asked.environment == run.command.env.keys() - own
    source = asked.subject.source if "script" in operation else None  # type: ignore[union-attr]
    assert run.files == ({SCRIPT_PATH: source.encode()} if source is not None else {})
