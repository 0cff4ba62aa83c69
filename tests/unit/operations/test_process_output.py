"""Tests the kept output of a supervised process: rotated, read back by runs, with the times at which it arrived."""

from __future__ import annotations

import datetime
import itertools
from pathlib import Path
from typing import Any

import pytest

from remit.backends.outputtimes import MOST_ENTRIES, OutputTimes, RecordedTimes
from remit.execution.lines import LineReader
from remit.operations.process.logs import NoPreviousRun, RotatingOutput, RotatingReader, tail


def read(reader: RotatingReader) -> bytes:
    try:
        return b"".join(iter(reader.read, b""))
    finally:
        reader.close()


def kept(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_each_run_is_read_by_itself(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 1 << 20)
    for word in (b"first\n", b"second\n", b"third\n"):
        output.begin()
        output.write("stdout", word)
        output.flush()
    assert read(RotatingReader(tmp_path, "stdout")) == b"first\nsecond\nthird\n"
    assert read(RotatingReader(tmp_path, "stdout", "current")) == b"third\n"
    assert read(RotatingReader(tmp_path, "stdout", "previous")) == b"second\n"
    assert read(RotatingReader(tmp_path, "stderr", "previous")) == b""


def test_a_program_that_was_never_restarted_has_no_previous_run(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 1 << 20)
    output.begin()
    output.write("stdout", b"only\n")
    with pytest.raises(NoPreviousRun):
        RotatingReader(tmp_path, "stdout", "previous")


def test_runs_go_over_the_files_that_were_rotated(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 100)
    output.begin()
    output.write("stdout", b"a" * 40)
    output.begin()
    output.write("stdout", b"b" * 20)  # ten of them are in the next file
    output.begin()
    output.write("stdout", b"c" * 5)
    assert read(RotatingReader(tmp_path, "stdout", "previous")) == b"b" * 20
    assert read(RotatingReader(tmp_path, "stdout", "current")) == b"c" * 5


def test_a_reader_follows_over_rotations_and_counts_what_it_missed(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 20)
    reader = RotatingReader(tmp_path, "stdout")
    assert reader.read() == b""
    output.write("stdout", b"0123456789abcde")
    assert reader.read() + reader.read() == b"0123456789abcde"
    assert not reader.gaps
    output.write("stdout", b"f" * 40)
    assert set(b"".join(iter(reader.read, b""))) == {ord("f")}
    assert reader.gaps == 1
    reader.close()


def test_disk_stays_within_its_bound_whatever_is_written(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 1000)
    for _ in range(300):
        output.begin()
        output.write("stdout", b"x" * 99)
    assert sum(path.stat().st_size for path in tmp_path.glob("stdout.log*")) <= 1000
    assert len(list(tmp_path.glob("stdout.*.times"))) <= 2


def test_a_file_that_gets_the_inode_of_an_earlier_one_does_not_get_its_times(tmp_path: Path) -> None:
    output = RotatingOutput(tmp_path, 1000)
    output.write("stdout", b"new\n")
    inode = (tmp_path / "stdout.log").stat().st_ino
    (tmp_path / "stdout.log").unlink()
    OutputTimes(tmp_path / f"stdout.{inode}.times", lambda: 1).note(0)
    (tmp_path / "stdout.log").touch()
    again = (tmp_path / "stdout.log").stat().st_ino
    (tmp_path / f"stdout.{inode}.times").rename(tmp_path / f"stdout.{again}.times")
    RotatingOutput(tmp_path, 1000).write("stdout", b"new\n")
    moment = RecordedTimes(tmp_path / f"stdout.{again}.times").at(0)
    assert moment is not None
    assert moment > 1


def test_times_take_bounded_space_and_stay_in_order(tmp_path: Path) -> None:
    ticks = itertools.count(10**18, 20_000_000)
    times = OutputTimes(tmp_path / "times", lambda: next(ticks))
    times.note(0, begins=True)
    for position in range(1, 4 * MOST_ENTRIES):
        times.note(position)
    assert (tmp_path / "times").stat().st_size < 16 * MOST_ENTRIES
    recorded = RecordedTimes(tmp_path / "times")
    assert recorded.beginnings() == [0]
    shown = [recorded.at(position) for position in range(0, 4 * MOST_ENTRIES, 97)]
    assert None not in shown
    assert shown == sorted(shown, key=lambda moment: moment or 0)
    last = recorded.at(4 * MOST_ENTRIES)
    assert last is not None
    assert abs(last - (10**9 + 4 * MOST_ENTRIES * 0.02)) < 1


def test_a_torn_index_says_what_it_can(tmp_path: Path) -> None:
    (tmp_path / "times").write_bytes(b"x" * 7)
    assert RecordedTimes(tmp_path / "times").at(5) is None
    assert RecordedTimes(tmp_path / "none").beginnings() == []


class Pieces:
    """A stream of which a piece arrives each second."""

    def __init__(self, *pieces: bytes) -> None:
        self.gaps, self.position = 0, 0
        self._pieces = list(pieces)
        self._starts: list[int] = []

    def read(self, limit: int = 0) -> bytes:
        if not self._pieces or not (piece := self._pieces.pop(0)):
            return b""
        self._starts.append(self.position)
        self.position += len(piece)
        return piece

    def moment(self, position: int) -> float | None:
        return float(sum(start <= position for start in self._starts))

    def close(self) -> None:
        """Does nothing, because nothing is open."""


def at(second: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(second, datetime.UTC)


def test_lines_have_the_time_of_their_beginning() -> None:
    lines = list(LineReader(Pieces(b"a\nb", b"\nc\n", b"d\r\n")).lines())
    assert [(line.data, line.time) for line in lines] == [
        (b"a\n", at(1)), (b"b\n", at(1)), (b"c\n", at(2)), (b"d\r\n", at(3)),
    ]  # fmt: skip


def test_the_last_lines_of_what_is_there_and_then_all() -> None:
    reader = LineReader(Pieces(b"1\n2\n3\n", b"4", b"", b"\n5\n6\n7\n"), tail=1)
    assert [line.data for line in reader.lines()] == [b"3\n"]
    assert [line.data for line in reader.lines(at_end=True)] == [b"4\n", b"5\n", b"6\n", b"7\n"]


def test_lines_since_a_moment() -> None:
    reader = LineReader(Pieces(b"1\n", b"2\n", b"3"), since=at(2))
    assert [line.data for line in reader.lines(at_end=True)] == [b"2\n", b"3"]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines = list(LineReader(Pieces(*[b"x" * 50_000] * 10)).lines(at_end=True))
    assert b"".join(line.data for line in lines) == b"x" * 500_000
    assert max(len(line.data) for line in lines) <= 120_000


class Growing:
    """A log file to which the program writes again after each seek."""

    def __init__(self, path: Path, file: Any) -> None:
        self._path, self._file = path, file

    def __enter__(self) -> Growing:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def seek(self, *where: int) -> int:
        position: int = self._file.seek(*where)
        with open(self._path, "ab") as more:  # noqa: PTH123  # Path.open is replaced
            more.write(b"later" * 1000)
        return position

    def read(self, *count: int) -> bytes:
        read: bytes = self._file.read(*count)
        return read


def test_the_tail_of_a_log_that_grows_meanwhile_is_no_longer_than_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stdout.log.1").write_bytes(b"before " * 10)
    (tmp_path / "stdout.log").write_bytes(b"now")
    assert tail(tmp_path, "stdout", 10) == "before now"
    assert tail(tmp_path, "stdout", 2) == "ow"
    assert tail(tmp_path, "stderr", 10) == ""
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda path, mode: Growing(path, opened(path, mode)))
    assert len(tail(tmp_path, "stdout", 50)) == 50
