"""Tests `remit audit show` and `export` with a trail of several files: the selected records, in order, and escaped."""

from __future__ import annotations

import csv
import datetime
import io
import json
import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import Result

import commandline
from remit.describe.audittrail import as_csv, as_json, moment, row
from remit.errors import InvalidInput
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.logs import escape
from remit.telemetry.segments import segments
from remit.telemetry.trail import opened
from remit.telemetry.verifying import verify

START = datetime.datetime(2026, 1, 31, 8, 0, tzinfo=datetime.UTC)
HOSTILE = "\x1b]0;owned\x07\x9b31m\u202e\x7f\n    99  2026-01-31T08:00:00Z  decision   Allowed"


@pytest.fixture
def trail(tmp_path: Path) -> Path:
    """Provides twenty decisions, a minute apart, in several files."""
    path = tmp_path / "audit" / "audit.jsonl"
    moments = iter(START + datetime.timedelta(minutes=number) for number in range(100))
    with AuditLog(path, max_bytes=1500, clock=lambda: next(moments)) as log:
        for number in range(20):
            log.append(
                AuditEvent(
                    kind="release" if number == 9 else "execution" if number % 2 else "decision",
                    namespace="data" if number % 3 else "other",
                    task=f"task-{number % 5}",
                    argv=["echo", str(number)],
                    verdict="Denied" if number == 7 else "Allowed",
                    message="=1+1" if number == 8 else "",
                )
            )
    assert len(segments(path)) > 2
    return path


def audit(*arguments: str | Path) -> Result:
    return commandline.invoke("audit", *map(str, arguments))


def records(result: Result) -> list[dict[str, object]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


def whole(path: Path) -> bytes:
    return b"".join(file.read_bytes() for file in [*segments(path), path])


def test_records_of_all_files_are_shown_in_order(trail: Path) -> None:
    shown = records(audit("show", trail, "-o", "json"))
    assert [record["seq"] for record in shown] == list(range(1, len(shown) + 1))
    assert [record["argv"] for record in shown if "argv" in record] == [["echo", str(n)] for n in range(20)]
    assert len(audit("show", trail.parent).stdout.splitlines()) == len(shown) + 1


@pytest.mark.parametrize("command", [("show", "-o", "json"), ("export",)])
@pytest.mark.parametrize(
    ("options", "fits"),
    [
        (("--namespace", "other"), lambda record: record.get("namespace") == "other"),
        (
            ("--task", "task-3", "-n", "data"),
            lambda record: (record.get("namespace"), record.get("task")) == ("data", "task-3"),
        ),
        (("--kind", "release"), lambda record: record["kind"] == "release"),
        (("--kind", "segment"), lambda record: record["kind"] == "segment"),
        (("--verdict", "denied"), lambda record: record.get("verdict") == "Denied"),
        (("--since", "2026-01-31T09:05:00+01:00"), lambda record: record["time"] >= "2026-01-31T08:05"),
        (("--until", "2026-01-31T08:05:00Z"), lambda record: record["time"] < "2026-01-31T08:05"),
        (("--since", "1h"), lambda _: False),
        (("--until", "1h", "--last", "4"), lambda record: record["seq"] > 20),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_filters(trail: Path, command: tuple[str, ...], options: tuple[str, ...], fits) -> None:
    everything = records(audit("show", trail, "-o", "json"))
    if "--last" in options:
        expected = everything[-4:]
    else:
        expected = [record for record in everything if fits(record)]
        assert bool(expected) == (options != ("--since", "1h"))
    name, *rest = command
    assert records(audit(name, trail, *rest, *options)) == expected


def test_a_whole_copy_has_the_records_own_bytes_and_is_a_trail_itself(trail: Path, tmp_path: Path) -> None:
    assert audit("export", trail).stdout_bytes == whole(trail)
    copy = tmp_path / "a copy.jsonl"
    result = audit("export", trail, "--output", copy)
    assert (result.exit_code, result.stdout) == (0, "")
    assert copy.read_bytes() == whole(trail)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    head = verify(trail).head
    assert f"{verify(trail).records} records" in result.stderr
    assert f"remit audit verify '{copy}' --head {head.seq}:{head.hash}" in result.stderr
    assert audit("verify", copy, "--head", f"{head.seq}:{head.hash}").exit_code == 0
    told = json.loads(audit("verify", copy, "-o", "json").stdout)
    assert (told["whole"], told["head"], told["problems"]) == (True, f"{head.seq}:{head.hash}", [])
    copy.write_bytes(b"".join(copy.read_bytes().splitlines(keepends=True)[:-1]))
    assert audit("verify", copy, "--head", f"{head.seq}:{head.hash}").exit_code == 1
    done = audit("verify", copy, "--head", f"{head.seq}:{head.hash}", "-o", "json")
    assert (done.exit_code, json.loads(done.stdout)["whole"]) == (1, False)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a copy.jsonl", "audit"]


def test_the_end_of_a_trail_is_verified_after_what_it_continues(trail: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.jsonl"
    told = audit("export", trail, "--last", "9", "-o", copy).stderr
    options = told.rsplit("remit audit verify", 1)[1].split()[1:]
    assert options[0] == "--after"
    assert audit("verify", copy, *options).exit_code == 0
    assert audit("verify", copy).exit_code == 1


def test_records_with_gaps_between_them_are_not_said_to_be_verifiable(trail: Path, tmp_path: Path) -> None:
    told = audit("export", trail, "-n", "other", "-o", tmp_path / "copy.jsonl").stderr
    assert "the last is" in told
    assert "verify" not in told


def test_comma_separated_values(trail: Path) -> None:
    table = list(csv.DictReader(io.StringIO(audit("export", trail, "--format", "csv").stdout)))
    assert [row["seq"] for row in table] == [str(number + 1) for number in range(len(table))]
    assert table[-1]["hash"] == verify(trail).head.hash
    said = [row for row in table if row["message"]]
    assert [(row["message"], row["argv"]) for row in said] == [("'=1+1", '["echo","8"]')]


@pytest.mark.parametrize("name", ["audit.jsonl", "audit-000001.jsonl", "audit-000099.jsonl"])
def test_the_trail_is_not_overwritten_with_its_copy(trail: Path, name: str) -> None:
    before = whole(trail)
    link = trail.parent.with_name("link")
    link.symlink_to(trail.parent)
    assert audit("export", trail, "-o", link / name).exit_code == 1
    assert whole(trail) == before


def test_a_file_that_cannot_be_finished_leaves_what_was_there(trail: Path, tmp_path: Path, monkeypatch) -> None:
    copy = tmp_path / "copy"
    copy.write_text("older")

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    assert audit("export", trail, "-o", copy).exit_code == 1
    assert copy.read_text() == "older"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["audit", "copy"]


def test_lines_that_are_no_records_are_left_out_and_told(trail: Path) -> None:
    with trail.open("ab") as file:
        file.write(b"nonsense\n" + b'{"seq":999,"time"')
    for command in ("show", "export"):
        result = audit(command, trail)
        assert '"seq":999' not in result.stdout
        assert "left out 2 lines" in result.stderr


def test_names_that_would_drive_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with AuditLog(path) as log:
        log.append(
            AuditEvent(
                kind="decision",
                namespace=HOSTILE,
                task=HOSTILE,
                argv=[HOSTILE],
                message=HOSTILE,
                rule=HOSTILE,
                policy=HOSTILE,
            )
        )
    assert len(audit("show", path).stdout.splitlines()) == 2
    for command in (("show",), ("show", "-o", "json"), ("export", "--format", "csv")):
        text = audit(*command, path).stdout
        assert all(escape(line) == line for line in text.split("\n"))
    assert records(audit("show", "-o", "json", path))[0]["task"] == HOSTILE
    assert audit("export", path).stdout_bytes == path.read_bytes()


def test_a_record_of_the_wrong_types_is_shown_as_well(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_text('{"seq":1,"time":3,"kind":[],"argv":7,"verdict":{},"policy":null,"task":1,"namespace":[2]}\n')
    assert "[2]/1" in audit("show", path).stdout


@given(
    st.dictionaries(
        st.sampled_from(["task", "namespace", "message", "policy", "rule", "argv"]), st.text() | st.lists(st.text())
    )
)
def test_a_row_is_one_harmless_line(record: dict[str, object]) -> None:
    shown = row({"seq": 1, **record})
    assert escape(shown) == shown


@given(st.lists(st.text() | st.integers() | st.lists(st.text(st.characters(codec="utf-8")))))
def test_cells_are_never_formulas_and_a_record_is_one_line(cells: list[object]) -> None:
    line = as_csv(cells)
    assert line.count("\n") == 1
    (read,) = csv.reader(io.StringIO(line)) if line.strip() else ([],)
    assert not [
        text for text, cell in zip(read, cells, strict=False) if text[:1] in set("=+-@") and not isinstance(cell, int)
    ]


@given(st.text(st.characters(codec="utf-8")))
def test_json_on_a_terminal_is_harmless_and_says_the_same(text: str) -> None:
    line = json.dumps({"seq": 1, "task": text}, ensure_ascii=False).encode() + b"\n"
    shown = as_json(line)
    assert escape(shown) == shown
    assert json.loads(shown)["task"] == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", START - datetime.timedelta(seconds=90)),
        ("30m", START - datetime.timedelta(minutes=30)),
        ("1h", START - datetime.timedelta(hours=1)),
        ("2d", START - datetime.timedelta(days=2)),
        ("1w", START - datetime.timedelta(weeks=1)),
        ("2026-01-31T09:00:00+01:00", START),
        ("2026-01-31T08:00:00Z", START),
        ("2026-01-31T08:00:00", START),
        ("2026-01-31", START.replace(hour=0)),
    ],
)
def test_moments(text: str, expected: datetime.datetime) -> None:
    assert moment(text, START) == expected


@pytest.mark.parametrize(
    "text", ["", "h", "1x", "yesterday", "999999999w", "-1h", "2026-13-01", "0001-01-01T00:00:00+14:00"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(ValueError, match="such as 1h"):
        moment(text, START)


@pytest.mark.parametrize("option", ["--head", "--after"])
@pytest.mark.parametrize("value", ["", " ", "7", "7:", "²:" + "0" * 64, f"7:{'z' * 64}"])
def test_an_anchor_that_is_none_is_wrong_usage(trail: Path, option: str, value: str) -> None:
    """This includes an empty anchor: a command that should provide it found nothing, and a truncated trail would go
    unnoticed."""
    result = audit("verify", trail, option, value)
    assert result.exit_code == 2
    assert "whole" not in result.output
    assert ("it is empty" in result.output) is not value.strip()


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_an_empty_moment_is_wrong_usage(trail: Path, option: str) -> None:
    assert audit("show", trail, option, "").exit_code == 2


def test_without_a_head_the_warning_stays(trail: Path) -> None:
    result = audit("verify", trail)
    assert (result.exit_code, "only with --head" in result.stderr) == (0, True)


@pytest.mark.parametrize("command", ["verify", "show", "export"])
@pytest.mark.parametrize("which", ["newest", "closed", "device"])
def test_only_regular_files_are_a_trail(trail: Path, command: str, which: str) -> None:
    path = trail
    if which == "device":
        path = Path("/dev/zero")
    else:
        pipe = trail if which == "newest" else segments(trail)[1]
        pipe.unlink()
        os.mkfifo(pipe)
    result = audit(command, path)
    assert isinstance(result.exception, InvalidInput if command == "verify" else OSError)
    assert "not a regular file" in str(result.exception)


def test_a_line_without_an_end_is_not_held(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    sizes = [len(line) for part in opened(path) for line in part.lines()]
    assert sum(sizes) == 64 << 20
    assert max(sizes) <= 16 << 20
    assert "not an audit record" in audit("verify", path).output
