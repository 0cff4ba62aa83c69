"""Sends requests that Schemathesis generates from the served OpenAPI documents: none causes a server error.

Responses with status 200 match the document. 40 requests are sent, and 20,000 by `make soak`.
"""

from __future__ import annotations

import asyncio
import random
import urllib.parse
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import response_schema_conformance
from structlog.testing import capture_logs

from controlplanes import CRDS, Client
from crdcorpus import gadgets_crd, remit_crds
from fuzzing import fuzzed, is_expected
from loopwatch import watch_loop
from support import repetitions

REQUESTS = repetitions(40, 20_000)
_HELD_BACK = ("Accept-Encoding", "Connection", "User-Agent")


async def documents(client: Client) -> list[dict[str, Any]]:
    index = (await client.get("/openapi/v3"))["paths"]
    return [await client.get(known["serverRelativeURL"]) for known in index.values()]


def operations(documents: list[dict[str, Any]]) -> list[Any]:
    """Returns the operations of all documents. A document that Schemathesis cannot read is a failure."""
    return [found.ok() for each in documents for found in schemathesis.openapi.from_dict(each).get_all_operations()]


async def send(client: Client, case: Any, rng: random.Random) -> tuple[int, Any]:
    """Sends the case, mostly for objects that exist."""
    if rng.random() < 0.9:
        for name, there in (("namespace", "default"), ("name", rng.choice(["a", "default", "gadgets.example.dev"]))):
            if name in case.path_parameters:
                case.path_parameters[name] = there
    wanted = case.as_transport_kwargs(base_url=client.url)
    headers = {name: value for name, value in wanted["headers"].items() if name not in _HELD_BACK}
    body = {"json": wanted["json"]} if "json" in wanted else {"data": wanted.get("data")}
    query = urllib.parse.urlencode(wanted.get("params") or {}, doseq=True)
    url = f"{wanted['url']}?{query}"
    async with client.session.request(wanted["method"], url, headers=headers, **body) as answer:
        content = await answer.read()
        held = {name: answer.headers.getall(name) for name in answer.headers}
        about = requests.Request(wanted["method"], wanted["url"]).prepare()
        return answer.status, schemathesis.Response(answer.status, held, content, about, 0.1, True)


def test_no_request_of_the_documents_breaks_the_server(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    with asyncio.Runner() as runner:
        run: Callable[[Any], Any] = runner.run
        serving = fuzzed(tmp_path)
        client = run(serving.__aenter__())
        for crd in (gadgets_crd(), *remit_crds()):
            run(client.create(CRDS, crd))
        known = operations(run(documents(client)))
        assert {each.method for each in known} == {"get", "post", "put", "patch", "delete"}
        statuses: Counter[int] = Counter()

        @settings(
            max_examples=REQUESTS,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.sampled_from(known).flatmap(lambda operation: operation.as_strategy()), st.randoms())
        def fuzz(case: Any, rng: random.Random) -> None:
            status, answer = run(send(client, case, rng))
            statuses[status] += 1
            assert is_expected(status, answer.text), (case, status, answer.text[:2000])
            if status == 200:
                case.validate_response(answer, checks=[response_schema_conformance])

        with capture_logs() as logs, watch_loop() as watch:
            try:
                fuzz()
            finally:
                run(serving.__aexit__(None, None, None))
                record_property("statuses", dict(statuses))
        print(statuses, watch)
        assert not [entry for entry in logs if entry["log_level"] == "error"], logs[:3]
        watch.assert_no_stall()
