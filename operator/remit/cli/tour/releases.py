"""The tour's second act: three versions of a shop go live under load, the last of which should not have."""

from __future__ import annotations

import json
from typing import Any

from remit.cli.tour.load import Load
from remit.cli.tour.stage import Stage
from remit.errors import RemitError

_DEPLOYMENT = "deployments.remit.dev/shop"
_ENDS = {1: "Promoted", 2: "Promoted", 3: "RolledBack"}


def play(stage: Stage) -> None:
    """Raises `RemitError` when anything is not as it should be."""
    try:
        _first(stage)
        load = Load(stage.shop_port)
        with load.running():
            _second(stage)
            _third(stage)
        _look(stage, load)
    finally:
        # The instances would otherwise continue to run without Remit.
        stage.ask(f"kubectl delete {_DEPLOYMENT} --ignore-not-found --timeout=60s")


def _first(stage: Stage) -> None:
    stage.say("The second act: a shop goes live, as two processes behind a proxy.")
    stage.run("cat shop.yaml")
    stage.run("kubectl apply -f shop-policy.yaml -f shop.yaml")
    _wait(stage, "Healthy")
    stage.run(f"kubectl get {_DEPLOYMENT}")


def _second(stage: Stage) -> None:
    stage.say("From now on clients never stop asking. v2 starts beside v1, is tried, and takes over in one switch.")
    stage.run("sed -i s,/v1},/v2}, shop.yaml && kubectl apply -f shop.yaml")
    _wait(stage, "Healthy")
    stage.run(f"kubectl get {_DEPLOYMENT}")


def _third(stage: Stage) -> None:
    stage.say("v3 looks well, but takes no orders. The check after the switch finds out, and requests go back to v2.")
    stage.run("sed -i s,/v2},/v3}, shop.yaml && kubectl apply -f shop.yaml")
    _wait(stage, "Stalled")
    stage.run(f"kubectl get {_DEPLOYMENT} -o jsonpath='{{.status.message}}{{\"\\n\"}}'")
    stage.run("kubectl remit history shop")


def _look(stage: Stage, load: Load) -> None:
    total, versions = sum(load.answers.values()) + len(load.failed), ", ".join(sorted(load.answers))
    stage.say(f"The clients made {total} requests. {len(load.failed)} failed; {versions} answered.")
    status: dict[str, Any] = json.loads(stage.ask(f"kubectl get {_DEPLOYMENT} -o json"))["status"]
    ends = {each["revision"]: each["outcome"] for each in status["history"]}
    if load.failed or set(load.answers) != {"v1", "v2", "v3"}:
        raise RemitError(f"the clients should have met v1, v2 and v3 and no failure: {load.answers}, {load.failed[:3]}")
    if ends != _ENDS:
        raise RemitError(f"the releases should have ended as {_ENDS}, but ended as {ends}")


def _wait(stage: Stage, condition: str) -> None:
    stage.run(f"kubectl wait --for=condition={condition} {_DEPLOYMENT} --timeout=60s")
