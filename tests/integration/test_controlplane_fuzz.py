"""Sends real objects, CRDs, patches and options with random changes: no request causes a server error or breaks a later
one.

No request blocks the event loop, which server and client share, and a restarted server gives the same responses. 600
requests are sent, and 20,000 by `make soak`.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from controlplanes import CONFIGMAPS, CRDS, WIDGETS, WIDGETS_CRD, Client, configmap, widget
from crdcorpus import gadgets_crd, remit_crds, small_crd
from fuzzing import answers, as_json, fuzzed, is_expected
from loopwatch import watch_loop
from mutations import JUNK, mutate
from support import repetitions

REQUESTS = repetitions(600, soak=20_000)
BATCH = 20

OWNER = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u", "controller": True}
MANAGED = {
    "manager": "m",
    "operation": "Update",
    "apiVersion": "v1",
    "fieldsType": "FieldsV1",
    "fieldsV1": {"f:data": {}},
}


def rich(obj: dict[str, Any]) -> dict[str, Any]:
    """Adds everything that metadata can contain."""
    more = {
        "labels": {"a": "b"},
        "annotations": {"a": "b"},
        "finalizers": ["example.dev/f"],
        "ownerReferences": [OWNER],
        "managedFields": [MANAGED],
    }
    return {**obj, "metadata": {**obj["metadata"], **more}}


def gadget(version: str) -> dict[str, Any]:
    spec = {
        "size": 2,
        "share": 0.5,
        "port": "http",
        "when": "2026-01-01T00:00:00Z",
        "name": "b",
        "set": ["a", "b"],
        "rows": [{"key": "a"}, {"key": "b", "value": "w"}],
        "map": {"a": 1},
        "atomic": {"a": "b"},
        "anything": {"a": [{}]},
        "template": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}},
    }
    return {"apiVersion": f"example.dev/{version}", "kind": "Gadget", "metadata": {"name": "a"}, "spec": spec}


NAMESPACED = "/apis/{}/namespaces/default/{}"
EVENTS = "/api/v1/namespaces/default/events"
LEASES = NAMESPACED.format("coordination.k8s.io/v1", "leases")
REVISIONS = NAMESPACED.format("apps/v1", "controllerrevisions")
SECRETS = "/api/v1/namespaces/default/secrets"
ABOUT = {"kind": "ConfigMap", "namespace": "default", "name": "a"}
NOW = "2026-01-01T00:00:00.000000Z"
SEEDS: list[tuple[str, dict[str, Any]]] = [
    (CONFIGMAPS, rich(configmap("a"))),
    (CONFIGMAPS, configmap("a")),
    (
        SECRETS,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "a"},
            "data": {"a": "YQ=="},
            "stringData": {"b": "c"},
        },
    ),
    (
        "/api/v1/namespaces",
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": "a"},
            "spec": {"finalizers": ["kubernetes"]},
            "status": {"phase": "Active", "conditions": [{"type": "A", "status": "True"}]},
        },
    ),
    (
        EVENTS,
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "a"},
            "involvedObject": ABOUT,
            "reason": "A",
            "count": 1,
            "eventTime": NOW,
            "lastTimestamp": "2026-01-01T00:00:00Z",
            "series": {"count": 1, "lastObservedTime": NOW},
            "source": {"component": "c", "host": "h"},
        },
    ),
    (
        NAMESPACED.format("events.k8s.io/v1", "events"),
        {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": "b"},
            "regarding": ABOUT,
            "reason": "A",
            "eventTime": NOW,
        },
    ),
    (
        LEASES,
        {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "a"},
            "spec": {"holderIdentity": "h", "leaseDurationSeconds": 15, "renewTime": NOW},
        },
    ),
    (
        REVISIONS,
        {
            "apiVersion": "apps/v1",
            "kind": "ControllerRevision",
            "metadata": {"name": "a"},
            "data": {"a": [1]},
            "revision": 1,
        },
    ),
    (WIDGETS, rich(widget("a", size=2))),
    (WIDGETS, widget("a")),
    *((NAMESPACED.format(f"example.dev/{version}", "gadgets"), gadget(version)) for version in ("v1", "v2")),
    (CRDS, rich(gadgets_crd())),
    (CRDS, gadgets_crd()),
    (CRDS, small_crd("gizmo")),
    (CRDS, WIDGETS_CRD),
]


def json_patch(rng: random.Random, document: Any) -> list[Any]:
    paths = [
        "",
        "/metadata",
        "/metadata/labels",
        "/metadata/finalizers/-",
        "/data/a",
        "/spec/size",
        "/spec",
        "/a/b",
        "/kind",
    ]
    ops = [
        {
            "op": rng.choice(["add", "remove", "replace", "move", "copy", "test"]),
            "path": rng.choice(paths),
            "from": rng.choice(paths),
            "value": copy.deepcopy(rng.choice([document, *JUNK])),
        }
        for _ in range(rng.randint(1, 4))
    ]
    return mutate(rng, ops, rng.randint(0, 2))


class Asked(NamedTuple):
    method: str
    path: str
    data: bytes
    media: str
    query: dict[str, str]


def make_request(rng: random.Random) -> Asked:
    collection, seed = rng.choice(SEEDS) if rng.random() > 0.02 else (CRDS, rng.choice(remit_crds()))
    name = rng.choice([seed["metadata"]["name"]] * 3 + ["b"]) if collection != CRDS else seed["metadata"]["name"]
    named = {**seed, "metadata": {**seed["metadata"], "name": name}}
    body = mutate(rng, named, rng.choice([0, 1, 1, 1, 1, 2, 3]))
    path = f"{collection}/{name}" + rng.choice(["", "", "", "/status", "/scale"])
    query = {"fieldManager": rng.choice(["fuzz", "other"])}
    if rng.random() < 0.4:
        query["fieldValidation"] = rng.choice(["Strict", "Ignore", "Warn"])
    if rng.random() < 0.2:
        query["dryRun"] = "All"
    media, data = "application/json", as_json(body)
    # Deleting a CRD also deletes its objects.
    match rng.randrange(9 if collection == CRDS and rng.random() < 0.95 else 10):
        case 0 | 1 | 2:
            method, path = "POST", collection
            if rng.random() < 0.3:
                media, data = "application/yaml", yaml.dump(body, Dumper=yaml.CSafeDumper).encode()
        case 3 | 4:
            method = "PUT"
        case 5:
            method, media = "PATCH", "application/merge-patch+json"
        case 6:
            method, media = "PATCH", "application/strategic-merge-patch+json"
        case 7:
            method, media, data = "PATCH", "application/json-patch+json", as_json(json_patch(rng, seed))
        case 8:
            method, media = "PATCH", "application/apply-patch+yaml"
            query["force"] = rng.choice(["true", "false"])
        case _:
            method = "DELETE"
            options = {
                "propagationPolicy": "Background",
                "preconditions": {"uid": "u"},
                "dryRun": ["All"],
                "orphanDependents": True,
            }
            data = as_json(mutate(rng, rng.choice([{}, {}, options]), rng.randint(0, 4)))
    return Asked(method, path, data, media, query)


async def send(rng: random.Random, client: Client) -> tuple[Asked, int, Any]:
    """Sends a request and returns the response. It runs in a thread, because the event loop is measured."""
    asked = await asyncio.to_thread(make_request, rng)
    status, answer = await client.call(asked.method, asked.path, asked.data, type=asked.media, **asked.query)
    return asked, status, answer


async def look(rng: random.Random, client: Client) -> tuple[str, int, str]:
    """Sends a read in one of the forms that a response can have."""
    collection, seed = rng.choice(SEEDS)
    path = collection + rng.choice(["", "", f"/{seed['metadata']['name']}", f"/{seed['metadata']['name']}/scale"])
    forms = ["as=Table;g=meta.k8s.io;v=v1", "as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", "q=1"]
    accept = rng.choice([f"application/json;{form}" for form in forms] + ["application/yaml"])
    query = rng.choice(
        [
            {},
            {"includeObject": "Object"},
            {"fieldSelector": "metadata.name=a"},
            {"labelSelector": "a=b"},
            {"limit": "1"},
            {"fieldSelector": "spec.size=2"},
            {"fieldSelector": "reason=A"},
        ]
    )
    async with client.session.get(client.url + path, params=query, headers={"Accept": accept}) as answer:
        return f"GET {path} {accept} {query}", answer.status, (await answer.read()).decode()


def test_no_request_breaks_the_server(tmp_path: Path) -> None:
    with asyncio.Runner() as runner:
        run: Callable[[Any], Any] = runner.run
        serving = fuzzed(tmp_path)
        client = run(serving.__aenter__())
        for crd in (WIDGETS_CRD, gadgets_crd()):
            run(client.create(CRDS, crd))

        async def batch(rng: random.Random) -> None:
            for _ in range(BATCH):
                asked, status, answer = await send(rng, client)
                assert is_expected(status, answer), (asked._replace(data=asked.data[:2000]), status, answer)
                read, status, text = await look(rng, client)
                assert is_expected(status, text), (read, status, text[:2000])
            await client.get("/readyz")
            for path in (CRDS, CONFIGMAPS, WIDGETS):
                status, answer = await client.call("GET", path)
                assert status == 200 or path == WIDGETS, (path, status, answer)

        @settings(
            max_examples=max(1, REQUESTS // BATCH),
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(min_value=0, max_value=2**64))
        def fuzz(seed: int) -> None:
            run(batch(random.Random(seed)))

        with capture_logs() as logs, watch_loop() as watch:
            try:
                fuzz()
                before = run(answers(client))
            finally:
                run(serving.__aexit__(None, None, None))
        assert not [entry for entry in logs if entry["log_level"] == "error"], logs[:3]

        watch.assert_no_stall()

        serving = fuzzed(tmp_path)
        with capture_logs() as logs:
            client = run(serving.__aenter__())
            try:
                after = run(answers(client))
            finally:
                run(serving.__aexit__(None, None, None))
        assert not [entry for entry in logs if entry["log_level"] == "error"], logs[:3]
        assert after == before
