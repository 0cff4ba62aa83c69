"""Tests `remit get --watch` on a terminal and elsewhere, and tables that are wider than the terminal."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console
from rich.text import Text

from remit.cli import tables

WIDTH, HEIGHT = 80, 24


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=WIDTH, height=HEIGHT, highlight=False, color_system=None)
    monkeypatch.setattr(tables, "console", lambda: made)
    return screen


def task(number: int, version: int) -> dict[str, Any]:
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": f"t-{number:03}", "namespace": "d", "uid": str(number), "resourceVersion": str(version)},
        "spec": {"command": {"line": "ls"}},
        "status": {"phase": "Failed", "message": "a message that is longer than what is left of the line for it"},
    }


def deployment(number: int, version: int) -> dict[str, Any]:
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": f"d-{number:03}", "namespace": "d", "uid": f"d{number}", "resourceVersion": str(version)},
        "spec": {"artifact": {"image": "shop:1"}, "target": {"docker": {}}, "strategy": {"blueGreen": {}}},
        "status": {"phase": "Healthy", "message": "revision 1 is live"},
    }


def frame(screen: io.StringIO) -> list[str]:
    """Returns the lines of the last screen without cursor movements."""
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue()).replace("\r", "")
    screen.seek(0)
    screen.truncate()
    return text.split("\n")


def test_a_frame_never_is_taller_than_the_terminal_and_shows_what_changed_last(terminal: io.StringIO) -> None:
    objects = [task(number, 1000 - number) for number in range(100)]
    objects[70]["metadata"]["resourceVersion"] = "5000"
    with tables.Watch(wide=False, namespaces=False) as watch:
        for _ in range(2):
            watch.update({"tasks": objects})
            lines = frame(terminal)
            assert len(lines) < HEIGHT
            assert all(len(line) <= WIDTH for line in lines)
            shown = [line.split()[0] for line in lines if line.strip().startswith("t-")]
            assert shown == [*(f"t-{number:03}" for number in range(17)), "t-070"]
            assert "… and 82 that changed before these; remit get shows all" in lines


def test_messages_are_cut_off_where_there_is_no_room_to_fold_them(terminal: io.StringIO) -> None:
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(number, number) for number in range(12)]})
        lines = frame(terminal)
    assert [line.split()[0] for line in lines if line.strip(" ─")] == ["NAME", *(f"t-{n:03}" for n in range(12))]


@pytest.mark.parametrize(
    ("tasks", "deployments", "rows"), [(100, 100, (7, 7)), (100, 2, (12, 2)), (3, 100, (3, 11)), (100, 0, (18, 0))]
)
def test_several_kinds_share_the_terminal(
    terminal: io.StringIO, tasks: int, deployments: int, rows: tuple[int, int]
) -> None:
    found = {
        "tasks": [task(number, 1000 - number) for number in range(tasks)],
        "deployments": [deployment(number, 1000 - number) for number in range(deployments)],
    }
    with tables.Watch(wide=False, namespaces=False) as watch:
        for _ in range(2):
            watch.update(found)
            lines = frame(terminal)
            assert len(lines) < HEIGHT
            assert all(len(line) <= WIDTH for line in lines)
            shown = [line.split()[0] for line in lines if line.strip().startswith(("t-", "d-"))]
            expected = [f"t-{number:03}" for number in range(rows[0])], [f"d-{number:03}" for number in range(rows[1])]
            assert shown == [*expected[0], *expected[1]]
            assert sum(line.strip().startswith("NAME") for line in lines) == 2 - (deployments == 0)
            kinds = {"tasks": tasks - rows[0], "deployments": deployments - rows[1]}
            left_out = [str(left) if not deployments else f"{left} {kind}" for kind, left in kinds.items() if left]
            assert f"… and {' and '.join(left_out)} that changed before these; remit get shows all" in lines


def test_a_terminal_of_a_few_lines_keeps_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=WIDTH, height=6, color_system=None)
    monkeypatch.setattr(tables, "console", lambda: made)
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(1, 1), task(2, 2)], "deployments": [deployment(1, 3)]})
        assert len(frame(screen)) <= 6


def test_the_first_objects_are_shown_where_the_order_is_the_users(terminal: io.StringIO) -> None:
    objects = [task(number, number) for number in reversed(range(100))]
    with tables.Watch(wide=False, namespaces=False, in_order=True) as watch:
        watch.update({"tasks": objects})
        lines = frame(terminal)
    shown = [line.split()[0] for line in lines if line.strip().startswith("t-")]
    assert shown == [f"t-{99 - number:03}" for number in range(18)]
    assert len(lines) < HEIGHT
    assert "… and 82 more; remit get shows all" in lines


def test_a_few_objects_are_shown_whole(terminal: io.StringIO) -> None:
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(1, 1), task(2, 2)]})
    text = " ".join(" ".join(frame(terminal)).split())
    assert "left of" in text
    assert "changed before" not in text


def test_a_terminal_that_cannot_move_its_cursor_gets_lines(
    terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "dumb")
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(1, 1)]})
        watch.update({"tasks": [task(1, 2)]})
    assert sum(line.strip().startswith("t-001") for line in terminal.getvalue().splitlines()) == 2
    assert "\x1b" not in terminal.getvalue()


def test_without_a_terminal_each_change_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(1, 1), task(2, 2)]})
        watch.update({"tasks": [task(1, 1), task(2, 3)]})
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "t-001", "t-002", "t-002"]
    assert "\x1b" not in out


def test_without_a_terminal_rows_of_another_kind_have_its_header(capsys: pytest.CaptureFixture[str]) -> None:
    with tables.Watch(wide=False, namespaces=False) as watch:
        watch.update({"tasks": [task(1, 1)], "deployments": [deployment(1, 2)]})
        watch.update({"tasks": [task(1, 1)], "deployments": [deployment(1, 3)]})
        watch.update({"tasks": [task(1, 4)], "deployments": [deployment(1, 3)]})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["NAME", "t-001", "NAME", "d-001", "d-001", "NAME", "t-001"]
    assert lines[2][2] == "STAGE"


ARTIFACTS = [f"registry.example.com/platform/storefront/shop-backend:2026.11.{day}" for day in (28, 29)]


def rows(artifacts: list[str]) -> list[list[Text]]:
    cells = ("Promoted", "live", "2026-11-26 12:57:40Z", "4.0s")
    return [[Text(cell) for cell in (str(n), artifact, *cells)] for n, artifact in enumerate(artifacts, 1)]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_artifacts_are_cut_where_they_do_not_differ(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    screen = io.StringIO()
    made = Console(file=screen, force_terminal=True, width=width, highlight=False, color_system=None)
    monkeypatch.setattr(tables, "console", lambda: made)
    made.print(tables.filled(["REVISION", "ARTIFACT", "OUTCOME", "LIVE", "DEPLOYED", "TOOK"], rows(ARTIFACTS)))
    shown = [line for line in screen.getvalue().splitlines() if "Promoted" in line]
    assert "2026.11.28" in shown[0]
    assert "2026.11.29" in shown[1]
    assert all(len(line) <= width for line in shown)
    assert "…" in shown[0]
    assert "live" in shown[0]


def test_where_no_terminal_is_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    tables.console().print(tables.filled(["REVISION", "ARTIFACT"], [[Text("1"), Text(ARTIFACTS[0])]]))
    assert ARTIFACTS[0] in capsys.readouterr().out
