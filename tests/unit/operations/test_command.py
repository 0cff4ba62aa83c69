from __future__ import annotations

from pathlib import Path

import pytest

from remit.operations.command import look_up


def program(directory: Path, name: str, mode: int = 0o755) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text("#!/bin/true\n")
    path.chmod(mode)
    return path


def test_a_bare_name_is_found_in_the_fixed_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path / "1", "tool", 0o644)
    there = program(tmp_path / "2", "tool")
    program(tmp_path / "3", "other")
    monkeypatch.setenv("PATH", str(tmp_path / "3"))
    path = [str(tmp_path / "1"), str(tmp_path / "2")]
    assert look_up(["tool", "x"], path).resolved == str(there)
    assert look_up(["other"], path).resolved is None


@pytest.mark.parametrize("name", ["./tool", "bin/tool", "../tool", "", "to\0ol"])
def test_a_name_that_depends_on_where_one_stands_is_never_found(name: str, tmp_path: Path) -> None:
    program(tmp_path, "tool")
    assert look_up([name], [str(tmp_path)]).resolved is None


def test_absolute_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    there = program(tmp_path, "tool")
    assert look_up([f"{tmp_path}/./x/../tool"]).resolved == str(there)
    assert look_up([str(tmp_path)]).resolved is None
    assert look_up([f"{tmp_path}/missing"]).resolved is None
    assert look_up([]).resolved is None


def test_where_a_link_leads_is_known_too(tmp_path: Path) -> None:
    there = program(tmp_path, "tool")
    (tmp_path / "alias").symlink_to(there)
    found = look_up(["alias"], [str(tmp_path)])
    assert (found.resolved, found.real) == (str(tmp_path / "alias"), str(there))
