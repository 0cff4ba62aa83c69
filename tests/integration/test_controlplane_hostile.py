"""Tests malicious bodies: each is refused, and the server continues."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from pathlib import Path

import pytest

from controlplanes import CONFIGMAPS, PATIENCE, WIDGETS_CRD, Client, client_of, configmap
from remit.controlplane.server import ControlPlane

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        yield client


def nested(levels: int) -> bytes:
    head = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"deep"},"data":'
    return head + b'{"a":' * levels + b"1" + b"}" * levels + b"}"


@pytest.mark.parametrize(
    "body",
    [
        *(pytest.param(nested(levels), id=f"{levels} levels") for levels in (100, 300, 1_100, 100_000)),
        pytest.param(
            b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"a":1e999}}', id="infinity"
        ),
        pytest.param(b"\xff\xfe\x00", id="no text"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="a list"),
        pytest.param(b'"text"', id="a string"),
        pytest.param(b"{" * 100_000, id="open braces"),
        pytest.param(b"[" * 100_000, id="open brackets"),
        pytest.param(b"k8s\x00" + b"\xff" * 1000, id="protobuf that is none"),
    ],
)
async def test_a_body_that_cannot_be_an_object_is_refused(client: Client, body: bytes) -> None:
    for path in (CONFIGMAPS, CRDS):
        status, _ = await client.call("POST", path, body)
        assert 400 <= status < 500
    await client.create(CONFIGMAPS, configmap("alive"))


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghi")
)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(BOMB, id="aliases of aliases"),
        pytest.param("[" * 100_000, id="open brackets"),
        pytest.param("- " * 100_000 + "x", id="dashes"),
        pytest.param(f"[{'1,' * 400_000}]", id="400,000 values"),
        pytest.param("a: " + "9" * 5_000, id="an integer of 5,000 digits"),
    ],
)
async def test_yaml_that_costs_too_much_is_refused(client: Client, body: str) -> None:
    await client.create(CONFIGMAPS, configmap("alive"))
    for method, path, media in (
        ("POST", CONFIGMAPS, "application/yaml"),
        ("POST", CRDS, "application/yaml"),
        ("PUT", f"{CONFIGMAPS}/alive", "application/yaml"),
        ("PATCH", f"{CONFIGMAPS}/alive", "application/apply-patch+yaml"),
        ("DELETE", f"{CONFIGMAPS}/alive", "application/yaml"),
    ):
        status, answer = await client.call(method, path, body.encode(), type=media, fieldManager="tests")
        assert (status, answer["reason"]) == (400, "BadRequest"), (method, path)
    await client.get(f"{CONFIGMAPS}/alive")


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"a\r\nX-Injected: b": 1, "c\x00d": 2, "é": 3}, id="control characters"),
        pytest.param({f"field{number}": number for number in range(20_000)}, id="20,000 fields"),
        pytest.param({"x" * 100_000: 1}, id="a long name"),
    ],
)
async def test_warnings_about_unknown_fields_are_a_well_formed_header(client: Client, fields: dict[str, int]) -> None:
    url = f"{client.url}{CONFIGMAPS}?fieldValidation=Warn"
    async with client.session.post(url, json={**configmap("a"), **fields}) as answer:
        assert answer.status == 201
        header = answer.headers["Warning"]
    assert header.startswith('299 - "unknown field ') and len(header) < 8_000 and "X-Injected" not in answer.headers


async def test_a_deep_object_that_a_schema_lets_through_is_refused(client: Client) -> None:
    crd = {**WIDGETS_CRD, "spec": {**WIDGETS_CRD["spec"]}}
    (version,) = crd["spec"]["versions"]
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    crd["spec"]["versions"] = [{**version, "schema": schema, "additionalPrinterColumns": []}]
    await client.create(CRDS, crd)
    async with asyncio.timeout(PATIENCE):
        while (await client.call("GET", "/apis/example.dev/v1/widgets"))[0] != 200:
            await asyncio.sleep(0.02)
    body = nested(300).replace(b'"v1"', b'"example.dev/v1"').replace(b"ConfigMap", b"Widget")
    status, answer = await client.call("POST", "/apis/example.dev/v1/namespaces/default/widgets", body)
    assert status == 400
    assert "nested deeper" in answer["message"]


async def test_no_client_is_served_as_another_user(client: Client) -> None:
    for header in ("Impersonate-User", "impersonate-group", "Impersonate-Uid", "Impersonate-Extra-Team"):
        async with client.session.get(f"{client.url}{CONFIGMAPS}", headers={header: "bob"}) as answer:
            refusal = await answer.json()
        assert (answer.status, refusal["reason"]) == (403, "Forbidden")
        assert "leave out --as" in refusal["message"]
