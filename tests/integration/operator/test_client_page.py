"""Runs the example of docs/python-api.md that needs an operator as it is written."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path

from .conftest import PATIENCE, World

ROOT = Path(__file__).parents[3]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python-api.md").read_text(), re.DOTALL)


async def test_the_clients_example(world: World, tmp_path: Path) -> None:
    (block,) = [block for block in BLOCKS if "RemitClient" in block]
    environment = {
        "PYTHONPATH": str(ROOT / "operator"),
        "KUBECONFIG": str(world.control_plane.kubeconfig),
        "HOME": str(tmp_path),
    }
    await world.policy("echo")
    async with world.operator():
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", block, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment
        )
        said, complaints = await asyncio.wait_for(program.communicate(), PATIENCE)
    assert (said.decode(), complaints.decode()) == ("Succeeded built\n\nTrue\nDenied Denied\n[0, 0, 0]\n", "")
