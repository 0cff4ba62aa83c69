from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.operations import CommandOperation
from remit.errors import InvalidInput
from remit.operations.command import invocation, resolve, words


def line(text: str) -> tuple[str, ...]:
    return words(CommandOperation(line=text))


def test_a_line_is_split_as_a_shell_would_and_nothing_is_expanded() -> None:
    assert line("""echo "a b" 'c d' e\\ f $HOME *.py `id` $(id) ; rm -rf / | cat > x""") == (
        "echo", "a b", "c d", "e f", "$HOME", "*.py", "`id`", "$(id)", ";", "rm", "-rf", "/", "|", "cat", ">", "x",
    )  # fmt: skip


@given(
    st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8")), min_size=1).filter(lambda argv: argv[0])
)
def test_every_argv_survives_being_written_as_a_line(argv: list[str]) -> None:
    assert line(shlex.join(argv)) == tuple(argv)
    assert words(CommandOperation(argv=argv)) == tuple(argv)


@pytest.mark.parametrize("text", ["echo 'open", 'echo "open', "echo \\", "   ", "''"])
def test_a_line_that_cannot_be_split_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.command\.line: "):
        line(text)


@pytest.mark.parametrize("argv", [["echo", "a\0b"], [""]])
def test_arguments_that_no_program_can_get_are_refused(argv: list[str]) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.command\.argv"):
        words(CommandOperation(argv=argv))


def program(directory: Path, name: str, mode: int = 0o755) -> Path:
    path = directory / name
    path.write_text("#!/bin/true\n")
    path.chmod(mode)
    return path


def test_a_bare_name_is_found_in_the_fixed_path_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    first.mkdir(), second.mkdir()
    program(first, "tool", 0o644)
    there = program(second, "tool")
    elsewhere = tmp_path / "3"
    elsewhere.mkdir()
    program(elsewhere, "other")
    monkeypatch.setenv("PATH", str(elsewhere))
    assert resolve("tool", (str(first), str(second))) == str(there)
    with pytest.raises(InvalidInput, match="there is no program 'other' in"):
        resolve("other", (str(first), str(second)))


def test_relative_paths_are_refused_and_absolute_ones_normalised(tmp_path: Path) -> None:
    there = program(tmp_path, "tool")
    for name in ("./tool", "bin/tool", "../tool"):
        with pytest.raises(InvalidInput, match="relative path"):
            resolve(name)
    assert resolve(f"{tmp_path}/./x/../tool") == str(there)
    with pytest.raises(InvalidInput, match="there is no program"):
        resolve(str(tmp_path))


def test_both_together() -> None:
    found = invocation(CommandOperation(line="cat /etc/hostname"))
    assert found.argv == ("cat", "/etc/hostname")
    assert found.executable.endswith("/bin/cat")
