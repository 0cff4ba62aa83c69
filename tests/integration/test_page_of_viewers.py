"""Tests the page of a cluster for users with partial RBAC permissions, on an API server that enforces them."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from conformance.harness.servers import TOKEN, Server, kube_apiserver, real_server_available
from kubelets import NODE, Kubelet
from pages import Looker
from parts import require
from remit import safeyaml
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.backends.kubernetes.manifests import job_name
from remit.kube.access import Access
from remit.kube.client import CRDS, DEPLOYMENTS, JOBS, NAMESPACES, PODS, TASKS, Kube, Object
from remit.release.targets.kubernetes.identity import SLOT, WorkloadIdentity
from remitpage import remit_page
from remitup import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
API = "remit.dev/v1alpha1"
RBAC = "rbac.authorization.k8s.io"
ROLES = Resource(RBAC, "v1", "clusterroles", namespaced=False)
ROLE_BINDINGS = Resource(RBAC, "v1", "rolebindings")
NODES = Resource("", "v1", "nodes", namespaced=False)
NOW = "2026-01-01T00:00:00.000000Z"
USERS = ("viewer", "editor", "loser", "stranger")
LOG = b"2026-01-01T00:00:01.000000000Z o first line\n2026-01-01T00:00:02.000000000Z e a complaint\n"
END = b"2026-01-01T00:00:09.000000000Z = " + json.dumps(
    dict.fromkeys(("exitCode", "signal", "stdoutBytes", "stderrBytes", "cpuMicroseconds", "maxMemoryBytes"), 0)
    | dict.fromkeys(("oomKills", "throttledMicroseconds", "maxTasks", "errno"), 0)
    | {"error": ""}
).encode() + b"\n"  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("viewers")


@pytest.fixture(scope="module")
def kubelet(home: Path) -> Iterator[Kubelet]:
    with Kubelet().serving(home / "kubelet") as serving:
        yield serving


@pytest.fixture(scope="module")
def server(home: Path, kubelet: Kubelet) -> Iterator[Server]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    tokens = home / "tokens.csv"
    people = "".join(f"{name}-token,{name},{name}\n" for name in USERS)
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n{people}")
    with kube_apiserver(home / "server", authorization_mode="RBAC", token_auth_file=tokens) as running:
        as_admin(running, lambda kube: prepare(kube, kubelet))
        yield running


def as_admin(server: Server, act: Callable[[Kube], Any]) -> Any:
    async def run() -> Any:
        async with Kube(Access(server.url, ca_file=str(server.ca), token=f"Bearer {TOKEN}")) as kube:
            return await act(kube)

    return asyncio.run(run())


async def prepare(kube: Kube, kubelet: Kubelet) -> None:
    for definition in crds():
        await kube.apply(CRDS, None, definition["metadata"]["name"], definition, manager="test", force=True)
    for each in ("data", "other", "remit-system"):
        await kube.create(NAMESPACES, None, {"metadata": {"name": each}})
    # The rules of the roles `view` and `edit`, which a controller would aggregate.
    for role in safeyaml.load_all((ROOT / "manifests/install/operator.yaml").read_text()):
        if any("aggregate-to" in label for label in role["metadata"].get("labels") or {}):
            await kube.create(ROLES, None, role)
    lists = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    kinds = {"apiGroups": ["remit.dev"], "resources": ["executiontasks", "deployments"], "verbs": lists["verbs"]}
    await kube.create(
        ROLES, None, {"metadata": {"name": "loser", "labels": {"test/loses": "true"}}, "rules": [lists, kinds]}
    )
    await bind(kube, "viewer", f"{RBAC}/aggregate-to-view")
    await bind(kube, "editor", f"{RBAC}/aggregate-to-view", f"{RBAC}/aggregate-to-edit")
    await bind(kube, "loser", "test/loses")
    node = await kube.create(NODES, None, kubelet.node)
    await kube.patch(NODES, None, node["metadata"]["name"], {"status": kubelet.node["status"]}, subresource="status")
    for namespace, name in (("data", "seen"), ("other", "unseen-task")):
        await served(lambda place=namespace, called=name: kube.create(TASKS, place, task(called)))


async def bind(kube: Kube, user: str, *labels: str) -> None:
    names = {
        role["metadata"]["name"] for label in labels for role in await kube.list(ROLES, label_selector=f"{label}=true")
    }
    assert names
    for number, name in enumerate(sorted(names)):
        body = {
            "metadata": {"name": f"{user}-{number}"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": user}],
        }
        await kube.create(ROLE_BINDINGS, "data", body)


async def served(act: Callable[[], Any]) -> None:
    """Waits until a kind is served, which is a moment after its definition."""
    for _ in range(600):
        try:
            await act()
        except Exception as error:
            last = error
            await asyncio.sleep(0.1)
        else:
            return
    raise last


def task(name: str) -> Object:
    return {
        "apiVersion": API,
        "kind": "ExecutionTask",
        "metadata": {"name": name},
        "spec": {"command": {"argv": ["echo"]}},
    }


async def job(kube: Kube, name: str, *, start: bool = True) -> Object:
    """Creates a task that runs as a Job, and its pod."""
    made = await kube.create(TASKS, "data", task(name))
    attempt = {"number": 1, "id": f"{name}-1", "backend": "kubernetes", "startedAt": NOW}
    status = {"observedGeneration": 1, "phase": "Running", "attempts": [attempt]}
    await kube.patch(TASKS, "data", name, {"status": status}, subresource="status")
    container = {"name": "task", "image": "remit-test.invalid/x"}
    spec = {"template": {"spec": {"restartPolicy": "Never", "containers": [container]}}}
    owner = await kube.create(JOBS, "data", {"metadata": {"name": job_name(attempt["id"])}, "spec": spec})
    reference = {
        "apiVersion": "batch/v1", "kind": "Job", "controller": True,
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
    }  # fmt: skip
    metadata = {
        "name": f"pod-of-{name}",
        "labels": {"remit.dev/attempt": attempt["id"]},
        "ownerReferences": [reference],
    }
    await kube.create(PODS, "data", {"metadata": metadata, "spec": {"nodeName": NODE, "containers": [container]}})
    await kube.patch(PODS, "data", metadata["name"], {"status": {"phase": "Running"}}, subresource="status")
    return made


async def finish(kube: Kube, name: str, **output: Any) -> None:
    status = copy.deepcopy((await kube.get(TASKS, "data", name))["status"])
    status["attempts"][0] |= {"finishedAt": NOW, "exitCode": 0, "reason": "Completed"}
    usual = {"stdoutTail": "", "stderrTail": "", "stdoutBytes": 0, "stderrBytes": 0}
    status |= {"phase": "Succeeded", "output": usual | output}
    await kube.patch(TASKS, "data", name, {"status": status}, subresource="status")


@pytest.fixture
def look(server: Server, tmp_path: Path) -> Iterator[Callable[..., Looker]]:
    """Provides the page of `remit page` for a user whose kubeconfig's context has the namespace `data`."""
    with contextlib.ExitStack() as stack:

        def as_user(name: str, *arguments: str) -> Looker:
            config = yaml.safe_load(server.kubeconfig(tmp_path / f"{name}.config").read_text())
            config["users"][0]["user"]["token"] = f"{name}-token"
            config["contexts"][0]["context"]["namespace"] = "data"
            (tmp_path / f"{name}.config").write_text(yaml.safe_dump(config))
            flags = ("--kubeconfig", str(tmp_path / f"{name}.config"), "--port", "0", *arguments)
            page = stack.enter_context(remit_page(tmp_path / name, *flags))
            return stack.enter_context(page.looking())

        yield as_user


def written(looker: Looker, path: str, until_word: str) -> tuple[list[str], list[str]]:
    """Returns the lines and the notes that arrive, until one of them contains this word."""
    lines, notes = list[str](), list[str]()
    with looker.live(path) as events:
        for name, data in events:
            if name == "broken":
                notes.append(data)
            if name == "output":
                lines += [re.sub("<[^>]*>", "", each["html"]) for each in data.get("lines", ())]
                notes += [data["note"]] if "note" in data else []
            if any(until_word in each for each in (*lines, *notes)):
                return lines, notes
    raise AssertionError(f"{until_word!r} did not come: {lines} {notes}")


def test_a_viewer_sees_a_namespace_and_changes_nothing(look: Callable[..., Looker], server: Server) -> None:
    looker = look("viewer")
    tasks = looker.get("/tasks").text
    assert "viewer on 127.0.0.1:" in tasks
    assert "/tasks/data/seen" in tasks
    assert "unseen-task" not in tasks
    narrowed = "You may not list executiontasks, deployments and commandpolicies of all namespaces."
    assert narrowed in tasks
    with looker.live("/") as events:
        assert next(data for name, data in events if name == "state")["narrowed"].startswith(narrowed)
    one = looker.get("/tasks/data/seen").text
    assert "Run again" not in one
    assert "Cancel" not in one
    for path in ("/tasks/data/seen/cancel", "/tasks/data/seen/rerun"):
        refused = looker.post(path)
        assert refused.status_code == 403
        assert "cannot" in refused.text
        assert "viewer" in refused.text
    hidden = looker.get("/tasks/other/unseen-task")
    assert hidden.status_code == 403
    assert "echo" not in hidden.text
    assert looker.get("/tasks/data/seen/output/1/stdout").status_code == 403
    told = looker.post("/policies/try", line="echo", namespace="data").text
    assert "It cannot be told what policies say" in told
    assert "remit-system" in told
    found = {each["metadata"]["name"]: each for each in as_admin(server, lambda kube: kube.list(TASKS, "data"))}
    assert not found["seen"]["spec"]["cancel"]
    assert [name for name in found if name.startswith("seen")] == ["seen"]


def test_who_is_let_edit_cancels_and_runs_again(look: Callable[..., Looker], server: Server) -> None:
    as_admin(server, lambda kube: kube.create(TASKS, "data", task("edited")))
    looker = look("editor", "-n", "data")
    until(lambda: "Cancel" in looker.get("/tasks/data/edited").text, "the button")
    assert "Shown: data" in looker.get("/").text
    assert looker.post("/tasks/data/edited/cancel").status_code == 303
    again = looker.post("/tasks/data/edited/rerun")
    assert again.status_code == 303
    found = as_admin(server, lambda kube: kube.list(TASKS, "data"))
    assert again.headers["Location"].rpartition("/")[2] in {each["metadata"]["name"] for each in found}
    assert next(each for each in found if each["metadata"]["name"] == "edited")["spec"]["cancel"] is True
    assert looker.post("/tasks/other/unseen-task/cancel").status_code == 403


def test_a_viewer_reads_what_a_job_writes_as_it_comes(
    look: Callable[..., Looker], server: Server, kubelet: Kubelet
) -> None:
    as_admin(server, lambda kube: job(kube, "runs"))
    looker = look("viewer")
    with looker.live("/tasks/data/runs") as events:
        next(events)  # its container has not started
        kubelet.logs["pod-of-runs"] = LOG
        seen = ""
        while "a complaint" not in seen:
            seen += str(next(events))
        assert "secrets are not redacted" in seen
        assert "first line" in seen
        kubelet.logs["pod-of-runs"] += b"2026-01-01T00:00:03.000000000Z o \x1b[31m<b>third\x1b[0m\n"
        while "third" not in seen:
            seen += str(next(events))
        assert "<b>third" not in seen
        kubelet.logs["pod-of-runs"] += END
        kubelet.over.add("pod-of-runs")
        as_admin(server, lambda kube: finish(kube, "runs", stdoutTail="not asked for", stdoutBytes=13))
        while "'end': True" not in seen:
            seen += str(next(events))
    assert "not asked for" not in seen  # everything was available already
    assert seen.count("first line") == 1
    assert {each["container"] for each in kubelet.asked} == {"task"}


def test_without_its_pod_the_end_of_the_output_is_shown_from_status(
    look: Callable[..., Looker], server: Server
) -> None:
    async def prepared(kube: Kube) -> None:
        await job(kube, "gone")
        await kube.delete(PODS, "data", "pod-of-gone")
        await finish(kube, "gone", stdoutTail="the last words", stdoutBytes=14)

    as_admin(server, prepared)
    lines, notes = written(look("viewer"), "/tasks/data/gone", "the last words")
    assert lines == ["the last words"]
    assert notes == ["The end of the output of attempt 1, from status."]


def test_a_missing_permission_for_logs_of_pods_is_reported(
    look: Callable[..., Looker], server: Server, kubelet: Kubelet
) -> None:
    kubelet.logs["pod-of-closed"] = LOG
    as_admin(server, lambda kube: job(kube, "closed"))
    as_admin(server, lambda kube: release(kube, "closed-shop"))
    looker = look("loser")
    lines, notes = written(looker, "/tasks/data/closed", "You may not read the log of its pod")
    assert lines == []
    assert "pods/log" in str(notes) or 'resource "pods"' in str(notes)
    lines, notes = written(looker, "/releases/data/closed-shop", "You may not read what instances write")
    assert lines == []
    assert "You may not list events here." in looker.get("/tasks/data/closed").text
    assert "You may not list commandpolicies of namespace data, nor of all" in looker.get("/policies").text
    assert "nothing may run" not in looker.get("/policies").text


async def release(kube: Kube, name: str) -> None:
    """Creates a Deployment with two pods."""
    spec = {
        "artifact": {"image": "remit-test.invalid/shop:v1"},
        "target": {"kubernetes": {}},
        "ports": [{"name": "http", "containerPort": 8080}],
    }
    made = await kube.create(
        DEPLOYMENTS, "data", {"apiVersion": API, "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    )
    identity = WorkloadIdentity("data", name, made["metadata"]["uid"], "data")
    for slot in ("blue", "green"):
        metadata = {"name": f"{name}-{slot}-x", "labels": {**identity.marks, SLOT: slot}}
        containers = [{"name": "app", "image": "remit-test.invalid/x"}]
        await kube.create(PODS, "data", {"metadata": metadata, "spec": {"nodeName": NODE, "containers": containers}})
        await kube.patch(PODS, "data", metadata["name"], {"status": {"phase": "Running"}}, subresource="status")


def test_a_viewer_reads_what_the_instances_of_a_release_write(
    look: Callable[..., Looker], server: Server, kubelet: Kubelet
) -> None:
    as_admin(server, lambda kube: release(kube, "shop"))
    kubelet.logs["shop-blue-x"] = b"2026-01-01T00:00:01.000000000Z of blue\n"
    looker = look("viewer")
    page = looker.get("/releases/data/shop").text
    assert "Remit counts none of them" in page
    assert "?instance=shop-green-x" in page
    with looker.live("/releases/data/shop") as events:
        seen = ""
        while "of blue" not in seen:
            seen += str(next(events))
        assert "'source': 'blue-x'" in seen
        kubelet.logs["shop-green-x"] = b"2026-01-01T00:00:02.000000000Z of green\n"  # the container starts later
        while "of green" not in seen:
            seen += str(next(events))
        kubelet.logs["shop-blue-x"] += b"2026-01-01T00:00:03.000000000Z more of blue\n"
        while "more of blue" not in seen:
            seen += str(next(events))
    lines, _ = written(looker, "/releases/data/shop?instance=shop-green-x", "of green")
    assert lines == ["of green"]


def test_who_may_see_nothing_sees_nothing(look: Callable[..., Looker]) -> None:
    looker = look("stranger")
    page = looker.get("/tasks").text
    assert "You may not list executiontasks of namespace data, nor of all" in page
    assert "/tasks/data/seen" not in page
    assert looker.get("/tasks/data/seen").status_code == 403
    assert looker.get("/releases/data/shop").status_code == 403
