"""Tests volumes through a whole operator: a sandbox contains what a policy allows, and nothing else."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from .conftest import World
from .test_values import config, secret

OWNER = 43210 if os.geteuid() == 0 else os.geteuid()


@pytest.fixture
def shop() -> Iterator[Path]:
    """Provides a user's folder with a program."""
    with tempfile.TemporaryDirectory(prefix="remit-volumes-") as name:
        folder = Path(name).resolve() / "shop"
        folder.mkdir(mode=0o700)
        folder.parent.chmod(0o755)
        program = folder / "run.sh"
        program.write_text("#!/bin/sh\ncat /etc/app/greeting /etc/keys/token deep/file; echo made > made\n")
        program.chmod(0o755)
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("of the folder\n")
        for path in (folder, program, folder / "deep", folder / "deep" / "file"):
            os.chown(path, OWNER, OWNER)
        yield folder


def volumes(shop: Path, **host_path: Any) -> dict[str, Any]:
    return {
        "volumes": [{"name": "src", "hostPath": {"path": str(shop), **host_path}}],
        "volumeMounts": [{"name": "src", "mountPath": "/src", "access": "ReadWrite"}],
    }


def opened(shop: Path) -> dict[str, Any]:
    rule = {"paths": [f"{shop.parent}/**"], "access": ["ReadOnly", "ReadWrite"]}
    return {"volumes": {"hostPaths": [rule]}}


async def test_a_program_of_a_mounted_folder_with_its_configuration(world: World, shop: Path) -> None:
    async with world.operator():
        await config(world, "app", greeting="from the ConfigMap\n")
        await secret(world, "keys", token="from the Secret, unseen\n")
        await world.policy(
            commands={"allow": [{"executable": "/src/run.sh"}]},
            privateFiles={"allow": ["/etc/app", "/etc/keys"]},
            **opened(shop),
        )
        spec = volumes(shop)
        spec["volumes"] += [
            {"name": "app", "configMap": {"name": "app"}},
            {"name": "keys", "secret": {"secretName": "keys", "items": [{"key": "token", "path": "z/token"}]}},
        ]
        spec["volumeMounts"] += [
            {"name": "app", "mountPath": "/etc/app"},
            {"name": "keys", "mountPath": "/etc/keys", "subPath": "z"},
        ]
        name = await world.task(command={"argv": ["/src/run.sh"]}, workingDir="/src", **spec)
        status = await world.finished(name)
    assert status["phase"] == "Succeeded", status
    said = status["output"]["stdoutTail"]
    assert said.startswith("from the ConfigMap\n")
    assert said.endswith("of the folder\n")
    assert "unseen" not in said, "it is redacted"
    assert (shop / "made").read_text() == "made\n"
    assert (shop / "made").stat().st_uid == OWNER


async def test_what_does_not_exist_fails_with_what_to_do(world: World, shop: Path) -> None:
    async with world.operator():
        await world.policy("sh", **opened(shop))
        name = await world.sh("true", **volumes(shop / "missing"))
        status = await world.finished(name)
        assert status["attempts"][0]["reason"] == "StartFailed"
        assert f"{shop}/missing is not there; make it on the host" in status["message"]
        (shop / "state").symlink_to(world.settings.state_dir)
        for path in (shop / "state", world.settings.state_dir):
            name = await world.sh("true", **volumes(path))
            status = await world.finished(name)
            assert status["phase"] in {"Denied", "Failed"}, status
    assert not (shop / "missing").exists()


async def test_the_operators_state_is_closed_under_any_policy(world: World) -> None:
    async with world.operator():
        await world.policy("sh", volumes={"hostPaths": [{"paths": ["/**"], "access": ["ReadOnly", "ReadWrite"]}]})
        for path in (world.settings.state_dir, world.settings.state_dir / "runs", world.settings.state_dir.parent):
            name = await world.sh("true", **volumes(path.resolve()))
            status = await world.finished(name)
            assert status["attempts"][0]["reason"] == "StartFailed"
            assert "never mounted" in status["message"]


async def test_on_a_cluster_no_folder_of_the_host_is_mounted(world: World, shop: Path) -> None:
    world.settings = replace(world.settings, in_pod=True)
    async with world.operator():
        await world.policy("sh", **opened(shop))
        status = await world.finished(await world.sh("true", **volumes(shop)))
    assert "on a cluster nobody knows which host" in status["message"]


async def test_standard_input_from_a_file_of_each_kind_of_volume(world: World, shop: Path) -> None:
    """The volume is not mounted, and a task's artifact works like a file of the host."""
    (shop / "dump.sql").write_text("of the folder")
    (shop / "dump.sql").chmod(0o600)
    os.chown(shop / "dump.sql", OWNER, OWNER)
    (shop / "out").symlink_to("/etc/passwd")
    rules = {**opened(shop)["volumes"], "workspaces": [{"names": ["kept"]}], "artifacts": {}}
    folder = [{"name": "src", "hostPath": {"path": str(shop)}}]
    workspace = [{"name": "kept", "workspace": {"name": "kept"}}]
    async with world.operator():
        await world.policy("sh", "cat", volumes=rules)
        made = await world.sh(
            "umask 077; echo of the workspace > /kept/file; echo of the artifact > left",
            volumes=workspace,
            volumeMounts=[{"name": "kept", "mountPath": "/kept", "access": "ReadWrite"}],
            artifacts=[{"name": "left", "path": "left"}],
        )
        status = await world.finished(made)
        assert status["phase"] == "Succeeded", status
        artifact = [{"name": "left", "artifact": {"task": made, "name": "left"}}]
        for volumes, name, path, said in (
            (folder, "src", "dump.sql", "of the folder"),
            (workspace, "kept", "file", "of the workspace\n"),
            (artifact, "left", "left", "of the artifact\n"),
        ):
            task = await world.task("cat", volumes=volumes, stdinFrom={"volume": {"name": name, "path": path}})
            status = await world.finished(task)
            assert status["phase"] == "Succeeded", status
            assert status["output"]["stdoutTail"] == said
        task = await world.task("cat", volumes=folder, stdinFrom={"volume": {"name": "src", "path": "out"}})
        status = await world.finished(task)
        assert (status["phase"], status["attempts"][0]["reason"]) == ("Failed", "StartFailed")
        assert f"spec.stdinFrom.volume: a link in {shop}/out leads out of {shop}" in status["message"]
