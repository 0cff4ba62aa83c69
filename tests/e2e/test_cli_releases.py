"""Tests releases from the command line: kubectl applies, remit sends requests, and both show the results."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ports import free_port
from remitup import RemitUp
from support import wait_until

pytestmark = pytest.mark.cover_programs

POLICY = """
apiVersion: remit.dev/v1alpha1
kind: CommandPolicy
metadata: {name: releases}
spec:
  commands: {allow: [{executable: python3, args: [-m, http\\.server, .*]}, {executable: sh, args: [-c, .*]}]}
  files: {allow: [{paths: ['%s/**'], operations: [read]}]}
  networks: [host]
"""
SERVE = "exec python3 -m http.server --bind 127.0.0.1 $PORT"


def deployment(folder: Path, version: str, port: int, *, gate: bool = True) -> str:
    (folder / version).mkdir()
    (folder / version / "index.html").write_text(version)
    return json.dumps(
        {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "site"},
            "spec": {
                "artifact": {"path": str(folder / version)},
                "target": {"process": {"command": ["sh", "-c", SERVE]}},
                "ports": [{"name": "http", "containerPort": 8080, "published": port}],
                "healthCheck": {"http": {"port": "http"}},
                "strategy": {"blueGreen": {"autoPromote": not gate, "scaleDownDelaySeconds": 0}},
                "stages": {"bakeSeconds": 0},
            },
        }
    )


@pytest.fixture
def site(up: RemitUp, tmp_path: Path) -> Iterator[int]:
    port = free_port()
    up.kubectl("apply", "-f", "-", stdin=POLICY % tmp_path)
    yield port
    up.kubectl("delete", "deployments.remit.dev", "site", "--timeout=60s")
    folder = up.state_dir / "artifacts"
    assert not (folder / "default" / "site").exists()


def answer_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
        return str(answer.read().decode())


@pytest.mark.timeout(180)
def test_promote_history_and_rollback(up: RemitUp, site: int, tmp_path: Path) -> None:
    def served() -> str:
        return answer_of(site)

    def status() -> dict[str, Any]:
        return up.read("deployments", "site").get("status", {})

    up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, "one", site))
    up.kubectl("wait", "deployments.remit.dev/site", "--for=condition=Healthy", "--timeout=60s")
    assert served() == "one"
    up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, "two", site))
    wait_until(lambda: status().get("phase") == "AwaitingPromotion", "the gate")
    table = up.kubectl("get", "deployments.remit.dev", "site").splitlines()
    assert table[0].split() == ["NAME", "PHASE", "STAGE", "ACTIVE", "PREVIEW", "READY", "AGE"]
    assert served() == "one"
    tree = up.remit_here("get", "deploy", "site").stdout
    assert tree.startswith("deployment site  AwaitingPromotion  BlueGreen on processes\n")
    for line in (
        "stage  Promote  (6 of 9)",
        "green  1/1 ready  preview",
        "blue  1/1 ready  live",
        "remit promote site",
    ):
        assert line in tree
    with up.spawn("get", "deploy", "site", "--watch") as watching:
        assert "AwaitingPromotion (Promote): healthy; waits" in watching.stdout.readline()
        watching.process.send_signal(signal.SIGINT)
        assert (watching.process.wait(60), watching.stderr.read()) == (0, "")
    asked = up.remit("promote", "site")
    assert (asked.returncode, asked.stdout) == (0, "deployment site: revision 2 goes on\n")
    followed = up.remit_here("get", "deploy", "site", "-w", "--until-done")
    assert followed.returncode == 0, followed.stderr
    # The command ends when the release is live, while the previous side may still be retired.
    last = followed.stdout.splitlines()[-1]
    assert re.search(r"Healthy( \(Retire\))?: revision 2 is live; revision 2 on green 1/1 live", last)
    assert served() == "two"
    refused = up.remit_here("promote", "site")
    assert (refused.returncode, refused.stderr) == (1, "deployment site: there is no release to promote\n")
    assert up.remit_here("rollback", "site").returncode == 0
    wait_until(lambda: status().get("pinnedRevision") == 1 and status().get("phase") == "Pinned", "revision 1")
    assert served() == "one"
    lines = [line.split() for line in up.remit_here("history", "site").stdout.splitlines() if line.strip()]
    told = json.loads(up.remit_here("history", "site", "-o", "json").stdout)
    assert [str(each["revision"]) for each in told["history"]] == [line[0] for line in lines[1:]]
    assert isinstance(told["activeRevision"], int)
    rows = {line[0]: line for line in lines if line[0] in {"1", "2"}}
    assert "live," in rows["1"]
    assert "pinned" in rows["1"]
    assert "RolledBack" in rows["2"]
    nobody = up.remit_here("promote", "nobody")
    assert nobody.returncode != 0
    assert "there is no Deployment nobody" in nobody.stderr
    wait_until(lambda: status().get("report", {}).get("revision") == 1, "the report of the rollback")
    reports_are_printed(up, "site")


@pytest.mark.timeout(180)
def test_kubectl_waits_for_what_was_applied_and_for_a_pause(up: RemitUp, site: int, tmp_path: Path) -> None:
    def waits_for(phase: str) -> None:
        up.kubectl("wait", "deployments.remit.dev/site", f"--for=jsonpath={{.status.phase}}={phase}", "--timeout=60s")

    for version in ("zero", "one"):  # the second wait must not be satisfied by the earlier live version
        up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, version, site, gate=False))
        up.kubectl("wait", "deployments.remit.dev/site", "--for=condition=Healthy", "--timeout=60s")
        assert answer_of(site) == version
    up.kubectl("apply", "-f", "-", stdin=deployment(tmp_path, "two", site))
    waits_for("AwaitingPromotion")
    assert up.remit_here("pause", "site").returncode == 0
    waits_for("Paused")
    assert "remit resume site" in up.remit_here("get", "deploy", "site").stdout
    assert up.remit_here("resume", "site").returncode == 0
    waits_for("AwaitingPromotion")
    assert up.remit_here("abort", "site").returncode == 0
    up.kubectl("wait", "deployments.remit.dev/site", "--for=condition=Stalled", "--timeout=60s")
    assert "remit retry site" in up.remit_here("get", "deploy", "site").stdout


def reports_are_printed(up: RemitUp, name: str) -> None:
    """Revision 2 was promoted and has a report; then it was rolled back."""
    last = up.remit_here("report", name).stdout
    assert last.startswith(f"# default/{name}: revision 1, Promoted\n")
    assert "as a rollback" in last
    second = up.remit_here("report", name, "--revision", "2", "-o", "json")
    assert json.loads(second.stdout)["evidence"]["probed"]["failed"] == 0
    page = Path(up.remit_here("report", name, "--revision", "2", "-o", "path").stdout.strip())
    assert up.remit_here("report", name, "--revision", "2", "-o", "html").stdout == page.read_text()
    page.with_suffix(".json").unlink()  # an incomplete report is replaced by what status has
    short = up.remit_here("report", name, "--revision", "2")
    assert short.stdout.startswith(f"default/{name}, revision 2\n")
    assert f"the whole report is on the operator's host: {page}" in short.stderr
    for arguments, why in (
        (["--revision", "2", "-o", "html"], "not on this machine"),
        (["--revision", "9"], "no revision 9"),
    ):
        refused = up.remit_here("report", name, *arguments)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert why in refused.stderr
