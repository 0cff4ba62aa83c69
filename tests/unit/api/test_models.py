from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.api.quantity import format_bytes, parse_bytes, parse_quantity
from remit.errors import InvalidInput


def task(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "t"}, "spec": spec or {"command": {"line": "echo"}}}


def test_a_task_fills_in_what_the_crd_fills_in() -> None:
    spec = ExecutionTask.parse(task()).spec
    assert (spec.operation, spec.backend, spec.retry.backoff.factor, spec.cancel) == ("command", None, 2, False)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"command": {"line": "x"}, "comand": {}}, "spec.comand: is not a known field; did you mean command?"),
        ({"command": {"line": "x"}, "env": [{"nmae": "X"}]}, "spec.env[0].name: is required"),
        ({"command": {"line": "x"}, "retry": {"maxRetrys": 1}}, "spec.retry.maxRetrys: is not a known field; did you"),
        (
            {"command": {"line": "x"}, "env": [{"name": "X", "valu": 1}]},
            "env[0].valu: is not a known field; did you mean",
        ),
        ({"command": {"line": "x"}, "backend": "dokcer"}, "spec.backend: must be 'process', 'docker' or 'kubernetes'"),
        ({"backend": "process"}, "spec: set exactly one of command, script, file, process, http, redis, postgres or"),
        ({"command": {"argv": ["x"], "line": "x"}}, "argv and line given"),
        ({"command": {"argv": []}}, "spec.command.argv: must have at least 1 item"),
        ({"command": {"line": "x"}, "resources": {"memory": "lots"}}, "is not a quantity; write it as 500m, 0.5"),
        ({"command": {"line": "x"}, "resources": {"memory": True}}, "must be a quantity"),
        ({"command": {"line": "x"}, "env": [{"name": "1X"}]}, "spec.env[0].name: must match pattern"),
    ],
)
def test_a_wrong_task_is_reported_where_it_is_wrong(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ExecutionTask.parse(task(**spec))
    assert message in str(caught.value)


def test_a_status_of_a_newer_version_can_be_read() -> None:
    parsed = ExecutionTask.parse(task() | {"status": {"phase": "Running", "invented": 1}})
    assert parsed.status.phase == "Running"


def test_a_policy_may_be_empty() -> None:
    policy = CommandPolicy.parse({"metadata": {"name": "p", "namespace": "n"}})
    assert policy.spec.commands.allow == []
    assert policy.key == "n/p"


def release(**spec: Any) -> dict[str, Any]:
    wanted = {"artifact": {"image": "shop:v2"}, "target": {"docker": {}}} | spec
    return {"metadata": {"name": "shop"}, "spec": wanted}


def test_a_release_needs_little() -> None:
    spec = Deployment.parse(release()).spec
    assert (spec.strategy.type, spec.stages.bake_seconds, spec.rollback.automatic) == ("BlueGreen", 30, True)
    assert spec.target.docker is not None
    assert spec.target.docker.host == "unix:///var/run/docker.sock"


def test_a_hook_is_a_task_without_a_schedule() -> None:
    hook = {"name": "smoke", "task": {"command": {"line": "true"}}}
    spec = Deployment.parse(release(stages={"prePromotion": [hook]})).spec
    assert spec.stages.pre_promotion[0].task.operation == "command"
    scheduled = {**hook, "task": hook["task"] | {"schedule": {"cron": "* * * * *"}}}  # type: ignore[operator]
    with pytest.raises(InvalidInput, match="schedule: is not a known field"):
        Deployment.parse(release(stages={"prePromotion": [scheduled]}))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"target": {"docker": {}, "kubernetes": {}}}, "docker and kubernetes given"),
        ({"artifact": {}}, "set exactly one of image, path or archive; none given"),
        ({"healthCheck": {"tcp": {"port": 1}, "http": {"port": 1}}}, "set exactly one of http, tcp or command"),
        ({"strategy": {"type": "Purple"}}, "spec.strategy.type"),
        ({"target": {"docker": {"host": "http://engine"}}}, "spec.target.docker.host"),
    ],
)
def test_a_wrong_release_is_reported_where_it_is_wrong(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Deployment.parse(release(**spec))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("500m", "0.5"), ("1.5", "1.5"), (2, "2"), ("2k", "2000"), ("1Gi", str(2**30)), ("0", "0")]
)
def test_quantities_are_kubernetes_own(text: str | int, value: str) -> None:
    assert str(parse_quantity(text).normalize()) == str(parse_quantity(value).normalize())


@pytest.mark.parametrize("text", ["", "-1", "1e3", "1 Gi", "Gi", "1KiB", "٣", "1\n", "1.", ".5"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a quantity"):
        parse_quantity(text)


@given(st.integers(min_value=0, max_value=2**60))
def test_bytes_survive_being_written(count: int) -> None:
    assert parse_bytes(format_bytes(count)) == count


def test_a_part_of_a_byte_counts_as_one() -> None:
    assert parse_bytes("1500m") == 2
