"""Sends CRDs in the shapes of public ones with random changes, and their objects: none causes a server error or breaks
another.

They are our own, those that Hypothesis generates (`crdshapes.py`), and those of the folder that REMIT_CRD_CORPUS names.
For each accepted CRD, objects are created, replaced, patched in every way, applied, scaled, listed and watched. No turn
of the event loop, which server and client share, takes long, and a restarted server gives the same responses.

200 requests are sent, and 100,000 by `make soak`. REMIT_FUZZ_REQUESTS overrides the number.
"""

from __future__ import annotations

import asyncio
import gc
import io
import json
import os
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from controlplanes import CRDS, Client
from crdcorpus import gadgets_crd, public_crds, remit_crds
from crdmutations import copied, mutate_crd
from crdobjects import object_of
from crdshapes import Seed, seeds
from fuzzing import answers, as_json, fuzzed, is_expected
from loopwatch import watch_loop
from mutations import JUNK, mutate
from support import repetitions

REQUESTS = int(os.environ.get("REMIT_FUZZ_REQUESTS", repetitions(200, 100_000)))
MOST_CRDS = 30
"""Number of CRDs that are kept at a time. With more, requests that list everything take most of the time."""
_TABLE = "application/json;as=Table;g=meta.k8s.io;v=v1"


def renamed(crd: dict[str, Any], group: str) -> dict[str, Any]:
    """Returns the CRD in a separate group, so that it does not conflict with others."""
    name = f"{crd['spec']['names']['plural']}.{group}"
    return {**crd, "metadata": {**crd["metadata"], "name": name}, "spec": {**crd["spec"], "group": group}}


@dataclass
class Fuzzer:
    """Sends requests, and fails at the first response that a server without bugs would not give."""

    client: Client
    statuses: Counter[int] = field(default_factory=Counter)
    kept: list[str] = field(default_factory=list)
    """Names of existing CRDs, oldest first."""

    async def send(
        self, method: str, path: str, body: Any = None, media: str = "application/json", **query: str
    ) -> Any:
        data = None if body is None else await asyncio.to_thread(as_json, body)
        headers = {"Accept": query.pop("accept", "application/json")} | ({"Content-Type": media} if data else {})
        url = self.client.url + path
        async with self.client.session.request(
            method, url, data=data and io.BytesIO(data), params=query, headers=headers
        ) as answer:
            text = (await answer.read()).decode()
            status = answer.status
        self.statuses[status] += 1
        assert is_expected(status, text), (method, path, media, query, (data or b"")[:20_000], status, text[:2000])
        return status, json.loads(text) if text[:1] == "{" and len(text) < 100_000 else {}

    async def play(self, rng: random.Random, seed: dict[str, Any]) -> None:
        """Creates, changes and deletes one CRD and some of its objects."""
        named = renamed(seed, f"g{rng.randrange(10_000)}.example.dev")
        crd = await asyncio.to_thread(mutate_crd, rng, named, rng.choice([0, 0, 1, 1, 2, 4]))
        status, _ = await self.send("POST", CRDS, crd, fieldValidation=rng.choice(["Strict", "Ignore", "Warn"]))
        if status != 201:
            return
        name = crd["metadata"]["name"]
        self.kept.append(name)
        for version in crd["spec"]["versions"]:
            if version["served"]:
                await self.use(rng, crd, version)
        changed = await asyncio.to_thread(mutate_crd, rng, crd, rng.choice([1, 2]))
        media = rng.choice(["application/merge-patch+json", "application/apply-patch+yaml"])
        await self.send("PATCH", f"{CRDS}/{name}", changed, media, fieldManager="fuzz")
        if len(self.kept) > MOST_CRDS or rng.random() < 0.3:
            await self.send("DELETE", f"{CRDS}/{self.kept.pop(0)}")

    async def use(self, rng: random.Random, crd: dict[str, Any], version: dict[str, Any]) -> None:
        spec = crd["spec"]
        scope = "/namespaces/default" if spec["scope"] == "Namespaced" else ""
        path = f"/apis/{spec['group']}/{version['name']}{scope}/{spec['names']['plural']}"
        obj = await asyncio.to_thread(object_of, rng, crd, version, "a")
        async with self.client.session.get(f"{self.client.url}{path}", params={"watch": "1"}) as watch:
            for body in (obj, await self.changed(rng, obj)):
                status, created = await self.send("POST", path, body, fieldValidation="Warn", fieldManager="fuzz")
                if status == 201:
                    await self.see(watch, created)
                    break
        for _ in range(rng.randint(1, 4)):
            await self.change(rng, path, obj)
        for query in ({"accept": _TABLE}, {"fieldSelector": "spec.name=a"}, {"limit": "1", "labelSelector": "a=b"}):
            await self.send("GET", path, **query)

    async def see(self, watch: Any, created: dict[str, Any]) -> None:
        """Asserts that the watch reports the object as its creation returned it."""
        async with asyncio.timeout(60):
            event = json.loads(await watch.content.readline())
        assert event["type"] == "ADDED" and (not created or event["object"] == created), (event, created)

    async def change(self, rng: random.Random, path: str, obj: dict[str, Any]) -> None:
        body = await self.changed(rng, obj)
        one = f"{path}/a" + rng.choice(["", "", "", "/status", "/scale"])
        query = {"fieldManager": rng.choice(["fuzz", "other"])}
        match rng.randrange(5):
            case 0:
                await self.send("PUT", one, body, **query)
            case 1:
                operations = [
                    {"op": rng.choice(["add", "replace", "remove", "test"]), "path": at, "value": rng.choice(JUNK)}
                    for at in rng.sample(["/spec", "/spec/it", "/spec/replicas", "/status", "/metadata/labels/a"], 2)
                ]
                await self.send("PATCH", one, operations, "application/json-patch+json", **query)
            case 2:
                query["force"] = "true"
                await self.send("PATCH", one, body, "application/apply-patch+yaml", **query)
            case 3:
                await self.send("PATCH", one, body, "application/merge-patch+json", **query)
            case _:
                await self.send("GET", one, accept=rng.choice([_TABLE, "application/yaml"]))

    async def changed(self, rng: random.Random, obj: dict[str, Any]) -> Any:
        return await asyncio.to_thread(lambda: mutate(rng, copied(obj), rng.choice([0, 1, 1, 2])))


def test_no_crd_breaks_the_server(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    known = [*remit_crds(), gadgets_crd(), *public_crds()]
    gc.collect()
    gc.freeze()  # otherwise collecting the test's own objects would block the event loop
    with asyncio.Runner() as runner:
        run: Callable[[Any], Any] = runner.run
        serving = fuzzed(tmp_path)
        fuzzer = Fuzzer(run(serving.__aenter__()))

        @settings(
            max_examples=REQUESTS,
            phases=[Phase.generate],
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.integers(min_value=0, max_value=2**64), seeds(known))
        def fuzz(chance: int, seed: Seed) -> None:
            if fuzzer.statuses.total() < REQUESTS:
                run(fuzzer.play(random.Random(chance), seed.crd))

        with capture_logs() as logs, watch_loop() as watch:
            try:
                fuzz()
                before = run(answers(fuzzer.client))
            finally:
                run(serving.__aexit__(None, None, None))
                record_property("statuses", dict(fuzzer.statuses))
                record_property("longest_turn", watch.cpu_seconds)
                print(dict(fuzzer.statuses), watch)
        assert not [entry for entry in logs if entry["log_level"] == "error"], logs[:3]
        watch.assert_no_stall()

        serving = fuzzed(tmp_path)
        with capture_logs() as logs:
            client = run(serving.__aenter__())
            try:
                after = run(answers(client))
            finally:
                run(serving.__aexit__(None, None, None))
        assert not [entry for entry in logs if entry["log_level"] in ("error", "warning")], logs[:3]
        assert after == before
