"""Every example in manifests/examples, applied as it stands: it ends as its first lines promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from remit.reconcilers.kube import CONFIG_MAPS, POLICIES, SECRETS, TASKS

from .conftest import World

EXAMPLES = Path(__file__).parents[3] / "manifests" / "examples"
KINDS = {"CommandPolicy": POLICIES, "ExecutionTask": TASKS, "ConfigMap": CONFIG_MAPS, "Secret": SECRETS}

Ending = Callable[[dict[str, Any]], bool]
ENDINGS: dict[str, dict[str, Ending]] = {
    "01-hello": {"hello": lambda s: s["phase"] == "Succeeded" and "$HOME and `id`" in s["output"]["stdoutTail"]},
    "02-retry": {"flaky": lambda s: s["phase"] == "Succeeded" and s["attemptCount"] == 3},
    "03-timeout": {"endless": lambda s: s["phase"] == "TimedOut" and s["error"]["category"] == "Timeout"},
    "04-env-and-secrets": {
        "greeter": lambda s: (
            s["output"]["stdoutTail"].splitlines() == ["good morning", "everyone", "green", "[redacted]"]
        )
    },
    "06-egress": {
        "download": lambda s: (
            s["phase"] == "Failed"
            and "policy default/example-egress names example.org" in s["attempts"][0]["network"]["lastDenied"]
        )
    },
    "07-locked-down-pod": {"walled": lambda s: s["output"]["stdoutTail"].split() == ["door", "wall"]},
    "05-limits": {
        "greedy": lambda s: (
            s["error"]["category"] == "Resources" if "cgroup" in s["sandbox"]["layers"] else s["phase"] != "Succeeded"
        )
    },
}


def examples() -> list[str]:
    return sorted(path.stem for path in EXAMPLES.glob("0[1-9]-*.yaml"))


@pytest.mark.parametrize("name", examples())
async def test_an_example_ends_as_it_promises(world: World, name: str) -> None:
    async with world.operator():
        for document in yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()):
            await world.kube.create(KINDS[document["kind"]], "default", document)
        for task, as_promised in ENDINGS[name].items():
            status = await world.finished(task)
            assert as_promised(status), status


async def test_the_starter_policy_lets_a_task_run(world: World) -> None:
    """It may require nothing that an ordinary host does not give."""
    async with world.operator():
        policy = yaml.safe_load((EXAMPLES / "00-starter-policy.yaml").read_text())
        await world.kube.create(POLICIES, "default", policy)
        labels = policy["spec"].get("selector", {}).get("matchLabels", {})
        status = await world.finished(await world.task("echo", "hello", labels=labels))
    assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "hello\n")
