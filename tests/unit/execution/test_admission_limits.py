"""Tests that every limit of a policy reaches the part that enforces it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.commandpolicy import PolicyLimits as Limited
from remit.api.executiontask import ExecutionTask, Resources
from remit.backends.base import AttemptRequest
from remit.execution.admission import Admission, Admitted, PolicySet, Refused, default_limits
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.policy.compile import compile_policy
from remit.policy.limits import Limits as PolicyLimits
from remit.sandbox import Ability, Host, Layer, Limits, MemoryBudget

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
"""By the name in a policy: the sandbox's field, an example as it is written, and as a number."""
HELD_OUTSIDE = {"timeoutSeconds", "deadlineSeconds", "retries", "outputBytes", "terminationGracePeriodSeconds"}
"""Limits of a policy that the operator enforces and not the sandbox."""
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


def test_every_limit_that_users_can_write_reaches_what_holds_it() -> None:
    assert {str(field.alias) for field in Resources.model_fields.values()} == HELD.keys()
    assert {str(field.alias) for field in Limited.model_fields.values()} == HELD.keys() | HELD_OUTSIDE


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


def with_memory(budget: MemoryBudget, limits: dict[str, Any], spec: dict[str, Any]) -> Admitted | Refused:
    admission = Admission(
        defaults=PolicyLimits(disk=10 << 20),
        performed=frozenset({"http"}),
        backends=frozenset({"process", "docker"}),
        memory=budget,
    )
    allow = {
        "commands": {"allow": [{"executable": "true"}]},
        "http": {"allow": [{"hosts": ["example.com"]}]},
        "backends": ["process", "docker"],
        "images": {"allow": ["i"]},
        "limits": limits,
    }
    policy = CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": allow})
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns", "uid": "u"}, "spec": spec})
    return admission.decide(task, PolicySet({"ns": [compile_policy(policy)]}, "remit-system"))


@pytest.mark.parametrize(
    ("budget", "memory"), [(MemoryBudget(100 << 20, 3), 94 << 20), (MemoryBudget(64 << 20, 0), 64 << 20)]
)
def test_what_a_run_takes_of_the_memory_of_all(budget: MemoryBudget, memory: int) -> None:
    limits = {"memory": {"default": "64Mi"}}
    verdict = with_memory(budget, limits, {"command": {"argv": ["true"]}})
    assert isinstance(verdict, Admitted)
    assert verdict.memory == memory
    for spec in (HTTP, {"command": {"argv": ["true"]}, "backend": "docker", "image": "i"}):
        elsewhere = with_memory(budget, limits, spec)
        assert isinstance(elsewhere, Admitted), elsewhere
        assert elsewhere.memory == 0


def test_a_run_that_can_never_fit_is_refused_with_the_numbers() -> None:
    verdict = with_memory(MemoryBudget(90 << 20, 3), {"memory": {"default": "64Mi"}}, {"command": {"argv": ["true"]}})
    assert isinstance(verdict, Refused)
    assert (verdict.finish.reason, verdict.finish.category) == ("InsufficientMemory", "Resources")
    for told in (f"needs {94 << 20} bytes", f"the {64 << 20} of", f"3 times the {10 << 20} of", f"has {90 << 20} for"):
        assert told in verdict.finish.message
    assert not verdict.by_policy


@pytest.mark.parametrize("tmpfs", [0, 3])
@pytest.mark.parametrize("total", [None, 768 << 20, 64 << 20])
def test_four_tasks_that_ask_for_nothing_fit_in_at_once(total: int | None, tmpfs: int) -> None:
    host = replace(probe_like(counted=not tmpfs), memory=MemoryBudget(total, tmpfs))
    defaults = default_limits(host)
    assert defaults.disk
    if total is None:
        assert (defaults.memory, defaults.disk) == (None if tmpfs else 1 << 30, 256 << 20)
    else:
        assert 0 < host.memory.demand(defaults.memory, defaults.disk) <= total // 4


def probe_like(*, counted: bool) -> Host:
    return Host({layer: Ability(layer, counted, "") for layer in Layer}, None, None, "x86_64")
