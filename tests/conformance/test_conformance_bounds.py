"""Tests input that is far too large or not text: numbers, warnings, tokens and encodings."""

from __future__ import annotations

import base64
import gzip
import json

from conformance.harness import points
from conformance.harness.client import Api
from conformance.harness.play import conformance
from conformance.harness.widget import configmap


def token(**fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps({"v": "meta.k8s.io/v1", **fields}).encode()).decode().rstrip("=")


@conformance(points.PAGES)
async def test_numbers_beyond_64_bits(api: Api) -> None:
    (await api.post(api.configmaps, configmap("a"))).ok(201)
    for limit in ("9223372036854775808", "100000000000000000000", "9" * 5000, "1_0", "٣"):
        (await api.get(api.configmaps, limit=limit, view=None)).refused(400, "BadRequest", "strconv.ParseInt")
    (await api.get(api.configmaps, limit="9223372036854775807")).ok()
    (await api.get(api.configmaps, limit=1, timeoutSeconds="9" * 20, view=None)).refused(400, "BadRequest", "range")
    for version in ("18446744073709551616", "9" * 5000):
        (await api.get(api.configmaps, resourceVersion=version, view=None)).refused(400, "BadRequest", "out of range")


@conformance(points.PAGES)
async def test_tokens_that_no_server_gave(api: Api) -> None:
    (await api.post(api.configmaps, configmap("a"))).ok(201)
    for fields in ({"rv": 1 << 63}, {"rv": 1 << 64}, {"rv": 0}, {"rv": "x"}, {"rv": 1.5}, {"rv": True}, {"rv": None}):
        answer = await api.get(api.configmaps, limit=1, view=None, **{"continue": token(start="a\0", **fields)})
        answer.refused(400, "BadRequest", "continue key is not valid")
    for wrong in (token(rv=1, start=5), "abc", "a" * 5000, base64.urlsafe_b64encode(b'"x"').decode()):
        answer = await api.get(api.configmaps, limit=1, view=None, **{"continue": wrong})
        answer.refused(400, "BadRequest", "continue key is not valid")


@conformance(points.FIELD_VALIDATION)
async def test_warnings_are_bounded(api: Api) -> None:
    odd = {"a\rb": 1, "c\0d": 2, "e\nf\t": 3, "é\u200b": 1, 'q"\\': 1, "\U0001f600": 2, "\x7f": 1, "\ufeff": 1}
    answer = await api.post(api.configmaps, configmap("a") | odd, fieldValidation="Warn")
    assert (answer.status, len(answer.warnings)) == (201, len(odd))
    many = {f"unknown{number}": number for number in range(20_000)}
    answer = await api.post(api.configmaps, configmap("many") | many, fieldValidation="Warn")
    assert (answer.status, len(answer.warnings)) == (201, 100)
    strict = await api.post(api.configmaps, configmap("strict") | many, fieldValidation="Strict")
    strict.refused(400, "BadRequest", "unknown99")
    for name, fields in (("long", {f"unknown{number:060}": 1 for number in range(100)}), ("huge", {"x" * 5000: 1})):
        answer = await api.post(api.configmaps, configmap(name) | fields, fieldValidation="Warn")
        assert answer.status == 201
        assert sum(map(len, answer.warnings)) < 6000


@conformance(points.CONTENT_TYPES)
async def test_an_encoding_of_the_body_is_not_undone(api: Api) -> None:
    packed = gzip.compress(json.dumps(configmap("a")).encode(), mtime=0)
    for body in (packed, b"\x1f\x8bbroken"):
        answer = await api.post(api.configmaps, body, headers={"Content-Encoding": "gzip"}, view=None)
        answer.refused(400, "BadRequest", "unrecognized")
    for encoding in ("gzip", "br", "nonsense"):
        answer = await api.post(api.configmaps, configmap(encoding), headers={"Content-Encoding": encoding})
        answer.ok(201)
