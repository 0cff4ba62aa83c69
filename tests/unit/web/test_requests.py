"""Tests rates of requests, computed from two readings of a proxy's counters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from remit.api.slots import Slot
from remit.release.traffic.runtime import Port, ProxySnapshot
from remit.web import requests

PUBLISHED, PREVIEW = 8080, 8081


class Proxy:
    """A proxy with the next reading."""

    def __init__(self) -> None:
        self.pid, self.counts = 7, dict[Slot, tuple[int, int]]()
        self.now = 1000.0

    async def __call__(self, root: Path, name: str) -> ProxySnapshot:
        counts: Mapping[Slot, tuple[int, int]] = dict(self.counts)
        live = Port({"blue": 75, "green": 25}, {}, counts=counts)
        preview = Port({"blue": 0, "green": 100}, {}, counts={"green": (999, 9)})
        return ProxySnapshot(self.pid, 1, {PUBLISHED: live, PREVIEW: preview})


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Proxy:
    proxy = Proxy()
    monkeypatch.setattr("remit.release.traffic.traffic.live_proxy", proxy)
    monkeypatch.setattr(requests.time, "monotonic", lambda: proxy.now)
    return proxy


async def test_a_rate_is_what_came_between_two_looks(proxy: Proxy, tmp_path: Path) -> None:
    meter = requests.TrafficMeter([tmp_path])
    proxy.counts = {"blue": (100, 0), "green": (0, 0)}
    first = await meter.look("default/shop", {PUBLISHED})
    assert (first["blue"].rate, first["blue"].weight, first["green"].weight) == (0.0, 75, 25)
    proxy.now += 2
    proxy.counts = {"blue": (140, 4), "green": (10, 0)}
    second = await meter.look("default/shop", {PUBLISHED})
    assert (second["blue"].rate, second["blue"].failed_rate, second["blue"].total) == (20.0, 2.0, 140)
    assert (second["green"].rate, second["green"].total) == (5.0, 10)
    assert list(second["green"].history) == [0.0, 5.0]


async def test_looks_of_many_pages_are_one(proxy: Proxy, tmp_path: Path) -> None:
    meter = requests.TrafficMeter([tmp_path])
    proxy.counts = {"blue": (1, 0)}
    await meter.look("default/shop", {PUBLISHED})
    proxy.now += 0.1
    proxy.counts = {"blue": (1000, 0)}
    assert (await meter.look("default/shop", {PUBLISHED}))["blue"].total == 1


async def test_a_new_proxy_counts_anew(proxy: Proxy, tmp_path: Path) -> None:
    meter = requests.TrafficMeter([tmp_path])
    proxy.counts = {"blue": (100, 0)}
    await meter.look("default/shop", {PUBLISHED})
    proxy.now, proxy.pid, proxy.counts = proxy.now + 1, 8, {"blue": (3, 0)}
    assert (await meter.look("default/shop", {PUBLISHED}))["blue"].rate == 0.0


async def test_without_a_proxy_there_is_nothing(tmp_path: Path) -> None:
    assert await requests.TrafficMeter([tmp_path]).look("default/none", {PUBLISHED}) == {}
