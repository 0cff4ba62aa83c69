"""Every limit of a policy reaches what holds it."""

from __future__ import annotations

from typing import Any

import pytest

from remit.api import CommandPolicy, ExecutionTask
from remit.backends import AttemptRequest
from remit.execution.admission import Admission, Admitted, PolicySet, Refused
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.policy import compile_policy
from remit.sandbox import Limits

HELD = {
    "memory": ("memory_bytes", "64Mi", 64 << 20),
    "cpu": ("cpu_cores", "250m", 0.25),
    "pids": ("pids", 9, 9),
    "disk": ("disk_bytes", "32Mi", 32 << 20),
    "fileSize": ("file_bytes", "8Mi", 8 << 20),
    "openFiles": ("open_files", 77, 77),
    "diskBytesPerSecond": ("disk_bytes_per_second", "1Mi", 1 << 20),
    "networkBytesPerSecond": ("network_bytes_per_second", "2Mi", 2 << 20),
}
"""By its name in a policy: the sandbox's field, an amount as it is written, and as a number."""
HTTP = {"http": {"url": "https://example.com/"}}


def decided(limits: dict[str, Any], spec: dict[str, Any]) -> tuple[ExecutionTask, Admitted | Refused]:
    allow = {
        "commands": {"allow": [{"executable": "true"}]},
        "http": {"allow": [{"hosts": ["example.com"]}]},
        "limits": limits,
    }
    policy = CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": allow})
    body = {"metadata": {"name": "t", "namespace": "ns", "uid": "u"}, "spec": spec}
    task = ExecutionTask.parse(body)
    admission = Admission(performed=frozenset({"http"}))
    return task, admission.decide(task, PolicySet({"ns": [compile_policy(policy)]}, "remit-system"))


def attempted(limits: dict[str, Any], **spec: Any) -> Attempt:
    task, verdict = decided(limits, {"command": {"argv": ["true"]}, **spec})
    assert isinstance(verdict, Admitted), verdict
    return Admission().attempt(task, verdict, 1, Resolved(), None)


def confined(limits: dict[str, Any], **spec: Any) -> Limits:
    request = attempted(limits, **spec).request
    assert isinstance(request, AttemptRequest)
    return request.confinement.limits


def test_the_sandbox_has_no_limit_that_no_policy_sets() -> None:
    assert {field for field, _, _ in HELD.values()} == set(Limits.__dataclass_fields__)


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("bound", ["default", "max"])
def test_what_a_policy_says_holds_a_task_that_says_nothing(name: str, bound: str) -> None:
    field, written, amount = HELD[name]
    assert confined({name: {bound: written}}) == Limits(**{field: amount})


@pytest.mark.parametrize("name", HELD)
def test_a_task_gets_what_it_asks_for(name: str) -> None:
    field, written, amount = HELD[name]
    assert confined({}, resources={name: written}) == Limits(**{field: amount})


def test_time_and_output_are_held_outside_the_sandbox() -> None:
    attempt = attempted({"timeoutSeconds": {"max": 7}, "outputBytes": {"max": 4096}})
    assert (attempt.request.timeout_seconds, attempt.max_output_bytes) == (7.0, 4096)


@pytest.mark.parametrize("name", ["diskBytesPerSecond", "networkBytesPerSecond"])
def test_a_bandwidth_that_no_sandbox_holds_is_refused(name: str) -> None:
    _, verdict = decided({}, {**HTTP, "resources": {name: "1Mi"}})
    assert isinstance(verdict, Refused)
    assert verdict.finish.reason == "NotSupported"
    assert f"nothing holds spec.resources.{name} for http" in verdict.finish.message
    assert isinstance(decided({}, HTTP)[1], Admitted)
