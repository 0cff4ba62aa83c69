"""Tests two replicas of the operator: one works, the other one is ready, and takes over when the first one is
killed."""

from __future__ import annotations

import contextlib
import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.conftest import WAITS
from e2e.cluster.installation import Installation, command
from support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextlib.contextmanager
def volumes(installation: Installation) -> Iterator[str]:
    """Provides the storage class for a volume of each replica: that of the cluster, or one with two folders of its only
    node."""
    kubectl = installation.kubectl
    if kubectl.ok("get", "storageclasses", "-o", "name").split():
        yield ""
        return
    wanted = f"{installation.namespace}-{uuid.uuid4().hex[:8]}"  # volumes of another test may still be in deletion
    with tempfile.TemporaryDirectory() as place, contextlib.ExitStack() as made:
        Path(place).chmod(0o711)
        for number in range(2):
            folder = Path(place, str(number))
            folder.mkdir()
            folder.chmod(0o777)
            spec = {
                "capacity": {"storage": "1Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": wanted,
                "hostPath": {"path": str(folder)},
            }
            metadata = {"name": f"{wanted}-{number}"}
            body = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}
            kubectl.ok("create", "-f", "-", given=body)
            made.callback(kubectl.ok, "delete", f"pv/{wanted}-{number}", "--wait=false")
        yield wanted


def leader(installation: Installation) -> str:
    """Returns the pod that holds the Lease; empty if none does."""
    leases = json.loads(installation.kubectl.ok("get", "leases", "-n", installation.system, "-o", "json"))["items"]
    holders = [lease["spec"].get("holderIdentity") or "" for lease in leases]
    return next((str(holder.rpartition("_")[0]) for holder in holders if holder), "")


@pytest.mark.parametrize("persistent", [False, True], ids=["without volumes", "with volumes"])
def test_the_standby_is_ready_and_goes_on_with_every_task(installation: Installation, persistent: bool) -> None:
    kubectl, system = installation.kubectl, installation.system
    with contextlib.ExitStack() as stack:
        changes = {"replicaCount": 2}
        if persistent:
            chosen = stack.enter_context(volumes(installation))
            changes["persistence"] = {"enabled": True, "size": "1Gi", "storageClassName": chosen}
            stack.callback(_forget_volumes, installation)
        stack.callback(_back_to_one, installation)
        installation.upgrade(**changes)  # waits until both are ready
        wait_until(lambda: len(installation.operators()) == 2, "two operators")
        pods = {name.removeprefix("pod/") for name in installation.operators()}
        wait_until(lambda: leader(installation) in pods, "a leader")
        first = leader(installation)
        prefix = "kept" if persistent else "taken"
        running = [f"{prefix}-{number}" for number in range(3)]
        installation.apply(*(command(name, "sh", "-c", WAITS) for name in running))
        before = {name: installation.running(name)["metadata"]["uid"] for name in running}

        with installation.no_new_pods(system):  # a new pod may get the volume, and the lease with it
            installation.kill_pod(f"pod/{first}")
            meanwhile = [f"{prefix}-meanwhile-{number}" for number in range(2)]
            installation.apply(*(command(name, "echo", "once") for name in meanwhile))
            wait_until(lambda: leader(installation) != first, "another leader")
        (second,) = pods - {first}
        assert leader(installation) == second, "the standby, and not after a release"
        for name in meanwhile:
            status = installation.finished(name)
            assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
            assert len(installation.jobs(name)) <= 1
        for name in running:
            (job,) = installation.jobs(name)
            assert job["metadata"]["uid"] == before[name], "the same Job, adopted"
            installation.let_go(job)
            status = installation.finished(name)
            assert (status["phase"], status["attemptCount"]) == ("Succeeded", 1), status
            assert status["output"]["stdoutTail"] == "begun\nended\n"
        kind = "statefulset" if persistent else "deployment"
        kubectl.ok("rollout", "status", "-n", system, f"{kind}/{installation.release}", "--timeout=80s")
        assert leader(installation) == second, "the killed one's successor waits"


def _back_to_one(installation: Installation) -> None:
    installation.upgrade()
    wait_until(lambda: len(installation.operators()) == 1, "one operator")


def _forget_volumes(installation: Installation) -> None:
    claims = [f"pvc/state-{installation.release}-{number}" for number in range(2)]
    installation.kubectl.ok("delete", "-n", installation.system, *claims, "--ignore-not-found", "--timeout=80s")
