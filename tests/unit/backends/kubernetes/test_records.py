"""Tests reading the log of a Job's container, in pieces of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends.base import KeptFiles
from remit.backends.kubernetes.records import MOST_BYTES, Records
from remit.backends.kubernetes.spool import Spool
from remit.backends.kubernetes.texts import LogTree

END = (
    b'= {"exitCode":3,"signal":0,"stdoutBytes":%d,"stderrBytes":%d,"cpuMicroseconds":1500000,"maxMemoryBytes":4096,'
    b'"oomKills":0,"throttledMicroseconds":0,"maxTasks":2,"readBlocks":0,"writtenBlocks":0,"error":"","errno":0}'
)
LINES = st.lists(st.tuples(st.sampled_from([b"o", b"O", b"e", b"E"]), st.binary(max_size=20)), max_size=30)


def log(lines: Sequence[bytes], stamps: Sequence[int] | None = None) -> list[bytes]:
    """Returns lines as the kubelet sends them, one second apart or with the times of `stamps`."""
    times = stamps or range(len(lines))
    return [
        b"2026-01-01T00:%02d:%02d.000000000Z %b\n" % (at // 60, at % 60, line)
        for at, line in zip(times, lines, strict=True)
    ]


def heard(records: Records, pieces: Sequence[bytes]) -> dict[str, bytes]:
    said = {"stdout": b"", "stderr": b""}
    for piece in pieces:
        for stream, text in records.feed(piece):
            said[stream] += text
    return said


@given(LINES, st.data())
def test_what_a_program_said_comes_out_whatever_the_pieces(
    lines: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    lines = [(kind, text.replace(b"\n", b"")) for kind, text in lines]
    whole = b"".join(log([kind + b" " + text for kind, text in lines]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    wanted = {"stdout": b"", "stderr": b""}
    for kind, text in lines:
        wanted["stdout" if kind in b"oO" else "stderr"] += text + (b"\n" if kind in b"oe" else b"")
    assert heard(Records(), pieces) == wanted


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.data())
def test_read_again_it_tells_only_what_is_new(steps: list[int], data: st.DataObject) -> None:
    """Several lines may have the same time, and the log is read again from that time on, or from an earlier one."""
    stamps = [sum(steps[: index + 1]) for index in range(len(steps))]
    lines = log([b"o %d" % number for number in range(len(stamps))], stamps)
    seen = data.draw(st.integers(0, len(lines)))
    begin = data.draw(st.integers(0, next((i for i, at in enumerate(stamps) if seen and at == stamps[seen - 1]), 0)))
    records = Records()
    said = heard(records, lines[:seen])
    records.again()
    said["stdout"] += heard(records, lines[begin:])["stdout"]
    assert said["stdout"] == b"".join(b"%d\n" % number for number in range(len(stamps)))


def test_what_was_cut_off_is_read_again() -> None:
    first, second = log([b"o one", b"o two"])
    records = Records()
    heard(records, [first, second[:-3]])
    records.again()
    assert heard(records, [second])["stdout"] == b"two\n"


def test_the_last_record_tells_how_it_ended() -> None:
    records = Records()
    heard(records, log([b"o hi", END % (3, 0)]))
    ended = records.ended
    assert ended is not None
    assert (ended.exit_code, ended.cpu_seconds, ended.max_memory_bytes, ended.max_tasks) == (3, 1.5, 4096, 2)
    assert records.lost_bytes == 0


def test_what_the_node_had_rotated_away_is_counted() -> None:
    records = Records()
    heard(records, log([b"o hi", END % (1003, 20)]))
    assert records.lost_bytes == 1020


@pytest.mark.parametrize("line", [b"= {", b"= []", b'= {"exitCode":1}', b"=", b"o", b"", b"exec format error", b"x y"])
def test_what_is_no_record_is_no_output(line: bytes) -> None:
    records = Records()
    assert heard(records, log([line])) == {"stdout": b"", "stderr": b""}
    assert records.ended is None
    assert records.unexpected == line + b"\n"


def test_a_line_without_an_end_takes_no_memory() -> None:
    records = Records()
    for _ in range(64):
        heard(records, [b"x" * MOST_BYTES])
    assert len(records._rest) <= MOST_BYTES


def test_small_files_come_with_the_log() -> None:
    records = Records()
    heard(records, log([b"r 0 aGk=", b"r 1 !13", b"r 2 ", b"r x aGk=", b"r 3 *", b"r 4 !x"]))
    assert records.results == {0: b"hi", 1: 13, 2: b""}
    tree = LogTree(["/a", "/b", "/c", "/d"], records.results, Spool(()))
    (found,) = tree.find("/a")
    assert (found.path, found.size, found.open().read()) == ("/a", 2, b"hi")
    (unreadable,) = tree.find("/b")
    with pytest.raises(PermissionError):
        unreadable.open()
    assert [*tree.find("/d"), *tree.find("/*")] == []


@pytest.mark.parametrize(
    "line",
    [
        b"failed to create fsnotify watcher: too many open files",
        b"unable to retrieve container logs for containerd://0123456789",
    ],
)
def test_the_words_of_a_kubelet_are_no_time(line: bytes) -> None:
    """The kubelet writes such messages into the stream of the log, without a time, and the log continues at the next
    request."""
    records, lines = Records(), log([b"o one", b"o two", END % (8, 0)])
    assert heard(records, [lines[0], line + b"\n"])["stdout"] == b"one\n"
    assert records.last == "2026-01-01T00:00:00.000000000Z"
    records.again()
    assert heard(records, lines)["stdout"] == b"two\n"
    assert records.ended is not None
    assert line in records.unexpected


@pytest.mark.parametrize("number", [b"1e300", b"-1", b"1e30", b'"x"', b"null", b"99999999999999999999", b"[]"])
def test_numbers_that_no_launcher_writes_end_nothing(number: bytes) -> None:
    end = (END % (0, 0)).replace(b'"exitCode":3', b'"exitCode":' + number)
    records = Records()
    heard(records, log([end]))
    assert records.ended is None


def test_results_that_nobody_asked_for_are_not_kept() -> None:
    records = Records()
    heard(records, log([b"r %d YQ==" % number for number in (0, 31, 32, 10**9, -1)]))
    assert set(records.results) == {0, 31}


def test_a_node_tells_its_own_time() -> None:
    records = Records()
    heard(records, [b"2026-11-30T10:03:03.934930442+01:00 o hi\n"])
    assert records.since == "2026-11-30T09:03:03Z"


def test_words_of_the_kubelet_are_no_records() -> None:
    records = Records()
    assert heard(records, [b"unable to retrieve container logs\n", b"\n"]) == {"stdout": b"", "stderr": b""}
    assert (records.last, records.unexpected) == ("", b"unable to retrieve container logs\n\n")


KEPT = [KeptFiles("/workspace/*", 1 << 20)]
NO_FILES = [b"a", b"a 0", b"a 0 0 0 1", b"a 1 0 0 1 eA==", b"a 0 50033 0 1 eA==", b"a 0 0 0 -1 eA==", b"a 0 0 0 1 *"]
NO_BLOCKS = [
    b"b 0 0 *",
    b"b 0 99999 eA==",
    b"b -1 0 eA==",
    b"b 0",
    b"c 0 x y",
    b"n 1 0 - 0",
    b"n 0 0 - 9999",
    b"n 0 -1 - 0",
]


@pytest.mark.parametrize("line", [*NO_FILES, *NO_BLOCKS])
def test_what_no_launcher_tells_of_files_is_not_kept(line: bytes) -> None:
    records = Records(spool=Spool(KEPT))
    heard(records, log([b"a 0 0 0 1 eA==", line]))
    assert records.unexpected == line + b"\n"


def test_files_that_nobody_asked_for_take_no_room() -> None:
    records = Records()
    heard(records, log([b"a 0 0 0 1 eA==", b"b 0 0 eA==", b"b 7 0 eA=="]))
    assert (records.spool._length, records.spool._files) == (0, {})


def test_a_pattern_without_its_end_is_not_whole() -> None:
    digest = hashlib.sha256(b"x").hexdigest().encode()
    lines = [b"a 0 0 1 1 eA==", b"b 0 0 eA==", b"c 0 1 " + digest, b"n 0 1 - 0"]
    for missing in range(len(lines)):
        spool = Spool(KEPT)
        heard(Records(spool=spool), log(lines[:missing] + lines[missing + 1 :]))
        assert not spool.is_whole
        with pytest.raises(OSError, match="did not arrive"):
            list(spool.find("/workspace/*"))
    records = Records(spool=Spool(KEPT))
    heard(records, log(lines))
    (found,) = records.spool.find("/workspace/*")
    assert (found.path, found.size, found.executable, found.open().read()) == ("x", 1, True, b"x")


def test_a_full_disk_is_told_when_files_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.backends.kubernetes.spool.nearly_full", lambda _: True)
    spool = Spool(KEPT)
    heard(Records(spool=spool), log([b"a 0 0 0 1 eA==", b"b 0 0 eA=="]))
    with pytest.raises(OSError, match="audit trail"):
        list(spool.find("/workspace/*"))
    assert spool.is_whole, "nothing is waited for that cannot be kept"
