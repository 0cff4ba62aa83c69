"""Tests a release on the page: both sides, their requests, their output, and the available requests."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from browsers import Tab, browser, findings
from pages import Looker, login_link, looking, region
from ports import free_port
from remitup import RemitUp, until

POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: releases}
spec:
  commands: {allow: [{executable: sh, args: [-c, .*]}]}
  files: {allow: [{paths: ['%s/**'], operations: [read]}]}
  networks: [host]
"""
SERVE = "echo '<b>'serving; exec python3 -m http.server --bind 127.0.0.1 $PORT"


def deployment(folder: Path, version: str, port: int) -> str:
    (folder / version).mkdir()
    (folder / version / "index.html").write_text(version)
    spec = {
        "artifact": {"path": str(folder / version)},
        "target": {"process": {"command": ["sh", "-c", SERVE]}},
        "ports": [{"name": "http", "containerPort": 8080, "published": port}],
        "healthCheck": {"http": {"port": "http"}},
        "strategy": {"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 60}},
        "stages": {"bakeSeconds": 0},
    }
    kind = {"apiVersion": "remit.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "site"}}
    return json.dumps(kind | {"spec": spec})


@pytest.fixture
def looker(up: RemitUp) -> Iterator[Looker]:
    with looking(up) as one:
        yield one


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_release_is_seen_and_steered(up: RemitUp, looker: Looker, tmp_path: Path) -> None:
    port = free_port()
    up.kubectl("apply", "-f", "-", stdin=POLICY % tmp_path)

    def phase() -> str:
        return str(up.read("deployments", "site").get("status", {}).get("phase"))

    def page() -> str:
        return looker.get("/releases/default/site").text

    try:
        up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, "one", port))
        until(lambda: phase() == "Healthy", "the first release")
        up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, "two", port))
        until(lambda: phase() == "AwaitingPromotion", "the gate")
        both = page()
        assert "/one" in both
        assert "/two" in both
        assert both.count("1 of 1 healthy") == 2
        led = re.findall(r'(?:href|action|src)="([^"]*)"', both)
        assert f"{looker.base}/releases/default/site/promote" in led
        assert [each for each in led if not each.startswith((f"{looker.base}/", "/static/", "#", "?"))] == []
        with looker.live("/releases/default/site") as events:
            _until_output(events, "&lt;b&gt;serving")
            _requests(port, 20)
            region(events, "sides", r"2\d in all|20 in all")
            _requests(port, 20, b"")  # a POST, which the server does not support: 501
            region(events, "sides", r"20 failed, \d+\.\d a second</span>")
            # The rates fall without new requests, which no watch event reports.
            region(events, "sides", r"<b>0\.0</b>[^§]*<b>0\.0</b>")
            promoted = looker.post("/releases/default/site/promote", revision="2")
            assert promoted.headers["Location"] == looker.to("/releases/default/site")
            region(events, "head", "Healthy")
        until(lambda: "/releases/default/site/reports/2" in page(), "the report")
        report = looker.get("/releases/default/site/reports/2").text
        assert "Report of revision 2" in report
        assert "Requests of the probe, each second" in report
        for form, kind, begins in (("md", "markdown", "# default/site"), ("json", "json", "{"), ("html", "html", "<!")):
            answer = looker.get(f"/releases/default/site/report/2?form={form}")
            assert answer.headers["Content-Disposition"] == f'attachment; filename="site-revision-2.{form}"'
            assert kind in answer.headers["Content-Type"]
            assert answer.text.startswith(begins)
        assert looker.get("/releases/default/site/report/2?form=exe").status_code == 404
        assert looker.get("/releases/default/site/reports/9").status_code == 404
        assert looker.get(f"/releases/default/site/reports/{'9' * 5000}").status_code == 404
        _look_at_the_report(up)
        (file,) = up.state_dir.glob("reports/default/site/revision-2.json")
        newer = orjson.loads(file.read_bytes()) | {"stages": [{"name": "Unheard-of"}]}
        file.write_bytes(orjson.dumps(newer))
        assert "Another version of Remit wrote this report." in looker.get("/releases/default/site/reports/2").text
        answer = looker.get("/releases/default/site/report/2")
        assert "sandbox" in answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
        assert looker.get("/releases/default/site/report/9").status_code == 404
        assert looker.get("/releases/default/site/report/..%2f1").status_code == 404
        assert looker.post("/releases/default/site/promote").status_code == 303
        assert 'class="notice bad"' in page()  # there is nothing to promote
        assert looker.post("/releases/default/site/format").status_code == 404
        for wrong in ("1" * 5000, "x", "-1", "١"):
            looker.post("/releases/default/site/rollback", revision=wrong)
            assert "is not a revision" in page()
        looker.post("/releases/default/site/rollback", revision="1")
        until(lambda: up.read("deployments", "site")["status"].get("activeRevision") == 1, "the way back")
        assert "pinned to revision 1" in page()
        with looker.live("/releases/default/site") as events:
            next(events)
            up.kubectl("delete", "deployments.remit.dev", "site", "--timeout=60s")
            assert "gone" in (name for name, _ in events)
    finally:
        up.kubectl("delete", "deployments.remit.dev", "site", "--timeout=60s", "--ignore-not-found")
    assert looker.get("/releases/default/site").status_code == 404
    assert looker.get("/live/releases/default/site").status_code == 404


def _look_at_the_report(up: RemitUp) -> None:
    with browser() as chromium:
        for name, (scheme, width) in {"light": ("light", 1280), "narrow": ("dark", 390)}.items():
            tab = Tab(chromium, login_link(up), viewport={"width": width, "height": 860}, color_scheme=scheme)
            tab.go("/releases/default/site/reports/2")
            assert findings(tab) == []
            if folder := os.environ.get("REMIT_SCREENSHOTS"):
                tab.page.screenshot(path=Path(folder) / f"report-{name}.png", full_page=True)
            tab.close()
            assert (tab.problems, tab.outside) == ([], [])


def _requests(port: int, count: int, posted: bytes | None = None) -> None:
    for _ in range(count):
        answer = httpx.request(
            "GET" if posted is None else "POST",
            f"http://127.0.0.1:{port}/",
            content=posted,
            timeout=60,
            trust_env=False,
        )
        assert (answer.status_code, answer.text) == (200, "one") if posted is None else answer.status_code == 501


def _until_output(events: Iterator[tuple[str, Any]], text: str) -> None:
    for name, data in events:
        if name == "output" and any(text in each["html"] for each in data.get("lines", ())):
            return
    raise AssertionError(f"the stream ended before {text!r} was written")
