"""Tests the health scripts for Argo CD with Lua."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from lupa import LuaRuntime

from releases import Sim, live

SCRIPTS: dict[str, str] = yaml.safe_load((Path(__file__).parents[3] / "manifests/gitops/argocd-cm.yaml").read_text())[
    "data"
]
KINDS = ("ExecutionTask", "CommandPolicy", "Deployment")


def health(kind: str, obj: dict[str, Any]) -> tuple[str, str]:
    lua = LuaRuntime(unpack_returned_tuples=True)
    lua.globals()["obj"] = lua.table_from({"spec": {}, "metadata": {"generation": 2}} | obj, recursive=True)
    result = lua.execute(SCRIPTS[f"resource.customizations.health.remit.dev_{kind}"])
    return result["status"], result["message"]


def status(*conditions: tuple[str, str], **more: Any) -> dict[str, Any]:
    listed = [{"type": name, "status": state, "message": f"{name} message"} for name, state in conditions]
    return {"status": {"observedGeneration": 2, "conditions": listed, "message": "all said", **more}}


def test_there_is_a_script_for_each_kind() -> None:
    assert {name.rsplit("_", 1)[1] for name in SCRIPTS} == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("obj", "expected"),
    [
        ({}, "Progressing"),
        ({"status": {"observedGeneration": -1}}, "Progressing"),
        ({"status": {"observedGeneration": 1, "conditions": [{"type": "Stalled", "status": "True"}]}}, "Progressing"),
        ({**status(), "metadata": {"generation": 2, "deletionTimestamp": "2026-01-01T00:00:00Z"}}, "Progressing"),
        (status(("Reconciling", "True")), "Progressing"),
        (status(("Stalled", "True"), ("Reconciling", "False")), "Degraded"),
        (status(("Stalled", "False"), ("Reconciling", "False")), "Healthy"),
        (status(), "Healthy"),
    ],
)
def test_health_follows_the_conditions(kind: str, obj: dict[str, Any], expected: str) -> None:
    assert health(kind, obj)[0] == expected


def test_the_message_is_the_operators() -> None:
    assert health("ExecutionTask", status(("Stalled", "True"))) == ("Degraded", "Stalled message")
    assert health("ExecutionTask", status()) == ("Healthy", "all said")


def test_a_suspended_schedule_is_suspended() -> None:
    task = {"spec": {"schedule": {"suspend": True}}}
    assert health("ExecutionTask", task | status())[0] == "Suspended"
    assert health("ExecutionTask", {"spec": {"schedule": {"suspend": False}}} | status())[0] == "Healthy"


def test_a_policy_with_a_mistake_is_degraded() -> None:
    assert health("CommandPolicy", status(("Ready", "False"))) == ("Degraded", "Ready message")
    assert health("CommandPolicy", status(("Ready", "True"))) == ("Healthy", "Ready message")


def test_a_release_that_waits_is_suspended() -> None:
    assert (
        health(
            "Deployment",
            status(
                phase="AwaitingPromotion",
            ),
        )[0]
        == "Suspended"
    )
    assert health("Deployment", {"spec": {"paused": True}} | status())[0] == "Suspended"


def test_a_release_reads_as_what_it_is() -> None:
    """The statuses are those that the pipeline itself writes."""

    def told(sim: Sim) -> str:
        return health("Deployment", sim.object)[0]

    strategy = {"type": "BlueGreen", "blueGreen": {"autoPromote": False}}
    sim = live("v1", strategy=strategy)
    assert told(sim) == "Healthy"
    sim.apply(version="v2", strategy=strategy).step()
    assert told(sim) == "Progressing"
    sim.waits_for("AwaitingPromotion")
    assert told(sim) == "Suspended"
    sim.ask("pause")
    sim.waits_for("Paused")
    assert told(sim) == "Suspended"
    sim.ask("resume").ask("abort").settle()
    assert told(sim) == "Degraded"
    sim.ask("resume").step()
    sim.ask("rollback", revision=1).settle()
    assert told(sim) == "Suspended"
