"""Tests `remit up` with a collector in its environment, which the operator's process inherits."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import pytest

from collectors import collecting, export_to
from remitup import REMIT, RemitUp, environment

TASK = """
apiVersion: remit.dev/v1alpha1
kind: ExecutionTask
metadata: {name: denied}
spec: {command: {argv: [nobody-allows-this]}}
"""


async def test_what_remit_up_runs_is_traced(tmp_path: Path, kubectl: str, monkeypatch: pytest.MonkeyPatch) -> None:
    up = RemitUp(tmp_path / "state", kubectl)
    async with collecting() as collector:
        # Metrics are exported only at the end: a process that is asked to stop sends what it has.
        export_to(collector, monkeypatch, OTEL_METRIC_EXPORT_INTERVAL="3600000")
        await asyncio.to_thread(up.start)
        try:
            await asyncio.to_thread(up.kubectl, "apply", "-f", "-", stdin=TASK)
            (whole,) = await collector.until(lambda: collector.named("task command"))
            assert whole.error == "NoPolicy"
            obj = await asyncio.to_thread(up.task, "denied")
            assert whole.trace_id == obj["metadata"]["uid"].replace("-", "")
            assert await asyncio.to_thread(up.stop) == 0
        finally:
            await asyncio.to_thread(up.__exit__)
        assert "remit_task_finished_total" in collector.metrics


@pytest.mark.parametrize("command", ["up", "operator"])
def test_an_address_that_is_none_is_told_before_anything_starts(tmp_path: Path, command: str) -> None:
    done = subprocess.run(
        [*REMIT, command, "--state-dir", str(tmp_path / "state")],
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT="collector:4318"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "OTEL_EXPORTER_OTLP_ENDPOINT: not an address such as http://collector:4318" in done.stderr
    assert "Traceback" not in done.stderr
