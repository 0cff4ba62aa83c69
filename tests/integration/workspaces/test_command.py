"""Tests `remit workspace` with folders of this host, claims of a cluster, and both, with the permissions of the
caller."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from conformance.harness.servers import Server
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.cli import workspace
from remit.cli.options import TableForm
from remit.errors import ApiError, RemitError
from remit.execution.workspaces import WorkspaceStore
from remit.kube.client import CLAIMS, CRDS, TASKS, Kube, Object
from support import pauses

from .conftest import NAME, Cluster

LABELS = {"app.kubernetes.io/managed-by": "remit", "app.kubernetes.io/component": "workspace"}
ACCOUNTS = Resource("", "v1", "serviceaccounts")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles")
BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings")


@pytest.fixture(autouse=True)
async def _tasks(cluster: Cluster) -> None:
    pause = pauses()
    (definition,) = [crd for crd in crds() if crd["spec"]["names"]["plural"] == "executiontasks"]
    await cluster.kube.apply(CRDS, None, definition["metadata"]["name"], definition, manager="remit-test", force=True)
    while True:
        try:
            await cluster.kube.list(TASKS, cluster.namespace)
        except ApiError as error:
            assert error.status == 404
            await asyncio.sleep(next(pause))
        else:
            return


@pytest.fixture
async def claim(cluster: Cluster) -> Object:
    told = {"remit.dev/last-used": "2026-01-02T03:04:05Z", "remit.dev/ttl-seconds-after-last-use": "60"}
    spec = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "16Mi"}},
        "storageClassName": "fast",
    }
    made = {"metadata": {"name": NAME, "labels": LABELS, "annotations": told}, "spec": spec}
    strange = {"metadata": {"name": "database"}, "spec": spec}
    await cluster.kube.create(CLAIMS, cluster.namespace, strange)
    return await cluster.kube.create(CLAIMS, cluster.namespace, made)


@pytest.fixture
def folder(cluster: Cluster, tmp_path: Path) -> Path:
    """Provides a state directory with a workspace of the namespace."""
    WorkspaceStore(tmp_path / "state" / "workspaces").use(cluster.namespace, "cache", 1 << 20, None)
    return tmp_path / "state"


class Command:
    """Calls of one user, for the cluster's namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        self.kubeconfig, self.namespace, self.capsys = kubeconfig, namespace, capsys
        self.said = ""

    async def list(self, state_dir: Path, *, everywhere: bool = False) -> list[list[str]]:
        await workspace._list(everywhere, TableForm.TABLE, self.namespace, self.kubeconfig, None, state_dir)
        out, self.said = self.capsys.readouterr()
        return [line.split() for line in out.splitlines()]

    async def json(self, state_dir: Path) -> list[dict[str, Any]]:
        await workspace._list(False, TableForm.JSON, self.namespace, self.kubeconfig, None, state_dir)
        found: list[dict[str, Any]] = json.loads(self.capsys.readouterr().out)
        return found

    async def show(self, name: str, state_dir: Path, backend: str | None = None) -> str:
        await workspace._show(name, backend, TableForm.TABLE, self.namespace, self.kubeconfig, None, state_dir)
        return self.capsys.readouterr().out

    async def rm(self, name: str, state_dir: Path, backend: str | None = None, *, force: bool = False) -> str:
        await workspace._remove(name, force, backend, self.namespace, self.kubeconfig, None, state_dir)
        return self.capsys.readouterr().out


@pytest.fixture
def command(cluster: Cluster, kubeconfig: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(kubeconfig, cluster.namespace, capsys)


async def running(cluster: Cluster, name: str, backend: str) -> Object:
    """Creates a task that uses the workspace `cache`."""
    spec = {"command": {"argv": ["true"]}, "volumes": [{"name": "w", "workspace": {"name": "cache"}}]}
    body = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": {"name": name}, "spec": spec}
    await cluster.kube.create(TASKS, cluster.namespace, body)
    status = {"status": {"phase": "Running", "backend": backend}}
    return await cluster.kube.patch(TASKS, cluster.namespace, name, status, subresource="status")


async def test_each_kind_alone_has_its_columns_and_both_tell_which(
    cluster: Cluster, command: Command, claim: Object, folder: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    heads, row = await command.list(nothing)
    assert " ".join(heads) == "NAME SIZE CAPACITY CLASS STATUS LAST USED USED BY"
    assert row[:5] == ["cache", "16Mi", "-", "fast", "Pending"]
    heads, *rows = await command.list(folder)
    assert " ".join(heads) == "NAME BACKEND USED SIZE CAPACITY CLASS STATUS LAST USED USED BY"
    assert sorted(row[1] for row in rows) == ["kubernetes", "process,docker"]
    assert [cluster.namespace, "cache"] in [row[:2] for row in await command.list(nothing, everywhere=True)]
    await cluster.kube.delete(CLAIMS, cluster.namespace, NAME)
    await cluster.let_go()
    assert " ".join((await command.list(folder))[0]) == "NAME USED SIZE LAST USED USED BY"


async def test_json_output_lists_a_claim(
    cluster: Cluster, command: Command, claim: Object, folder: Path, tmp_path: Path
) -> None:
    assert await command.json(tmp_path / "nothing") == [
        {
            "namespace": cluster.namespace,
            "name": "cache",
            "backends": ["kubernetes"],
            "sizeBytes": 16 << 20,
            "lastUsed": "2026-01-02T03:04:05Z",
            "ttlSecondsAfterLastUse": 60,
            "usedBy": [],
            "claim": NAME,
            "phase": "Pending",
            "capacityBytes": None,
            "storageClass": "fast",
        }
    ]
    await cluster.annotate(last_used="yesterday\x1b[31m")
    assert [each["lastUsed"] for each in await command.json(tmp_path / "nothing")] == [None]


async def test_of_two_of_one_name_it_is_asked_which(
    cluster: Cluster, command: Command, claim: Object, folder: Path
) -> None:
    for asked in (command.show, command.rm):
        with pytest.raises(RemitError, match="both a folder of this host and a claim"):
            await asked("cache", folder)
    assert "Folder:    /" in await command.show("cache", folder, "docker")
    shown = await command.show("cache", folder, "kubernetes")
    assert f"Claim:     {NAME} (Pending)\nSize:      16Mi\nClass:     fast\n" in shown
    assert "Kept:      60 seconds after its last use" in shown
    assert await command.rm("cache", folder, "process") == f"workspace {cluster.namespace}/cache removed\n"
    assert await command.rm("cache", folder) == f"workspace {cluster.namespace}/cache removed\n"
    assert not await cluster.is_kept()


async def test_what_a_task_or_a_pod_uses_is_not_removed(
    cluster: Cluster, command: Command, claim: Object, folder: Path, tmp_path: Path
) -> None:
    nothing = tmp_path / "nothing"
    beside = await running(cluster, "beside", "process")
    task = await running(cluster, "writer", "kubernetes")
    with pytest.raises(RemitError, match=r"used by task/beside; wait"):
        await command.rm("cache", folder, "process")
    with pytest.raises(RemitError, match=r"used by task/writer; wait"):
        await command.rm("cache", nothing)
    await cluster.pod("own", attempt=f"{task['metadata']['uid']}-1")
    await cluster.pod("strange", attempt=f"{beside['metadata']['uid']}-1")
    assert "Used by:   task/writer, pod/strange\n" in await command.show("cache", nothing)
    await cluster.kube.delete(TASKS, cluster.namespace, "writer")
    with pytest.raises(RemitError, match=r"used by pod/own, pod/strange; wait"):
        await command.rm("cache", nothing)
    assert await cluster.is_kept()
    said = await command.rm("cache", nothing, force=True)
    assert said == f"workspace {cluster.namespace}/cache goes when pod/own, pod/strange has ended\n"
    assert (await command.list(nothing))[1][4] == "Terminating"


async def test_a_claim_that_a_task_begins_to_use_at_this_moment_stays(
    cluster: Cluster, command: Command, claim: Object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = Kube.delete

    async def late(*args: Any, **options: Any) -> None:
        await cluster.annotate(last_used_by="another")
        await delete(*args, **options)

    monkeypatch.setattr(Kube, "delete", late)
    with pytest.raises(RemitError, match="was changed at this moment"):
        await command.rm("cache", tmp_path / "nothing")
    assert await cluster.is_kept()


async def caller(cluster: Cluster, server: Server, tmp_path: Path, *rules: dict[str, Any]) -> Path:
    """Returns the kubeconfig of a user with exactly these permissions."""
    name, rbac = "caller", "rbac.authorization.k8s.io"
    await cluster.kube.create(ACCOUNTS, cluster.namespace, {"metadata": {"name": name}})
    await cluster.kube.create(ROLES, cluster.namespace, {"metadata": {"name": name}, "rules": rules})
    subject = {"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}
    role = {"apiGroup": rbac, "kind": "Role", "name": name}
    await cluster.kube.create(
        BINDINGS, cluster.namespace, {"metadata": {"name": name}, "roleRef": role, "subjects": [subject]}
    )
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
    path = ACCOUNTS.path(cluster.namespace, name, "token")
    token = (await cluster.kube.request("POST", path, body=asked))["status"]["token"]
    config = yaml.safe_load(server.kubeconfig(tmp_path / "caller").read_text())
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "caller").write_text(yaml.safe_dump(config))
    return tmp_path / "caller"


SEES_TASKS = {"apiGroups": ["remit.dev"], "resources": ["executiontasks"], "verbs": ["list"]}


async def test_who_may_not_see_pods_removes_nothing_unasked(
    cluster: Cluster, server: Server, command: Command, claim: Object, folder: Path, tmp_path: Path
) -> None:
    claims = {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": ["list"]}
    command.kubeconfig = await caller(cluster, server, tmp_path, SEES_TASKS, claims)
    nothing = tmp_path / "nothing"
    assert "Used by:   no task; pods are not known\n" in await command.show("cache", nothing)
    with pytest.raises(RemitError, match=r"is not known: pods is forbidden"):
        await command.rm("cache", nothing)
    with pytest.raises(ApiError, match=r"cannot delete resource"):
        await command.rm("cache", nothing, force=True)
    assert await cluster.is_kept()


async def test_who_may_not_see_claims_sees_folders_and_why(
    cluster: Cluster, server: Server, command: Command, claim: Object, folder: Path, tmp_path: Path
) -> None:
    command.kubeconfig = await caller(cluster, server, tmp_path, SEES_TASKS)
    assert [row[0] for row in await command.list(folder)] == ["NAME", "cache"]
    assert command.said.startswith("only folders of this host: persistentvolumeclaims is forbidden")
    with pytest.raises(ApiError, match="persistentvolumeclaims is forbidden"):
        await command.list(tmp_path / "nothing")
