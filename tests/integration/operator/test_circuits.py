"""Tests that a host that fails repeatedly is not contacted for a while, and that this is visible in metrics."""

from __future__ import annotations

import pytest
from aiohttp import web
from prometheus_client.parser import text_string_to_metric_families

from remit.backends.breaker import FAILURES
from remit.controllers.operator import Operator
from webserver import answering

from .conftest import World

pytestmark = pytest.mark.no_cover


def seen(operator: Operator, name: str) -> float:
    """Returns the value of a metric of the HTTP operation."""
    families = text_string_to_metric_families(operator.metrics.render()[0].decode())
    samples = [sample for family in families for sample in family.samples if sample.name == name]
    return next(sample.value for sample in samples if sample.labels["operation"] == "http")


async def test_a_circuit_is_seen_in_the_metrics(world: World) -> None:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=503)

    async with answering(answer) as port, world.operator() as operator:
        await world.policy(http={"allow": [{"hosts": ["127.0.0.1"], "ports": [port], "addresses": ["127.0.0.0/8"]}]})
        reasons = []
        for number in range(FAILURES + 1):
            assert seen(operator, "remit_circuits_open") == (number == FAILURES)
            status = await world.finished(await world.task(http={"url": f"http://127.0.0.1:{port}/"}))
            reasons.append(status["attempts"][0]["reason"])
        assert reasons == ["UnexpectedStatus"] * FAILURES + ["CircuitOpen"]
        assert seen(operator, "remit_circuit_trips_total") == 1
