"""Tests what a log contains of files, whoever wrote it: any user who may create a pod can create one like an
attempt's."""

from __future__ import annotations

import base64
import tracemalloc

import pytest

from remit.backends.base import KeptFiles
from remit.backends.filetree import TooMuch
from remit.backends.kubernetes.spool import Spool

PATTERN = "/workspace/*"
EMPTY = b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def spool(patterns: int = 1) -> Spool:
    return Spool(
        [KeptFiles(PATTERN if not number else f"{PATTERN}{number}", 1 << 26, False) for number in range(patterns)]
    )


def name(number: int, length: int = 1) -> bytes:
    return base64.b64encode(b"%0*d" % (length, number))


@pytest.mark.parametrize("why", [b"large", b"total"])
def test_an_end_without_the_file_that_it_is_about(why: bytes) -> None:
    files = spool()
    files.take(b"n", b"0 0 %s 0" % why)
    assert not files.is_whole
    with pytest.raises(OSError, match="did not arrive"):
        list(files.find(PATTERN))


def test_more_files_than_are_told_of_are_too_much_for_every_pattern() -> None:
    files = spool(2)
    for number in range(50_001):
        files.take(b"a", b"0 %d 0 0 %s" % (number, name(number)))
        files.take(b"c", b"%d 0 %s" % (number, EMPTY))
    files.take(b"n", b"0 50001 large 0")
    files.take(b"a", b"1 50001 0 0 %s" % name(1))
    files.take(b"n", b"1 1 large 0")
    assert files.is_whole
    (found,) = files.find(f"{PATTERN}1")
    assert found.size > 1 << 40


def test_names_are_bounded() -> None:
    files = spool()
    assert not files.take(b"a", b"0 0 0 0 %s" % name(0, 4097))
    tracemalloc.start()
    try:
        for number in range(50_000):
            files.take(b"a", b"0 %d 0 0 %s" % (number, name(number, 4000)))
        assert tracemalloc.get_traced_memory()[0] < 64 << 20
    finally:
        tracemalloc.stop()
    assert files.is_whole, "nothing that would help is to come"
    with pytest.raises(TooMuch, match="names of what an attempt left"):
        list(files.find(PATTERN))


def test_blocks_without_content_are_none() -> None:
    files = spool()
    files.take(b"a", b"0 0 0 4 %s" % name(0))
    assert not files.take(b"b", b"0 0 ")
    assert not files.take(b"b", b"0 1 " + base64.b64encode(b"x" * 5953))


def test_the_number_of_blocks_is_bounded() -> None:
    files = spool()
    taken = 0
    for number in range(20):
        files.take(b"a", b"0 %d 0 9999999 %s" % (number, name(number)))
        taken += sum(files.take(b"b", b"%d %d eA==" % (number, block)) for block in range(11_000))
    assert 100_000 < taken < 130_000


@pytest.mark.no_cover
def test_many_files_of_many_patterns_are_looked_through_quickly() -> None:
    """This is evaluated for every piece of a log, in the thread of the event loop."""
    files = spool(32)
    for number in range(50_000):
        files.take(b"a", b"%d %d 0 0 %s" % (number // 1563, number, name(number)))
        if number != 49_999:
            files.take(b"c", b"%d 0 %s" % (number, EMPTY))
    for pattern in range(32):
        files.take(b"n", b"%d %d - 0" % (pattern, min(1563, 50_000 - pattern * 1563)))
    assert not any(files.is_whole for _ in range(1000))
    files.take(b"c", b"49999 0 %s" % EMPTY)
    assert files.is_whole
