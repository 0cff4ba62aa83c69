"""Tests `remit up` with the state directory of the previous version (tests/lastversion)."""

from __future__ import annotations

import gzip
import lzma
from pathlib import Path
from typing import Any

import pytest

from remit.operations.process.record import supervised
from remitup import RemitUp, until

LEFT = Path(__file__).parents[1] / "lastversion" / "state.tar.xz"


def named(items: dict[str, Any]) -> dict[str, Any]:
    return {item["metadata"]["name"]: item for item in items["items"]}


@pytest.mark.usefixtures("sandbox")
def test_the_last_versions_state_goes_on(tmp_path: Path, kubectl: str) -> None:
    archive, place = tmp_path / "state.tar.gz", tmp_path / "state"
    archive.write_bytes(gzip.compress(lzma.decompress(LEFT.read_bytes()), 1))
    up = RemitUp(place, kubectl, options=("--docker-host", "off"))
    restored = up.remit_here("restore", str(archive), "--state-dir", str(place))
    assert restored.returncode == 0, restored.stderr
    with up:
        up.kubectl("wait", "executiontask/long", "--for=condition=Finished", "--timeout=60s")
        tasks = named(up.read("executiontasks"))
        assert up.task("long")["status"]["attempts"][-1]["reason"] == "Interrupted"
        for name in [name for name in tasks if name.startswith(("hello", "keeps", "nightly-manual"))]:
            status = tasks[name]["status"]
            assert (status["phase"], len(status["attempts"])) == ("Succeeded", 1), "it did not run again"
        until(lambda: len(up.task("retried")["status"]["attempts"]) > 1, "a second attempt")
        until(lambda: up.phase("retried") == "Running", "a second attempt that runs")
        attempts = up.task("retried")["status"]["attempts"]
        assert [each.get("reason") for each in attempts] == ["Interrupted", None], attempts

        assert up.remit_here("logs", "hello").stdout == "hello\n"
        assert up.remit_here("cp", "keeps:left", str(tmp_path / "copy")).returncode == 0
        assert (tmp_path / "copy").read_text() == "left\n"
        verified = up.remit_here("audit", "verify", "--state-dir", str(place))
        assert verified.returncode == 0, verified.stderr
        assert (place / "format").read_text() == "1\n"

        assert tasks["nightly"]["status"]["nextScheduleTime"] == "2028-02-29T00:00:00Z"
        again = up.remit_here("run", "--from-schedule", "nightly", "--wait")
        assert again.stdout.endswith("again\n"), again.stderr
        policies = named(up.read("commandpolicies"))
        assert policies["all"]["spec"]["backends"] == ["process"]
        assert policies["containers"]["spec"]["backends"] == ["docker"]

        until(lambda: supervised(place / "instances/default/worker/blue-0"), "the release's process, which was lost")
        until(lambda: up.read("deployments", "worker")["status"]["readyReplicas"] == 1, "its health")
        status = up.read("deployments", "worker")["status"]
        assert (status["phase"], [each["outcome"] for each in status["history"]]) == ("Healthy", ["Promoted"])
        up.kubectl("delete", "deployments.remit.dev/worker", "--timeout=60s")
        up.kubectl("delete", "executiontask/retried", "--timeout=60s")
        said = up.log.read_text()
        assert "Traceback" not in said
