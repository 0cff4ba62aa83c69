"""Runs a scenario on each server and compares the responses."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, TypeVar

import aiohttp

from conformance.harness.client import CRDS, Answer, Api, Object
from conformance.harness.differences import DECLARED
from conformance.harness.normal import Relations, normal, request
from conformance.harness.points import FORTY
from conformance.harness.servers import Server
from conformance.harness.widget import WIDGET, in_group

Result = TypeVar("Result")
Scenario = Callable[[Api], Awaitable[None]]
SHOWN = 40
_ABSENT = "(absent)"


def conformance(
    *points: str, crds: Sequence[Object] = (), needs: str = ""
) -> Callable[[Scenario], Callable[[list[Server]], Awaitable[None]]]:
    """Makes a pytest test of a scenario.

    It runs against every server that there is, must hold on each, and must get the same answers from all of them.
    `points` are those of the forty that it shows. `crds` are there when it begins, in a group of its own; `needs` names
    a trait that a server must have to be asked.
    """
    unknown = set(points) - set(FORTY)
    assert not unknown, unknown

    def make(scenario: Scenario) -> Callable[[list[Server]], Awaitable[None]]:
        own = [in_group(crd, _group(scenario)) for crd in crds]

        async def test(contestants: list[Server]) -> None:
            asked = [server for server in contestants if not needs or needs in server.traits]
            transcripts = await both(*(_play(scenario, own, server) for server in asked))
            if len(transcripts) == 2:
                _compare(scenario.__name__, *transcripts)

        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        test.points = points  # type: ignore[attr-defined]
        test.crds = own  # type: ignore[attr-defined]
        return test

    return make


async def both(*contests: Awaitable[Result]) -> list[Result]:
    """Returns the results of all `contests`, which run concurrently. Raises after all have ended if one has failed."""
    results = await asyncio.gather(*contests, return_exceptions=True)
    failures = [result for result in results if isinstance(result, Exception)]
    if len(failures) > 1:
        raise ExceptionGroup("on both servers", failures)
    for failure in failures:
        raise failure
    return [result for result in results if not isinstance(result, BaseException)]


async def prepare(server: Server, crds: Iterable[Object]) -> None:
    """Installs the suite's CRDs, all at once, because a real server delays the first creates for two seconds after
    that."""
    async with _connect(server) as http:
        api = Api(server, http, namespace="default", group="")
        await api.install(WIDGET)
        # A CRD that is refused fails its own scenario, not all of them.
        await asyncio.gather(*(api.install(crd) for crd in crds), return_exceptions=True)


def _slug(scenario: Scenario) -> str:
    return re.sub(r"[^a-z0-9]+", "-", scenario.__name__.removeprefix("test_"))[:40].strip("-")


def _group(scenario: Scenario) -> str:
    return f"{_slug(scenario)}.example.com"


def _connect(server: Server) -> aiohttp.ClientSession:
    # Field managers are named after the User-Agent, so it must be the same for every server.
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=server.tls), headers={"User-Agent": "conformance/1.0"}
    )


async def _play(scenario: Scenario, crds: Sequence[Object], server: Server) -> list[Answer]:
    async with _connect(server) as http:
        api = Api(server, http, namespace=_slug(scenario), group=_group(scenario))
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace}}
        (await api.post("/api/v1/namespaces", namespace, record=False)).ok(201)
        try:
            for crd in crds:
                if (await api.get(f"{CRDS}/{crd['metadata']['name']}", record=False)).status == 404:
                    await api.install(crd)
            await scenario(api)
        except Exception as error:
            error.add_note(f"while playing against {server.name}")
            raise
        return api.transcript


def _compare(scenario: str, judge: list[Answer], candidate: list[Answer]) -> None:
    declared = [difference for difference in DECLARED if difference.scenario == scenario]
    seen = list(_differences(judge, candidate))
    wrong = [f"{where}\n    {values}" for where, values in seen if not any(d.covers(where) for d in declared)]
    stale = [d.where for d in declared if not any(d.covers(where) for where, _ in seen)]
    more = f"\n… and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    assert not wrong, f"{len(wrong)} undeclared differences:\n" + "\n".join(wrong[:SHOWN]) + more
    assert not stale, f"declared differences that are no longer there: {stale}"


def _differences(judge: list[Answer], candidate: list[Answer]) -> Iterator[tuple[str, str]]:
    relations = Relations(), Relations()
    for real, ours in zip_longest(judge, candidate):
        if real is None or ours is None or request(real) != request(ours):
            asked = [request(answer) if answer else "nothing" for answer in (real, ours)]
            yield "transcript", f"kube-apiserver was asked {asked[0]}, embedded {asked[1]}"
            return
        known = normal(real, relations[0]), normal(ours, relations[1])
        for path, theirs, our in _walk("", *known):
            yield f"{request(real)} {path}", f"kube-apiserver {theirs!r}, embedded {our!r}"


def _walk(path: str, real: Any, ours: Any) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(real, dict) and isinstance(ours, dict):
        for key in sorted(real.keys() | ours.keys()):
            yield from _walk(f"{path}.{key}".lstrip("."), real.get(key, _ABSENT), ours.get(key, _ABSENT))
    elif isinstance(real, list) and isinstance(ours, list) and len(real) == len(ours):
        for index, pair in enumerate(zip(real, ours, strict=True)):
            yield from _walk(f"{path}[{index}]", *pair)
    elif real != ours or type(real) is not type(ours):
        yield path, real, ours
