"""Tests releases on a real Kubernetes cluster, through a whole operator."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

import clusters
from httpload import Answer, load
from mortaloperator import HOOKS, killed_at_every_stage, mortals
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.controllers.operator import Operator, running_operator
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import CRDS, DEPLOYMENTS, NAMESPACES, POLICIES, SECRETS, TASKS, Kube, Object
from remit.release.targets.kubernetes.cluster import ENDPOINTS, PODS, REVISIONS, SERVICES, WORKLOADS
from remit.telemetry.redact import Redactor
from support import repetitions

from .conftest import truth

pytestmark = pytest.mark.timeout(300)  # longer than the awaits, whose timeouts give a reason
PATIENCE = 90
SWITCHES = repetitions(3, soak=20)
ROLLBACKS = repetitions(3, soak=5)
RBAC = "rbac.authorization.k8s.io"
MANIFESTS = Path(__file__).parents[3] / "manifests"


class Shop:
    """The Deployment `shop` in a separate namespace, and a client of its Service."""

    def __init__(self, kube: Kube, account: Access, settings: Settings, image: str) -> None:
        """`account` is the operator's account."""
        self.kube, self.account, self.settings, self.image = kube, account, settings, image
        self.namespace = settings.namespaces[0]

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        async with running_operator(self.account, self.settings, Redactor()) as operator:
            yield operator

    def kubeconfig(self, folder: Path) -> Path:
        """Writes the operator's credentials as a kubeconfig file."""
        file, account = folder / "kubeconfig", self.account
        cluster = {"server": account.server, "certificate-authority": account.ca_file}
        user = {"token": str(account.token).removeprefix("Bearer ")}
        body = {
            "clusters": [{"name": "it", "cluster": cluster}],
            "users": [{"name": "it", "user": user}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
            "current-context": "it",
        }
        file.write_text(yaml.safe_dump(body))
        return file

    def spec(self, version: str, variables: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        return {
            "artifact": {"image": self.image, "pullPolicy": "Never"},
            "target": {"kubernetes": {}},
            "replicas": 2,
            "ports": [{"name": "http", "containerPort": clusters.PORT, "published": 80}],
            "env": [
                {"name": name, "value": value} for name, value in {"VERSION": version, **(variables or {})}.items()
            ],
            "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 3},
            "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
            "stages": {"bakeSeconds": 0},
            **changes,
        }

    async def create(self, version: str, **changes: Any) -> None:
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": self.spec(version, **changes),
        }
        await self.kube.create(DEPLOYMENTS, self.namespace, body)

    async def change(self, version: str, **changes: Any) -> None:
        await self.kube.patch(DEPLOYMENTS, self.namespace, "shop", {"spec": self.spec(version, **changes)})

    async def ask(self, request: str) -> None:
        patch = {"metadata": {"annotations": {"remit.dev/request": request}}}
        await self.kube.patch(DEPLOYMENTS, self.namespace, "shop", patch)

    async def until(self, condition: Any, name: str = "shop") -> dict[str, Any]:
        status: dict[str, Any] = {}
        async with clusters.in_time(PATIENCE, self.namespace, lambda: f"{name} never came so far: {status}"):
            while not condition(status):
                await asyncio.sleep(0.1)
                status = (await self.kube.get(DEPLOYMENTS, self.namespace, name)).get("status") or {}
        return status

    async def live(self, revision: int) -> dict[str, Any]:
        """Waits until this revision is live and nothing is in progress."""
        return await self.until(
            lambda status: (
                status.get("activeRevision") == revision
                and truth(status, "Reconciling") == "False"
                and status.get("ready") == "2/2"
            )
        )

    async def status(self) -> dict[str, Any]:
        return (await self.kube.get(DEPLOYMENTS, self.namespace, "shop")).get("status") or {}

    async def endpoints(self) -> Counter[str]:
        """Counts the pods of each version behind the Service."""
        slices = await self.kube.list(ENDPOINTS, self.namespace, label_selector="kubernetes.io/service-name=shop")
        names = {each["targetRef"]["name"] for one in slices for each in one.get("endpoints") or ()}
        pods = await self.kube.list(PODS, self.namespace)
        labels = [each["metadata"]["labels"] for each in pods if each["metadata"]["name"] in names]
        return Counter(f"v{each['remit.dev/revision']}" for each in labels)

    async def promoted(self, revision: int) -> dict[str, Any]:
        """Waits until requests go to this revision and its release has ended."""
        return await self.until(
            lambda status: status.get("activeRevision") == revision and truth(status, "Reconciling") == "False"
        )

    async def answer(self, service: str = "shop") -> str:
        """Returns the response at the Service's address."""
        found = await self.kube.get(SERVICES, self.namespace, service)
        reader, writer = await asyncio.open_connection(found["spec"]["clusterIP"], 80)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2]

    async def eventually(self, version: str, service: str = "shop") -> None:
        async with clusters.in_time(PATIENCE, self.namespace, lambda: f"{service} never answered {version}"):
            while True:  # nodes apply a change with a delay
                with contextlib.suppress(OSError, ApiError):
                    if await self.answer(service) == version:
                        return
                await asyncio.sleep(0.1)


async def _account(kube: Kube, namespace: str) -> Access:
    """Creates an account with the permissions that the manifests give the operator, and no others."""
    rules = [
        rule
        for file in ("namespace-install/operator.yaml", "kubernetes-releases/role.yaml")
        for document in yaml.safe_load_all((MANIFESTS / file).read_text())
        for rule in document.get("rules", [])
    ]
    role = {"metadata": {"name": "remit"}, "rules": rules}
    binding = {
        "metadata": {"name": "remit"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "remit"},
        "subjects": [{"kind": "ServiceAccount", "name": "remit", "namespace": namespace}],
    }
    accounts = Resource("", "v1", "serviceaccounts")
    await kube.create(accounts, namespace, {"metadata": {"name": "remit"}})
    await kube.create(Resource(RBAC, "v1", "roles"), namespace, role)
    await kube.create(Resource(RBAC, "v1", "rolebindings"), namespace, binding)
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    given = await kube.request("POST", accounts.path(namespace, "remit", "token"), body=asked)
    token = f"Bearer {given['status']['token']}"
    return replace(kube.access, token=token, cert_file=None, key_file=None, configuration=None)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    access, image = await Access.load(clusters.kubeconfig()), clusters.shop_image()
    namespace = f"remit-test-{uuid.uuid4().hex[:8]}"
    async with Kube(access) as kube:
        for crd in crds():
            await kube.apply(CRDS, None, crd["metadata"]["name"], crd, manager="remit-test", force=True)
        await kube.create(NAMESPACES, None, {"metadata": {"name": namespace}})
        settings = Settings(
            namespaces=(namespace,), operator_namespace=namespace, state_dir=tmp_path, leader_election=False
        )
        shop = Shop(kube, await _account(kube, namespace), settings, image)
        await _served(kube, namespace)
        policy = {
            "containers": {"operations": ["run"]},
            "images": {"allow": ["remit-test-shop:*"]},
            "environment": {"allow": ["VERSION", "GREETING", "SICK", "CRASH"]},
        }
        await kube.create(
            POLICIES,
            namespace,
            {
                "apiVersion": "remit.dev/v1alpha1",
                "kind": "CommandPolicy",
                "metadata": {"name": "shop"},
                "spec": policy,
            },
        )
        try:
            yield shop
        finally:
            await _unfinish(kube, namespace)
            await kube.delete(NAMESPACES, None, namespace)


async def _served(kube: Kube, namespace: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for resource in (POLICIES, DEPLOYMENTS):
            while True:
                with contextlib.suppress(ApiError):
                    await kube.list(resource, namespace)
                    break
                await asyncio.sleep(0.1)


async def _unfinish(kube: Kube, namespace: str) -> None:
    """Removes finalizers, because no operator is left to do it."""
    for each in await kube.list(DEPLOYMENTS, namespace):
        await kube.patch(DEPLOYMENTS, namespace, each["metadata"]["name"], {"metadata": {"finalizers": []}})


async def test_blue_green_and_back(shop: Shop) -> None:
    async with shop.operator():
        await shop.create("v1")
        await shop.live(1)
        await shop.eventually("v1")
        await shop.change("v2", strategy={"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 300}})
        await shop.until(lambda status: "AwaitingPromotion" in str(status.get("conditions")))
        await shop.eventually("v2", "shop-preview")
        assert await shop.answer() == "v1"
        await shop.ask("promote")
        await shop.live(2)
        await shop.eventually("v2")
        status = await shop.until(lambda status: status.get("report", {}).get("revision") == 2)
        assert status["report"]["requestsDuringSwitch"] > 20, "the probe goes on for a while"
        assert status["report"]["failedDuringSwitch"] == 0
        pods = {each["metadata"]["uid"] for each in await shop.kube.list(PODS, shop.namespace)}
        await shop.ask("rollback")
        status = await shop.until(lambda status: status.get("activeRevision") == 1)
        await shop.eventually("v1")
        # Within the delay a rollback only switches requests: no pod is new.
        assert {each["metadata"]["uid"] for each in await shop.kube.list(PODS, shop.namespace)} == pods
        assert status["phase"]


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_no_request_on_a_new_connection_is_lost_in_switches_and_rollbacks(shop: Shop) -> None:
    """Kept connections stay with their pod, so they may break when it ends. Their number is printed and not
    asserted."""
    strategy = {"blueGreen": {"scaleDownDelaySeconds": 600}}
    async with shop.operator():
        await shop.create("v1", replicas=1, strategy=strategy)
        await shop.promoted(1)
        await shop.eventually("v1")
        host = (await shop.kube.get(SERVICES, shop.namespace, "shop"))["spec"]["clusterIP"]
        async with load(80, "new", repetitions(150, soak=500), host) as new, load(80, "keep", 50, host) as kept:
            for number in range(2, SWITCHES + 2):
                await shop.change(f"v{number}", replicas=1, strategy=strategy)
                await shop.promoted(number)
            forward = time.monotonic()
            for number in (SWITCHES, SWITCHES + 1, SWITCHES - 1, SWITCHES + 1, SWITCHES - 1)[:ROLLBACKS]:
                await shop.ask(json.dumps({"rollback": {"revision": number}}))
                await shop.promoted(number)
            await shop.eventually(f"v{SWITCHES - 1}")
    switches = _overlaps([answer for answer in new.answers if answer.answered < forward])
    p50, p95 = switches[len(switches) // 2], switches[len(switches) * 95 // 100]
    print(f"{len(switches)} switches, from the first new answer to the last old one: p50 {p50:.3f} s, p95 {p95:.3f} s")
    print(f"new: {len(new.answers)} at {new.rate:.0f}/s, {len(new.failed)} failed")
    print(f"kept: {len(kept.answers)} at {kept.rate:.0f}/s, {len(kept.failed)} failed: {kept.failed[:3]}")
    assert new.failed == []
    assert len({answer.body for answer in new.answers}) == SWITCHES + 1


def _overlaps(answers: list[Answer]) -> list[float]:
    """Returns for how many seconds two versions answered at each change of version, sorted."""
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    for answer in answers:
        first[answer.body] = min(first.get(answer.body, answer.answered), answer.answered)
        last[answer.body] = answer.answered
    return sorted(
        max(0.0, last[old] - first[new]) for old, new in pairwise(sorted(first, key=lambda body: first[body]))
    )


async def test_what_fails_before_the_switch_leaves_the_old_one_serving(shop: Shop) -> None:
    for failing, reason, patient in (
        ({"artifact": {"image": "remit-test-shop:missing", "pullPolicy": "Never"}}, "ErrImageNeverPull", False),
        ({"variables": {"CRASH": "1"}}, "no database", True),
        ({"variables": {"SICK": "1"}}, "its health check fails", True),
    ):
        async with shop.operator():
            if not await shop.kube.list(DEPLOYMENTS, shop.namespace):
                await shop.create("v1")
                await shop.live(1)
            known = len((await shop.status())["history"])
            await shop.change("v2", progressDeadlineSeconds=600, **failing)
            if patient:  # it would continue until its deadline; an earlier deadline does not start a new release
                await shop.until(lambda status, reason=reason: reason in str(status.get("conditions")))
                sooner = {"spec": {"progressDeadlineSeconds": 1}}
                await shop.kube.patch(DEPLOYMENTS, shop.namespace, "shop", sooner)
            status = await shop.until(
                lambda status, known=known: (
                    len(status.get("history", ())) > known and truth(status, "Reconciling") == "False"
                )
            )
        assert (status["activeRevision"], status["history"][0]["outcome"]) == (1, "Failed"), status
        assert reason in str(status["conditions"]), status
        await shop.eventually("v1")


async def test_a_changed_secret_is_a_revision_and_a_rollback_brings_the_old_one_back(shop: Shop) -> None:
    def secret(value: str) -> Object:
        return {"metadata": {"name": "greeting"}, "stringData": {"text": value}}

    await shop.kube.create(SECRETS, shop.namespace, secret(" canary-one"))
    reference = {"name": "GREETING", "valueFrom": {"secretKeyRef": {"name": "greeting", "key": "text"}}}
    spec = {"env": [{"name": "VERSION", "value": "v1"}, reference]}
    spec["secrets"] = [{"name": "greeting", "mountPath": "/etc/greeting"}]
    async with shop.operator():
        await shop.create("v1", **spec)
        await shop.live(1)
        await shop.eventually("v1 canary-one")
        await shop.kube.patch(SECRETS, shop.namespace, "greeting", secret(" canary-two"))
        await shop.live(2)
        await shop.eventually("v1 canary-two")
    # Another operator has another disk: everything that a rollback needs is in the cluster.
    shop.settings = replace(shop.settings, state_dir=shop.settings.state_dir / "another")
    async with shop.operator():
        await shop.ask("rollback")
        await shop.until(lambda status: status.get("activeRevision") == 1)
        await shop.eventually("v1 canary-one")
    for resource in (WORKLOADS, PODS, REVISIONS, SERVICES, ENDPOINTS, DEPLOYMENTS):
        assert "canary" not in str(await shop.kube.list(resource, shop.namespace)), resource


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.soak  # the test always runs for the process target
async def test_while_the_operator_is_killed_at_every_stage(shop: Shop, tmp_path: Path) -> None:
    """A good version is released, and a faulty one is rolled back; no request on a new connection is lost."""
    await shop.kube.patch(POLICIES, shop.namespace, "shop", {"spec": HOOKS})

    async def settled() -> dict[str, Any]:
        async with shop.operator():
            return await shop.live(2)

    async with shop.operator():
        await shop.create("v1")
        await shop.live(1)
    await shop.eventually("v1")
    host = (await shop.kube.get(SERVICES, shop.namespace, "shop"))["spec"]["clusterIP"]
    async with (
        load(80, "new", 100, host) as clients,
        mortals(shop.kubeconfig(tmp_path), shop.settings.state_dir, shop.namespace) as operators,
    ):
        _, back = await killed_at_every_stage(operators, shop, settled)
        await shop.eventually("v2")
    assert back == ["RolledBack", "Promoted", "Promoted"]
    assert clients.failed == []
    tasks = await shop.kube.list(TASKS, shop.namespace)
    assert [len(task["status"]["attempts"]) for task in tasks] == [1] * 4, "two hooks of two releases, each once"


async def test_the_example_goes_live(shop: Shop) -> None:
    text = (MANIFESTS / "examples" / "18-release-kubernetes.yaml").read_text()
    for written, tried in {
        "nginxinc/nginx-unprivileged:1.29": f"{shop.image}\n    pullPolicy: Never",
        "nginxinc/nginx-unprivileged:1.*": "remit-test-shop:*",
    }.items():
        assert written in text
        text = text.replace(written, tried)
    async with shop.operator():
        for obj in yaml.safe_load_all(text):
            resource = {"CommandPolicy": POLICIES, "Deployment": DEPLOYMENTS}[obj["kind"]]
            await shop.kube.create(resource, shop.namespace, obj)
        await shop.until(lambda status: status.get("phase") == "Healthy", "website")


async def test_deleted_it_leaves_nothing(shop: Shop) -> None:
    async with shop.operator():
        await shop.create("v1")
        await shop.live(1)
        await shop.kube.delete(DEPLOYMENTS, shop.namespace, "shop")
        async with asyncio.timeout(PATIENCE):
            while await shop.kube.list(DEPLOYMENTS, shop.namespace):
                await asyncio.sleep(0.1)
        for resource in (WORKLOADS, SERVICES, REVISIONS):
            assert await shop.kube.list(resource, shop.namespace) == [], resource
        kept = await shop.kube.list(SECRETS, shop.namespace)
        assert [each["metadata"]["name"] for each in kept if "revision" in each["metadata"]["name"]] == []


async def test_objects_of_other_users_are_left_alone(shop: Shop) -> None:
    theirs = {"metadata": {"name": "shop"}, "spec": {"ports": [{"port": 80}], "selector": {"app": "theirs"}}}
    await shop.kube.create(SERVICES, shop.namespace, theirs)
    async with shop.operator():
        await shop.create("v1")
        status = await shop.until(lambda status: "NameTaken" in str(status))
        assert "services shop" in str(status)
        assert f"namespace {shop.namespace} is not Remit's" in str(status)
        found = await shop.kube.get(SERVICES, shop.namespace, "shop")
        assert found["spec"]["selector"] == {"app": "theirs"}
        await shop.kube.delete(SERVICES, shop.namespace, "shop")
        await shop.ask("retry")
        await shop.live(2)


async def test_a_side_that_was_taken_away_by_hand_comes_back(shop: Shop) -> None:
    async with shop.operator():
        await shop.create("v1")
        await shop.live(1)
        (workload,) = await shop.kube.list(WORKLOADS, shop.namespace)
        await shop.kube.delete(WORKLOADS, shop.namespace, workload["metadata"]["name"])
        await shop.until(lambda status: status.get("ready", "2/2") != "2/2")
        await shop.live(1)
        await shop.kube.delete(SERVICES, shop.namespace, "shop")
        await shop.eventually("v1")


async def test_a_canarys_share_is_a_share_of_the_pods(shop: Shop) -> None:
    async with shop.operator():
        await shop.create("v1", replicas=3)
        await shop.until(lambda status: status.get("ready") == "3/3")
        canary = {"type": "Canary", "blueGreen": None, "canary": {"steps": [{"weight": 25}, {"weight": 50}]}}
        await shop.change("v2", replicas=3, strategy=canary)
        for percent, serving in ((25, 1), (50, 3)):
            told = f"at {percent} %"
            await shop.until(lambda status, told=told: told in str(status.get("conditions")))
            ports = await shop.endpoints()
            assert (ports["v1"], ports["v2"]) == (3, serving)
            await shop.ask(json.dumps({"promote": {}, "id": f"from-{percent}"}))
        await shop.until(lambda status: status.get("activeRevision") == 2)
        await shop.eventually("v2")
