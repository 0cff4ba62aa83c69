"""Tests the embedded control plane with a state directory that another user has prepared."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.agent.folder import Folder
from remit.agent.releases import _locked
from remit.controlplane.server import ControlPlane
from remit.errors import InvalidInput, ResourceError

STRANGER = 54321
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another user")


def planted(path: Path, content: str = "") -> Path:
    path.write_text(content)
    os.chown(path, STRANGER, STRANGER)
    return path


async def test_a_directory_of_another_user_is_left_as_it_is(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir(mode=0o777)
    victim.write_text("before")
    for name in ("kubeconfig.new", ".kubeconfig.new", "state.lock", "token"):
        (state / name).symlink_to(victim)
    os.chown(state, STRANGER, STRANGER)
    with pytest.raises(InvalidInput, match="state belongs to user"):
        await ControlPlane(state).start()
    assert victim.read_text() == "before"
    assert sorted(path.name for path in state.iterdir()) == [".kubeconfig.new", "kubeconfig.new", "state.lock", "token"]


@pytest.mark.parametrize("name", ["token", "state.db", "state.lock", "tls"])
async def test_content_of_another_user_is_not_used(tmp_path: Path, name: str) -> None:
    planted(tmp_path / name, "a token that somebody else knows")
    with pytest.raises(InvalidInput, match=f"{name} belongs to user"):
        await ControlPlane(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_key_that_another_user_put_there_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    planted(tmp_path / "tls" / "ca.key")
    with pytest.raises(InvalidInput, match=r"ca\.key belongs to user"):
        await ControlPlane(tmp_path).start()


async def test_links_are_not_followed(tmp_path: Path) -> None:
    state, victim = tmp_path / "state", tmp_path / "victim"
    state.mkdir()
    victim.write_text("before")
    (state / ".kubeconfig.new").symlink_to(victim)
    async with ControlPlane(state):
        assert not (state / "kubeconfig").is_symlink()
    (state / "state.lock").unlink()
    (state / "state.lock").symlink_to(victim)
    with pytest.raises(InvalidInput, match=r"state\.lock is a symbolic link; remove it"):
        await ControlPlane(state).start()
    assert victim.read_text() == "before"


def test_an_agents_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "agent-0").mkdir()
    os.chown(tmp_path / "agent-0", STRANGER, STRANGER)
    with pytest.raises(ResourceError, match="agent-0 belongs to user"):
        Folder(tmp_path)


def test_a_targets_folder_of_another_user_is_not_used(tmp_path: Path) -> None:
    os.chown(tmp_path, STRANGER, STRANGER)
    with pytest.raises(ResourceError, match="belongs to user"):
        _locked(tmp_path)
