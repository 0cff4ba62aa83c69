"""Tests reports of releases that a simulated target performed, and of hostile and unusual ones."""

from __future__ import annotations

import datetime
import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from releases import EPOCH, Sim, hook, live, spec
from remit.api.deployment import DeploymentSpec
from remit.api.deploymentstatus import DeploymentStatus, Release
from remit.api.slots import SLOTS
from remit.release.report import (
    Evidence,
    Probed,
    Report,
    Sample,
    Second,
    Subject,
    Switching,
    Usage,
    brief,
    compose,
    folder,
    markdown,
    owed,
    page,
    reported,
    sentence,
    series,
)
from remit.release.report.probing import entry, summed
from remit.release.report.wording import duration, size
from remit.release.steps import Finish
from remit.release.traffic.probe import ProbeSample

SUBJECT = Subject("default", "shop", "uid-1", "process", "host")


def at(seconds: float) -> datetime.datetime:
    return EPOCH + datetime.timedelta(seconds=seconds)


def ended(sim: Sim) -> Release:
    release = sim.state.release
    assert release is not None and release.outcome is not None
    return release


def sample(seconds: float, **cpu: float) -> Sample:
    usage = {slot: Usage(spent, 100 << 20) for slot, spent in cpu.items()}
    return Sample(at(seconds), dict.fromkeys(cpu, 2), usage)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def good() -> Report:
    sim = live("v1").apply(version="v2", stages={"prePromotion": [hook()], "bakeSeconds": 10})
    sim.finish()
    release = ended(sim)
    begun = (release.started_at - EPOCH).total_seconds()
    evidence = Evidence(
        samples=(
            sample(begun, blue=1.0),
            sample(begun + 2, blue=1.5, green=0.1),
            sample(begun + 4, blue=1.6, green=2.1),
        ),
        switchings=(Switching(at(begun + 5), release.slot, 0, 12.34),),
        probed=Probed(
            "GET http://127.0.0.1:80/healthz",
            100,
            1,
            1.5,
            9.0,
            ("status 503",),
            (Second(at(begun + 5), {"blue": 20}, 1),),
        ),
        restarts=0,
    )
    return compose(SUBJECT, release, evidence)


def test_a_release_of_the_simulated_world(good: Report) -> None:
    assert (good.outcome, good.revision, good.artifact, good.slot) == ("Promoted", 2, "shop:v2", "green")
    stages = {stage.name: stage for stage in good.stages}
    assert "Retire" not in stages  # this stage continues after the end
    assert stages["Bake"].seconds == 10
    assert stages["PostPromotion"].seconds is None
    assert sum(stage.seconds or 0 for stage in good.stages) == good.seconds
    short = brief(good, "/state/revision-2.html")
    assert short.stage_seconds["Bake"] == 10
    assert (short.switch_milliseconds, short.requests_during_switch, short.failed_during_switch) == (12.3, 100, 1)
    assert sentence(good, "/state/revision-2.html") == (
        f"revision 2: Promoted after {duration(good.seconds)}; the switch took 12 ms; 1 of 100 requests of the"
        " probe failed; 0 restarts; the whole report is in /state/revision-2.html"
    )


def test_status_keeps_it_for_its_revision(good: Report) -> None:
    sim = live("v1").apply(version="v2")
    sim.finish()
    status = reported(sim.status, brief(good, "ref"))
    again = DeploymentStatus.model_validate_json(status.model_dump_json(by_alias=True))
    assert [each.report is not None for each in again.history] == [True, False]
    assert again.report == again.history[0].report == brief(good, "ref")


def test_a_report_is_owed_once_for_each_end() -> None:
    sim = live("v1")
    first, before = ended(sim), sim.state
    told = brief(compose(SUBJECT, first, Evidence()), "")
    assert owed(before, before, None) == first
    assert owed(before, before, told) is None
    sim.apply(version="v2").step()
    assert owed(before, sim.state, told) is None, "the next one goes on"
    assert owed(before, sim.state, None) == first, "the next one began before the report was written"
    before = sim.state
    sim.finish()
    assert owed(before, sim.state, told) == ended(sim)


@pytest.mark.parametrize("fate", ["unhealthy", "crashing"])
def test_a_failed_release_reports_the_stage_and_the_outcome(fate: str) -> None:
    sim = live("v1").apply(version="v2", progressDeadlineSeconds=20)
    sim.behaviour["v2"] = fate
    assert isinstance(sim.finish(), Finish)
    report = compose(SUBJECT, ended(sim), Evidence(restarts=7))
    failed = [stage.name for stage in report.stages if stage.state == "Failed"]
    assert (failed, report.outcome, report.restarts) == (["Health"], "Failed", 7)
    assert report.switch_milliseconds is None
    for text in (markdown(report), page(report)):
        assert report.reason in text
        assert "not measured" in text


def test_several_switches_are_as_slow_as_the_slowest_that_was_seen(good: Report) -> None:
    found = tuple(Switching(EPOCH, "green", 0, took) for took in (3.0, None, 8.0))
    assert replace(good, evidence=Evidence(switchings=found)).switch_milliseconds == 8.0


def test_processor_time_is_reported_between_samples_and_not_across_restarts() -> None:
    samples = [sample(0, blue=1.0), sample(2, blue=2.0), sample(3, blue=0.1), sample(3, blue=0.2), sample(5, blue=0.4)]
    assert series.cores(samples, "blue", EPOCH) == [(2, 0.5), (5, pytest.approx(0.1))]
    assert series.cores(samples, "green", EPOCH) == []


class ProxySnapshot(HTMLParser):
    """Parses a page as a browser would."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


HOSTILE = (
    "</style><script>alert(1)</script><img src=x onerror=alert(1)> \x1b[2J \u202eevil | `x` [a](javascript:x)\n# h"
)


def hostile(good: Report, text: str) -> Report:
    assert good.evidence.probed is not None
    probed = replace(good.evidence.probed, what=text, errors=(text,), seconds=(Second(EPOCH, {text: 3}),))
    evidence = replace(good.evidence, probed=probed, missing=(text,))
    stages = tuple(replace(stage, message=text) for stage in good.stages)
    subject = replace(good.subject, namespace=text, name=text, target=text)
    return replace(
        good,
        subject=subject,
        artifact=text,
        reason=text,
        message=text,
        outcome="Failed",
        stages=stages,
        evidence=evidence,
    )


_WORDS_OF_ITS_OWN = {*SLOTS, "Failed"}
"""Words of the page's own layout, which has a row for each side. Hypothesis also tries constants of the code."""


@given(st.text(min_size=1, max_size=60).filter(lambda text: text not in _WORDS_OF_ITS_OWN) | st.just(HOSTILE))
def test_nothing_that_others_wrote_is_mark_up(text: str) -> None:
    report = hostile(GOOD, text)
    plain, seen, usual = page(report), ProxySnapshot(), ProxySnapshot()
    seen.feed(plain)
    usual.feed(page(hostile(GOOD, "plain")))
    assert seen.tags == usual.tags
    assert seen.attributes == usual.attributes
    lines = markdown(report).splitlines()
    assert len(lines) == len(markdown(hostile(GOOD, "plain")).splitlines())
    assert not re.search(r"(?<!\\)[<>`\[\]]", "\n".join(lines))
    assert not any(character in "\n".join(lines) + plain.replace("\n", "") for character in "\x1b\u202e\x07")


GOOD = compose(
    SUBJECT,
    Release(
        revision=1,
        slot="blue",
        artifact="shop:v1",
        started_at=EPOCH,
        clock=EPOCH,
        outcome="Promoted",
        finished_at=at(9),
    ),
    Evidence(probed=Probed("GET", 1, 0, 1.0, 1.0), samples=(sample(0, blue=0), sample(1, blue=1))),
)


def test_the_page_needs_nothing_else(good: Report) -> None:
    text = page(good)
    assert not re.search(r"(src|href)=|@import|url\(|<script|<link", text)
    assert "default-src 'none'" in text
    assert "prefers-color-scheme: dark" in text
    assert html.unescape(text).count("GET http://127.0.0.1:80/healthz")


def test_missing_evidence_is_reported(good: Report) -> None:
    report = replace(good, evidence=Evidence(missing=("The operator was killed.",)))
    assert all("The operator was killed." in text for text in (markdown(report), page(report)))
    assert "not probed" in page(report)
    assert brief(report, "").missing == ["The operator was killed."]


def test_files_are_the_operators_alone_and_go_with_their_revisions(good: Report, tmp_path: Path) -> None:
    where = folder.of(tmp_path, "default", "shop")
    for revision in (2, 3):
        written = folder.write(where, replace(good, revision=revision))
        assert written == where / f"revision-{revision}.html"
    assert {path.stat().st_mode & 0o777 for path in where.iterdir()} == {0o600}
    assert {path.stat().st_mode & 0o777 for path in (where, where.parent, where.parent.parent)} == {0o700}
    data = json.loads((where / "revision-2.json").read_text())
    assert (data["outcome"], data["switch_milliseconds"]) == ("Promoted", 12.34)
    assert folder.read(where, 2) == replace(good, revision=2)
    assert folder.belongs(where, 2, "uid-1", good.started_at)
    assert not folder.belongs(where, 2, "uid-2", good.started_at), "another cluster's"
    assert not folder.belongs(where, 2, "uid-1", good.finished_at), "an earlier release's"
    (where / "revision-3.json").write_text("[")
    assert not folder.belongs(where, 3, "uid-1", good.started_at)
    assert not folder.belongs(where, 4, "uid-1", good.started_at)
    folder.keep(where, {3})
    assert {path.name for path in where.iterdir()} == {"revision-3.html", "revision-3.md", "revision-3.json"}
    folder.clear(where)
    folder.clear(where)
    assert not where.parent.exists()


PORTS = [{"name": "admin", "containerPort": 9000}, {"name": "http", "containerPort": 8080, "published": 80}]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"ports": []}, None),
        ({}, "tcp://127.0.0.1:9000"),
        ({"healthCheck": {"http": {"path": "/h", "port": "http"}}}, "http://127.0.0.1:80/h"),
        ({"healthCheck": {"http": {"path": "/h", "port": 8080}}}, "http://127.0.0.1:80/h"),
        ({"healthCheck": {"http": {"path": "/h", "port": 1}}}, "tcp://127.0.0.1:9000"),
        ({"healthCheck": {"http": {"port": "http", "scheme": "HTTPS"}}}, "tcp://127.0.0.1:80"),
        ({"healthCheck": {"tcp": {"port": "http"}}}, "tcp://127.0.0.1:80"),
        ({"healthCheck": {"command": {"argv": ["true"]}}}, "tcp://127.0.0.1:9000"),
        ({"target": {"kubernetes": {}}}, "tcp://127.0.0.1:9000"),
    ],
    ids=str,
)
def test_the_probe_knocks_where_the_health_check_does(changes: dict[str, object], expected: str | None) -> None:
    wish = spec("v2", **{"ports": PORTS, **changes})
    found = entry(wish, spec("v1", ports=PORTS), "127.0.0.1")
    assert (found and found.url) == expected
    assert entry(wish, spec("v1"), "127.0.0.1") is None, "the old side publishes none of it"
    assert entry(wish, spec("v1", ports=PORTS), "") is None, "nobody knows where"


@pytest.mark.parametrize("new", ["http", "tcp"])
@pytest.mark.parametrize("old", ["http", "tcp"])
@pytest.mark.parametrize("checked", ["http", "tcp"])
def test_headers_for_the_proxy_are_sent_only_where_it_reads_requests_of_both_sides(
    old: str, new: str, checked: str
) -> None:
    def version(name: str, protocol: str) -> DeploymentSpec:
        ports = [{"name": "http", "containerPort": 8080, "appProtocol": protocol}]
        return spec(name, ports=ports, healthCheck={checked: {"port": "http"}})

    found = entry(version("v2", new), version("v1", old), "127.0.0.1")
    assert found is not None
    assert found.http is ((old, new, checked) == ("http", "http", "http"))


def test_requests_are_summed_up_by_second_and_side() -> None:
    requests = [
        ProbeSample(10.1, 10.11, "blue", ""),
        ProbeSample(10.9, 11.9, "", "status 503"),
        ProbeSample(11.0, 11.02, "green", ""),
    ]
    found = summed("http://127.0.0.1:80/h?token=x", requests, EPOCH)
    assert found is not None
    assert (found.what, found.requests, found.failed) == ("GET http://127.0.0.1:80/h", 3, 1)
    assert found.seconds == (Second(at(10), {"blue": 1}, 1), Second(at(11), {"green": 1}, 0))
    assert (found.p50_milliseconds, found.p99_milliseconds) == (pytest.approx(20), pytest.approx(1000))
    assert summed("tcp://h:1", [], EPOCH) is None


def test_numbers_are_readable() -> None:
    shown = [duration(s) for s in (0, 0.0004, 0.25, 0.9996, 4.2, 59.97, 60, 192, 3600, 7500)]
    assert shown == ["0 s", "0.4 ms", "250 ms", "1 s", "4.2 s", "1 min", "1 min", "3 min 12 s", "1 h", "2 h 5 min"]
    assert [size(n) for n in (0, 512, 12.5 * 2**20, 2**50)] == ["0 B", "512 B", "12.5 MiB", "1024 TiB"]
