"""Tests that callers that wait for a release get the error that stops it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from releases import snapshot, spec
from remit.agent.releaseworker import ReleaseWorker
from remit.api.deployment import Deployment
from remit.errors import AuditUnavailable, DeploymentError, RemitError
from remit.release.folderstore import FolderStore
from remit.release.target import Material


class Driver:
    """A driver whose every step ends like this."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.places = SimpleNamespace(close=self.close)

    async def step(self) -> float:
        raise self.error

    async def close(self) -> None: ...


def worker(folder: Path, error: Exception) -> ReleaseWorker:
    body = {"metadata": {"name": "shop"}, "spec": spec().model_dump(mode="json", by_alias=True, exclude_unset=True)}
    hook: Any = None
    driver: Any = Driver(error)
    return ReleaseWorker(FolderStore(Deployment.parse(body), folder, "tester", hook, lambda: None), driver)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(28, "No space left on device"), DeploymentError, "cannot be kept: No space left on device"),
        (AuditUnavailable("No space left on device"), AuditUnavailable, "No space left"),
        (KeyError("slot"), DeploymentError, r"a mistake of Remit's own: KeyError\('slot'\)"),
    ],
)
async def test_a_step_that_comes_to_nothing_is_told(
    tmp_path: Path, error: Exception, kind: type[RemitError], message: str
) -> None:
    at_work = worker(tmp_path, error)
    await at_work.start()
    async with asyncio.timeout(30):
        with pytest.raises(kind, match=message):
            await at_work.deploy(snapshot(spec("v1")), Material())
        with pytest.raises(kind, match=message):
            await at_work.remove()
    await at_work.close()
    with pytest.raises(DeploymentError, match="was closed"):
        await at_work.look()


async def test_a_deployment_that_cannot_be_kept_is_not_declared(tmp_path: Path) -> None:
    at_work = worker(tmp_path, AssertionError())
    (tmp_path / "wishes").write_text("in the way")
    with pytest.raises(DeploymentError) as failed:
        await at_work.deploy(snapshot(spec("v1")), Material())
    assert (failed.value.reason, at_work.latest) == ("StateNotKept", None)
