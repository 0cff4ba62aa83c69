"""Tests an operator's identity for its lease: the same after a restart, and never the same as that of another running
one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from remit.controllers import statedir
from remit.controllers.statedir import holder_identity, locked
from remit.errors import RemitError
from remit.privatefiles import private_directory


def of(state_dir: Path) -> str:
    with holder_identity(state_dir) as identity:
        return identity


def test_it_stays_over_restarts(tmp_path: Path) -> None:
    assert of(tmp_path) == of(tmp_path)


def test_two_that_are_alive_have_two(tmp_path: Path) -> None:
    first = of(tmp_path)
    with holder_identity(tmp_path) as one, holder_identity(tmp_path) as two, holder_identity(tmp_path) as three:
        assert one == first
        assert len({one, two, three}) == 3
    assert of(tmp_path) == first


def test_a_copy_of_the_directory_has_another(tmp_path: Path) -> None:
    private_directory(tmp_path / "a")
    first = of(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert of(tmp_path / "b") != first


def test_another_machine_that_shares_it_has_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """This also holds if the file system does not share its locks."""
    first = of(tmp_path)
    monkeypatch.setattr(statedir, "boot_id", lambda: "another boot")
    assert of(tmp_path) != first


def test_one_operator_works_in_it(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(RemitError, match="another operator works in"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass
