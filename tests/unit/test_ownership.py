"""Tests that no records are kept where another user could replace them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from parts import require
from remit.agent.folder import Folder
from remit.errors import AuditUnavailable, RemitError, ResourceError
from remit.privatefiles import private_directory, untrusted_owner
from remit.telemetry.audit import AuditLog


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    require("root", os.geteuid() == 0, "only root can give a folder away")
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    return folder


def test_own_folders_and_those_of_root_are_trusted(tmp_path: Path) -> None:
    assert untrusted_owner(tmp_path) is None
    assert untrusted_owner(Path("/")) is None


def test_no_trail_is_kept_in_a_folder_of_another_user(theirs: Path) -> None:
    with pytest.raises(AuditUnavailable, match="belongs to user 65534"):
        AuditLog(theirs / "audit.jsonl")
    assert list(theirs.iterdir()) == []


def test_no_operator_and_no_agent_works_in_one(theirs: Path) -> None:
    with pytest.raises(RemitError, match="belongs to user 65534"):
        private_directory(theirs)
    with pytest.raises(ResourceError, match="belongs to user 65534"):
        Folder(theirs)
    assert list(theirs.iterdir()) == []
