"""Runs the hostile programs under the real process backend."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from remit.backends.base import AttemptRequest, Command, Stream
from remit.errors import SandboxUnavailable
from remit.execution.output import OutputWriter
from remit.sandbox import Confinement

from . import books
from .case import EXITED, Program
from .conftest import PYTHON, Engine, Scene

pytestmark = pytest.mark.no_cover

PROGRAMS = [case for cases in books.PROGRAMS.values() for case in cases]
KEPT_BYTES = 64 << 10


class Said:
    """Keeps output as the operator does, and the end of each stream for the test."""

    def __init__(self, keeper: OutputWriter) -> None:
        self.keeper = keeper
        self.ends = {"stdout": b"", "stderr": b""}

    def write(self, stream: Stream, chunk: bytes) -> None:
        self.keeper.write(stream, chunk)
        self.ends[stream] = (self.ends[stream] + chunk)[-KEPT_BYTES:]

    @property
    def end(self) -> bytes:
        return b"".join(self.ends.values())


@pytest.mark.parametrize("case", PROGRAMS, ids=str)
async def test_inside(
    case: Program, engine: Engine, scene: Scene, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    abilities = engine.backend.host.abilities
    if case.layer and not abilities[case.layer].available:
        pytest.skip(f"{case.layer} is what stops it: {abilities[case.layer].detail}")
    mark = f"hostile-{uuid4().hex}"
    bare = engine.name == "bare"
    arguments = (case.bare_arguments if bare else case.arguments)(scene.facts | {"mark": mark})
    request = AttemptRequest(
        id=mark,
        command=Command((PYTHON, *arguments), PYTHON, {"HOME": "/workspace", "TMPDIR": "/tmp"}),
        confinement=Confinement(limits=case.limits, require=engine.require),
        timeout_seconds=case.timeout,
        grace_seconds=0.1,
    )
    said = Said(OutputWriter(tmp_path, max_bytes=KEPT_BYTES, tail_bytes=4096))
    try:
        outcome = await engine.backend.run(request, said, cancel=asyncio.Event())
    except SandboxUnavailable:
        assert not said.end, "it was refused, and ran"
        assert scene.unharmed()
        record_property("end", "refused")
        return
    finally:
        said.keeper.close()
    record_property("end", "confined")
    text = said.end.decode(errors="replace")
    assert "WON" not in text
    assert scene.canary not in text
    assert scene.unharmed()
    assert alive(mark) == []
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * KEPT_BYTES
    assert outcome.reason in (*case.ends, *(case.bare_ends if bare else ())), (outcome, text)
    if outcome.reason in EXITED:
        assert outcome.exit_code == case.exits, text
    if case.tried:
        assert "TRIED" in text, "the attack was not tried"
    if case.stopped_by:
        met = {line.split()[1] for line in text.splitlines() if line.startswith("STOPPED")}
        assert met, f"nothing stopped it: {text}"
        assert met <= {*case.stopped_by, *(case.bare_stopped_by if bare else ())}


def alive(mark: str) -> list[str]:
    """Returns the processes of an attempt that still run anywhere on this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if mark.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


@pytest.mark.parametrize("case", [case for case in PROGRAMS if case.outside], ids=str)
def test_outside(case: Program, scene: Scene) -> None:
    """Without the sandbox the same program succeeds."""
    if case.outside == "root" and os.geteuid() != 0:
        pytest.skip("works for root only")
    done = subprocess.run([PYTHON, *case.arguments(scene.facts)], capture_output=True, text=True, timeout=60)
    assert "WON" in done.stdout, done.stdout + done.stderr
