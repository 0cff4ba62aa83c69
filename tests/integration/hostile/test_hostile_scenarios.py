"""Runs attacks that take several steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.errors import SandboxUnavailable
from remit.sandbox import Confinement, plan, probe_host

from . import scenarios_names, scenarios_policies, scenarios_secrets
from .case import Scenario
from .conftest import World

pytestmark = pytest.mark.no_cover


@pytest.mark.parametrize("case", scenarios_policies.BOOK.cases, ids=str)
async def test_policy(case: Scenario, world: World, tmp_path: Path) -> None:
    await case.play(world, tmp_path)


@pytest.mark.parametrize("case", [*scenarios_names.BOOK.cases, *scenarios_secrets.BOOK.cases], ids=str)
async def test_words(case: Scenario, world: World, tmp_path: Path) -> None:
    try:
        plan(Confinement(), probe_host())
    except SandboxUnavailable as error:
        pytest.skip(f"needs a program that says something: {error}")
    await case.play(world, tmp_path)
