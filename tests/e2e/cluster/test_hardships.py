"""Tests what happens to running tasks when their operator is killed, upgraded, removed and installed again."""

from __future__ import annotations

from collections import Counter

import pytest

import clusters
from e2e.cluster.conftest import WAITS
from e2e.cluster.counting import counting
from e2e.cluster.installation import Installation, command
from support import repetitions, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
TASKS = 20
KILLS = repetitions(3, soak=10)


def test_twenty_tasks_run_once_each_while_their_operator_is_killed(installation: Installation) -> None:
    """Fewer tasks run at a time than exist, so that after each kill some are running and some have not started."""
    image, names = clusters.busybox_image(), [f"once-{number}" for number in range(TASKS)]
    with counting(installation) as counter:
        script = f"busybox wget -q -O - '{counter.url}/count?'$REMIT_TASK_NAME && sleep 3"
        installation.apply(*(command(name, "sh", "-c", script, image=image) for name in names))
        for number in range(KILLS):
            seen = 1 + number * TASKS // KILLS
            wait_until(lambda seen=seen: len(counter.effects()) >= seen, f"{seen} of them", seconds=240)  # type: ignore[misc]
            installation.kill()
        ends = {name: installation.finished(name) for name in names}
        assert counter.effects() == Counter(names)

    phases = {name: (end["phase"], end["attemptCount"]) for name, end in ends.items()}
    assert phases == dict.fromkeys(names, ("Succeeded", 1))
    assert {name: end["output"]["stdoutTail"] for name, end in ends.items()} == dict.fromkeys(names, "counted\n")


def test_an_upgrade_is_in_force_and_leaves_running_tasks_alone(installation: Installation) -> None:
    installation.run("none", "echo", network="none")
    before = installation.finished("none")
    if before["phase"] != "Succeeded":  # the network of the node does not enforce NetworkPolicies
        assert before["attempts"][-1]["reason"] == "SandboxUnavailable"
        assert "a pod that a NetworkPolicy allows no connection could connect" in before["message"]
    else:
        assert before["sandbox"]["limits"]["network"] == "NetworkPolicy remit-network-none"
    names = ["through-1", "through-2"]
    installation.apply(*(command(name, "sh", "-c", WAITS) for name in names))
    jobs = {name: installation.running(name) for name in names}
    was = installation.operators()

    another = clusters.busybox_image()  # a new version brings a new image; running Jobs keep theirs
    installation.upgrade(acceptUnenforcedNetwork=True, defaultImage=another)

    wait_until(lambda: not {*was} & {*installation.operators()}, "the operator before is gone")
    for name, job in jobs.items():
        installation.let_go(job)
        status = installation.finished(name)
        assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
        assert status["output"]["stdoutTail"] == "begun\nended\n"
        assert status["image"] == before["image"]
    installation.run("unenforced", "echo", network="none")
    status = installation.finished("unenforced")
    assert (status["phase"], status["image"]) == ("Succeeded", another), status


def test_what_somebody_put_in_the_place_of_what_jobs_need_is_replaced(installation: Installation) -> None:
    """The installation was upgraded before, so that a Job without a network runs on any cluster."""
    program = launcher(installation)
    for kind, name in (("networkpolicy", "remit-network-none"), ("secret", program)):
        installation.kubectl.ok("delete", "-n", installation.namespace, kind, name)
    installation.apply(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "remit-network-none"},
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
        },
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": program},
            "stringData": {"launch": "another program"},
        },
    )
    installation.run("repaired", "echo", network="none")
    status = installation.finished("repaired")
    assert status["phase"] == "Succeeded", status


def launcher(installation: Installation) -> str:
    (found,) = installation.get("secrets", "-l", "app.kubernetes.io/component=launcher")["items"]
    return str(found["metadata"]["name"])
