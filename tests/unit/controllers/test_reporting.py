"""Tests what is recorded of a release in progress, and the report at its end."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ports import free_port
from releases import EPOCH, Sim, live, spec
from remit.api.deployment import Deployment
from remit.api.deploymentstatus import PipelineState
from remit.api.slots import Slot
from remit.controllers.reporting import Reports
from remit.errors import DeploymentError
from remit.kube.events import Recorder
from remit.release.report import Evidence, Subject, Usage, brief, compose
from remit.release.steps import Decision, Switch


class Heard(Recorder):
    """Records Events."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def record(self, regarding: dict[str, Any], type_: str, reason: str, message: str) -> None:
        self.told.append((reason, message))


class Silent:
    """A target that does not report the resource usage of its instances."""


class Telling:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.asked = error, 0

    async def usage(self) -> Mapping[Slot, Usage]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return {"blue": Usage(float(self.asked), 1 << 20)}


class BehindProxy(Silent):
    """A target whose proxy recognizes the probe by a token."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    def probe_token(self) -> str:
        if self.error is not None:
            raise self.error
        return "t0ken"


class Stuck:
    """An engine that received the request and does not answer."""

    def __init__(self) -> None:
        self.asked = 0
        self.cancelled = asyncio.Event()

    async def usage(self) -> Mapping[Slot, Usage]:
        self.asked += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        raise AssertionError


class Watched:
    """A simulated target whose every observation is reported, as the reconciler does it."""

    def __init__(self, folder: Path, sim: Sim, target: Any) -> None:
        self.sim, self.target, self.events, self.woken = sim, target, Heard(), list[str]()
        self.reports = Reports(folder, self.events, self.woken.append, lambda: sim.now)
        self.due: Any = None
        self.told: Any = None
        """The report in status."""
        before = sim.state.release
        if before is not None and before.outcome is not None:
            self.told = brief(compose(Subject("default", "shop", "u", "docker"), before, Evidence()), "")

    @property
    def deployment(self) -> Deployment:
        wish = self.sim.wish.model_dump(mode="json", by_alias=True, exclude_none=True)
        return Deployment.parse(
            {
                "apiVersion": "remit.dev/v1alpha1",
                "kind": "Deployment",
                "metadata": {"name": "shop", "namespace": "default", "uid": "u", "resourceVersion": "1"},
                "spec": wish,
                "status": {"report": self.told.model_dump(mode="json", by_alias=True)} if self.told else {},
            }
        )

    async def look(self, before: PipelineState, after: PipelineState) -> Any:
        found = await self.reports.look(self.deployment, {}, self.target, self.sim.observed, before, after)
        self.due = found or self.due
        return found

    async def step(self) -> Decision:
        before, decision = self.sim.state, self.sim.decide()
        await self.look(before, decision.state)
        await self.reports.before(self.deployment, self.target, self.sim.desired, self.sim.observed, decision)
        if isinstance(decision.step, Switch):
            self.reports.switching("default/shop", decision.step, self.sim.observed)
        self.sim.step()
        return decision

    async def until_due(self) -> Any:
        for _ in range(300):
            if self.due is not None:
                return self.due
            await self.step()
            await asyncio.sleep(0)  # lets pending requests complete
            self.sim.breathe()
        pytest.fail("no report was ever due")


async def test_a_release_is_seen_from_its_begin_to_its_end(tmp_path: Path) -> None:
    watched = Watched(tmp_path, live("v1").apply(version="v2"), Telling())
    short = await watched.until_due()
    assert (short.revision, short.restarts) == (2, 0)
    assert short.switch_milliseconds is not None
    assert short.missing == ["No probe ran: there is no published port that both sides have."]
    assert Path(short.ref).read_text().startswith("<!doctype html>")
    assert [reason for reason, _ in watched.events.told] == ["Reported"]
    again = await watched.look(watched.sim.state, watched.sim.state)
    assert again == short, "until status has it, it is due"
    assert len(watched.events.told) == 1, "but it is told once"


async def test_the_look_that_ends_a_release_is_in_its_report(tmp_path: Path) -> None:
    """A switch that is first observed as complete at that time was measured."""
    watched = Watched(tmp_path, live("v1").apply(version="v2"), Silent())
    while not isinstance((await watched.step()).step, Switch):
        watched.sim.breathe()
    watched.sim.breathe()
    before = watched.sim.state
    assert before.release is not None
    ended = replace(before.release, outcome="Promoted", finished_at=watched.sim.now)
    short = await watched.look(before, replace(before, release=ended))
    assert short.switch_milliseconds is not None


async def test_a_first_release_switches_nothing(tmp_path: Path) -> None:
    watched = Watched(tmp_path, Sim(wish=spec("v1")), Silent())
    short = await watched.until_due()
    assert (short.revision, short.switch_milliseconds) == (1, None)


async def test_an_engine_that_does_not_tell_what_is_used_holds_nothing_up(tmp_path: Path) -> None:
    """The engine is asked once, and only these figures are missing."""
    target = Stuck()
    watched = Watched(tmp_path, live("v1").apply(version="v2"), target)
    short = await watched.until_due()
    assert (short.revision, target.asked) == (2, 1)
    await asyncio.wait_for(target.cancelled.wait(), 30)
    await watched.reports.close()


@pytest.mark.parametrize(
    ("target", "protocol", "sent"),
    [
        (BehindProxy(), "http", True),
        (BehindProxy(), "tcp", False),
        (BehindProxy(DeploymentError("not ours", reason="ProxyFailed")), "http", False),
        (BehindProxy(PermissionError("not ours")), "http", False),
        (Silent(), "http", False),
    ],
    ids=["proxy", "passed through", "refused", "unreadable", "no proxy"],
)
async def test_the_token_is_sent_only_where_a_proxy_keeps_it_from_the_program(
    tmp_path: Path, target: Any, protocol: str, sent: bool
) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = {"name": "http", "containerPort": server.sockets[0].getsockname()[1], "appProtocol": protocol}
        served = {"ports": [port], "healthCheck": {"http": {"port": "http"}}}
        watched = Watched(tmp_path, live("v1", **served).apply(version="v2", **served), target)
        while not isinstance((await watched.step()).step, Switch):
            watched.sim.breathe()
        await watched.reports.close()
    assert heads
    assert {b"\r\nRemit-Probe: t0ken\r\n" in head for head in heads} == {sent}
    assert {b"remit-probe" in head.lower() for head in heads} == {sent}


async def test_a_service_that_the_operator_does_not_reach_is_not_called_broken(tmp_path: Path) -> None:
    cluster = {"target": {"kubernetes": {}}, "ports": [{"name": "http", "containerPort": free_port()}]}
    watched = Watched(tmp_path, live(**cluster).apply(version="v2", **cluster), Silent())
    short = await watched.until_due()
    assert (short.requests_during_switch, short.failed_during_switch) == (0, 0)
    port = cluster["ports"][0]["containerPort"]
    assert f"No probe ran: nothing answered the operator at tcp://127.0.0.1:{port}." in short.missing
    await watched.reports.close()


async def test_an_operator_that_comes_late_says_so(tmp_path: Path) -> None:
    sim = live("v1").apply(version="v2")
    sim.step()
    sim.breathe(7)
    short = await Watched(tmp_path, sim, Silent()).until_due()
    assert "started anew, 7 s after the release began" in short.missing[0]
    assert "This target does not tell what its instances use." in short.missing


async def test_one_that_comes_after_the_end_reports_what_status_knows(tmp_path: Path) -> None:
    sim = live("v1")
    watched = Watched(tmp_path, sim, Telling())
    watched.told = None
    short = await watched.look(sim.state, sim.state)
    assert short.revision == 1
    assert "all that it had seen is lost" in short.missing[0]
    assert "Health" in short.stage_seconds


@pytest.mark.parametrize("error", [DeploymentError("gone", reason="Gone", retryable=True), TimeoutError()], ids=repr)
async def test_what_cannot_be_measured_holds_nothing_up(tmp_path: Path, error: Exception) -> None:
    target = Telling(error)
    short = await Watched(tmp_path, live("v1").apply(version="v2"), target).until_due()
    assert target.asked > 1
    assert short.switch_milliseconds is not None


async def test_what_cannot_be_written_is_still_in_status(tmp_path: Path) -> None:
    (tmp_path / "reports").write_text("in the way")
    short = await Watched(tmp_path, live("v1").apply(version="v2"), Telling()).until_due()
    assert (short.revision, short.ref) == (2, "")


async def test_a_release_of_days_is_sampled_ever_more_seldom(tmp_path: Path) -> None:
    manual = {"blueGreen": {"autoPromote": False}}
    sim = live("v1").apply(version="v2", strategy=manual)
    sim.waits_for("AwaitingPromotion")
    target = Telling()
    watched = Watched(tmp_path, sim, target)
    for _ in range(2000):
        await watched.look(sim.state, sim.state)
        await asyncio.sleep(0)
        sim.now += datetime.timedelta(seconds=1)
    assert target.asked < 1300
    recorded = watched.reports._recordings["default/shop"].samples
    assert 300 <= len(recorded) <= 600
    assert sim.now - recorded[-1].at < datetime.timedelta(seconds=20)
    assert recorded[0].at < EPOCH + datetime.timedelta(seconds=60)
    await watched.reports.close()
    assert not watched.reports._recordings


async def test_the_same_command_again_is_still_the_first(tmp_path: Path) -> None:
    watched = Watched(tmp_path, live("v1").apply(version="v2"), Telling())
    while not isinstance((await watched.step()).step, Switch):
        watched.sim.breathe()
    command = Switch("green")
    observed = watched.sim.observed
    watched.reports.switching("default/shop", command, observed)
    watched.reports.switching("default/nobody", command, observed)
    recording = watched.reports._recordings["default/shop"]
    assert [each.to for each in recording.switchings] == ["green"]
    watched.reports.switching("default/shop", Switch("blue"), observed)
    assert [each.to for each in recording.switchings] == ["green", "blue"]


async def test_it_leaves_nothing_of_a_deployment_that_is_gone(tmp_path: Path) -> None:
    watched = Watched(tmp_path, live("v1").apply(version="v2"), Telling())
    short = await watched.until_due()
    await watched.reports.remove(watched.deployment)
    assert not Path(short.ref).parent.parent.exists()
