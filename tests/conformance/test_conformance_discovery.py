"""Tests how clients find out what exists: discovery, OpenAPI, versions, health, and paths that do not exist."""

from __future__ import annotations

from typing import Any

from conformance.harness import points
from conformance.harness.client import JSON, Api
from conformance.harness.play import conformance
from conformance.harness.widget import crd, spec_schema

GROUP = "conformance.example.com"
OURS = {"namespaces", "namespaces/status", "namespaces/finalize", "configmaps", "secrets", "events"}
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"
OPENAPI_V2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"


def only(key: str, field: str, names: set[str]) -> Any:
    """Returns a view of the entries of list `key` whose `field` is one of `names`, without their storage hash."""

    def view(body: Any) -> Any:
        chosen = [entry for entry in body[key] if entry[field] in names]
        known = [{k: v for k, v in entry.items() if k != "storageVersionHash"} for entry in chosen]
        return sorted(known, key=lambda entry: str(entry[field]))

    return view


@conformance(points.DISCOVERY)
async def test_plain_discovery(api: Api) -> None:
    assert (await api.get("/api", view=lambda body: (body["kind"], body["versions"]))).ok()["versions"] == ["v1"]
    groups = (await api.get("/apis", view=only("groups", "name", {GROUP, "apiextensions.k8s.io"}))).ok()
    assert groups["kind"] == "APIGroupList" and GROUP in {group["name"] for group in groups["groups"]}
    assert (await api.get(f"/apis/{GROUP}")).ok()["preferredVersion"]["version"] == "v1"
    resources = {r["name"]: r for r in (await api.get(f"/apis/{GROUP}/v1")).ok()["resources"]}
    assert resources.keys() == {"widgets", "widgets/status", "widgets/scale"}
    assert resources["widgets"]["shortNames"] == ["wi"] and resources["widgets"]["categories"] == ["conformance"]
    core = (await api.get("/api/v1", view=only("resources", "name", OURS))).ok()
    assert {"namespaces", "configmaps", "secrets", "events"} <= {r["name"] for r in core["resources"]}
    for group, kinds in {
        "apiextensions.k8s.io/v1": {"customresourcedefinitions"},
        "coordination.k8s.io/v1": {"leases"},
        "apps/v1": {"controllerrevisions"},
        "authorization.k8s.io/v1": {"selfsubjectaccessreviews"},
        "events.k8s.io/v1": {"events"},
    }.items():
        listed = (await api.get(f"/apis/{group}", view=only("resources", "name", kinds))).ok()
        assert kinds <= {r["name"] for r in listed["resources"]}, group


@conformance(points.DISCOVERY)
async def test_aggregated_discovery(api: Api) -> None:
    def ours(body: Any) -> Any:
        kept = [item for item in body["items"] if item["metadata"].get("name") == GROUP]
        return [{**item, "metadata": {"name": GROUP}} for item in kept]

    asked = AGGREGATED.format(version="v2")
    answer = await api.get("/apis", accept=f"{asked},{JSON}", view=ours)
    assert answer.ok()["kind"] == "APIGroupDiscoveryList"
    assert "v=v2" in answer.header("Content-Type") and "as=APIGroupDiscoveryList" in answer.header("Content-Type")
    group = next(item for item in answer.body["items"] if item["metadata"]["name"] == GROUP)
    found = next(r for r in group["versions"][0]["resources"] if r["resource"] == "widgets")
    assert {s["subresource"] for s in found["subresources"]} == {"status", "scale"}
    core = await api.get("/api", accept=asked, view=None)
    assert core.ok()["items"][0]["versions"][0]["version"] == "v1"
    both = f"{AGGREGATED.format(version='v2')},{AGGREGATED.format(version='v2beta1')},{JSON}"
    assert "v=v2;" in (await api.get("/apis", accept=both, view=None)).header("Content-Type") + ";"


@conformance(points.DISCOVERY, needs="old-discovery")
async def test_aggregated_discovery_of_old(api: Api) -> None:
    """kubectl before 1.30 asks for v2beta1 and accepts nothing else."""
    asked = AGGREGATED.format(version="v2beta1")
    for path in ("/api", "/apis"):
        answer = await api.get(path, accept=f"{asked},{JSON}", view=None)
        assert answer.ok()["apiVersion"] == "apidiscovery.k8s.io/v2beta1"
        assert "v=v2beta1" in answer.header("Content-Type")


@conformance(points.UNKNOWN_PATHS)
async def test_unknown_paths(api: Api) -> None:
    for path in (
        "/nothing",
        "/apis/nothing.example.com",
        "/apis/nothing.example.com/v1",
        "/apis/nothing.example.com/v1/things",
        f"/apis/{GROUP}/v9",
        f"/apis/{GROUP}/v9/widgets",
        f"/apis/{GROUP}/v1/gadgets",
        f"/apis/{GROUP}/v1/namespaces/{api.namespace}/gadgets/a",
    ):
        answer = await api.get(path)
        assert answer.status == 404 and answer.raw == b"404 page not found\n", path
        assert answer.header("Content-Type") == "text/plain; charset=utf-8", path
    for path in ("/api/v2", "/api/v1/nothing", f"/api/v1/namespaces/{api.namespace}/nothing", "/apis/apps/v1/nothing"):
        assert (await api.get(path)).status == 404, path


@conformance()
async def test_health_and_version(api: Api) -> None:
    for path in ("/healthz", "/livez", "/readyz"):
        answer = await api.get(path)
        assert answer.ok() == "ok" and answer.header("Content-Type").startswith("text/plain")
    version = (await api.get("/version", view=None)).ok()
    assert version["major"] == "1" and version["gitVersion"].startswith("v1.")
    paths = (await api.get("/", view=None)).ok()["paths"]
    assert {"/api", "/apis", "/openapi/v3", "/version", "/healthz"} <= set(paths)


@conformance(points.OPENAPI, crds=[crd("Paper", spec_schema(title={"type": "string", "description": "Its title."}))])
async def test_openapi_v3(api: Api) -> None:
    """`kubectl explain` and client-side validation read this document."""
    index = (await api.get("/openapi/v3", view=lambda body: list(body))).ok()["paths"]
    assert {f"apis/{GROUP}/v1", "api/v1"} <= index.keys()
    url = f"apis/{api.group}/v1"
    await api.eventually("/openapi/v3", lambda answer: url in answer.body["paths"], view=None)

    async def address() -> str:
        body = (await api.get("/openapi/v3", record=False)).ok()
        return str(body["paths"][url]["serverRelativeURL"])

    before = await address()
    path, _, digest = before.partition("?hash=")
    assert path == f"/openapi/v3/{url}" and digest

    def schema(body: Any) -> Any:
        found = whole(body)
        return {
            "spec": found["properties"]["spec"],
            "type": found["type"],
            **{k: v for k, v in found.items() if k[0] == "x"},
        }

    def whole(body: Any) -> Any:
        return next(s for s in body["components"]["schemas"].values() if s.get("properties", {}).get("spec"))

    document = (await api.get(path, hash=digest, view=schema)).ok()
    assert document["openapi"].startswith("3.0")
    found = whole(document)
    assert found["x-kubernetes-group-version-kind"] == [{"group": api.group, "kind": "Paper", "version": "v1"}]
    assert found["properties"]["spec"]["properties"]["title"]["description"] == "Its title."
    paths = f"/apis/{api.group}/v1/namespaces/{{namespace}}/papers/{{name}}"
    assert paths in document["paths"]
    name = f"papers.{api.group}"
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    where = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/description"
    (await api.json_patch(f"{crds}/{name}", {"op": "add", "path": where, "value": "New."}, view=None)).ok()

    async def changed() -> bool:
        return await address() != before

    await api.until(changed)


@conformance(points.OPENAPI)
async def test_openapi_verbs_declare_their_parameters(api: Api) -> None:
    """kubectl reads here whether a PATCH supports fieldValidation and dryRun before it sends either."""
    document = (await api.get(f"/openapi/v3/apis/{GROUP}/v1", view=None)).ok()
    item = document["paths"][f"/apis/{GROUP}/v1/namespaces/{{namespace}}/widgets/{{name}}"]
    parameters = {p.get("name") for p in item["patch"]["parameters"]}
    assert {"fieldValidation", "dryRun", "fieldManager", "force"} <= parameters
    patches = {f"application/{name}" for name in ("json-patch+json", "merge-patch+json", "apply-patch+yaml")}
    assert patches <= item["patch"]["requestBody"]["content"].keys()
    assert "application/json" not in item["patch"]["requestBody"]["content"]
    kind = item["patch"]["x-kubernetes-group-version-kind"]
    assert kind == {"group": GROUP, "kind": "Widget", "version": "v1"}


@conformance(points.OPENAPI)
async def test_openapi_v2_is_protobuf_when_asked(api: Api) -> None:
    """kubectl 1.27 validates with this document and requires it."""
    answer = await api.get("/openapi/v2", accept=OPENAPI_V2, view=None)
    assert answer.status == 200 and "protobuf" in answer.header("Content-Type")
