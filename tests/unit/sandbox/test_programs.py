"""Tests the explanation why a sandbox lacks a program: where it is on this host, and how to provide it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.sandbox import explain_absence


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    return tmp_path / "home"


def program(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_a_version_manager_in_the_home(home: Path) -> None:
    found = program(home / ".nvm/versions/node/v20.1.0/bin/nod3")
    said = explain_absence("nod3")
    assert f"this host has {found}" in said
    assert f"--read-only-path {home}/.nvm/versions/node/v20.1.0," in said
    assert "write that path" in said


def test_what_is_shown_has_to_be_written_with_its_path(home: Path) -> None:
    found = program(home / ".nvm/versions/node/v20.1.0/bin/nod3")
    assert (
        explain_absence("nod3", [str(home / ".nvm")]) == f"it is {found}: write that path, which a policy has to allow"
    )


def test_a_path_that_sandboxes_do_not_see(home: Path, tmp_path: Path) -> None:
    found = program(tmp_path / "venv/bin/tool")
    said = explain_absence(str(found))
    assert said == (
        f"it is there on this host, but sandboxes do not see {tmp_path}/venv: mount that at its own path (a hostPath in"
        " spec.volumes, which a policy's volumes.hostPaths allows), or start Remit with"
        f" --read-only-path {tmp_path}/venv"
    )
    assert explain_absence(str(found), [str(tmp_path)]) == ""


def test_an_environment_whose_interpreter_is_elsewhere(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = program(tmp_path / "pythons/3.99/bin/pyth0n")
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "venv/bin/pyth0n").symlink_to(real)
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "venv"))
    said = explain_absence("pyth0n")
    assert f"--read-only-path {tmp_path}/venv --read-only-path {tmp_path}/pythons/3.99" in said


def test_a_link_into_the_same_installation_needs_it_once(home: Path) -> None:
    real = program(home / ".nvm/versions/node/v20/lib/node_modules/np/bin/cli.js")
    (home / ".nvm/versions/node/v20/bin").mkdir()
    (home / ".nvm/versions/node/v20/bin/np").symlink_to(real)
    assert explain_absence("np").count("--read-only-path") == 1


def test_a_home_is_never_shown_as_a_whole(home: Path) -> None:
    program(home / "bin/mine")
    assert f"--read-only-path {home}/bin," in explain_absence("mine")


@pytest.mark.parametrize("name", ["nowhere-at-all", "/nowhere/at/all", "./relative", "a\0b", "x" * 5000])
def test_what_is_nowhere(home: Path, name: str) -> None:
    assert explain_absence(name) == ""


def test_a_file_that_is_no_program(home: Path) -> None:
    program(home / "bin/data").chmod(0o644)
    assert explain_absence("data") == ""
