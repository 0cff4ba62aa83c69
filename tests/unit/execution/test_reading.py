from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from remit.execution.output import OutputWriter
from remit.execution.reading import OutputReader


def read_all(reader: OutputReader) -> bytes:
    data = b""
    while chunk := reader.read(limit=7):
        data += chunk
    return data


@settings(max_examples=50)
@given(chunks=st.lists(st.binary(max_size=40), max_size=20), limit=st.integers(min_value=100, max_value=100_000))
def test_a_reader_that_keeps_up_sees_every_byte(tmp_path_factory: object, chunks: list[bytes], limit: int) -> None:
    directory = tmp_path_factory.mktemp("run")  # type: ignore[attr-defined]
    writer = OutputWriter(directory, max_bytes=limit, tail_bytes=0)
    seen = b""
    with OutputReader(directory, "stdout") as reader:
        for chunk in chunks:
            writer.write("stdout", chunk)
            seen += read_all(reader)
        writer.close()
        seen += read_all(reader)
        assert seen == b"".join(chunks)
        assert reader.gaps == 0


def test_a_reader_that_comes_late_sees_the_beginning_and_the_end(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=0)
    for number in range(1000):
        writer.write("stdout", b"%04d\n" % number)
    writer.close()
    with OutputReader(tmp_path, "stdout") as reader:
        data = read_all(reader)
    assert data.startswith(b"0000\n0001\n")
    assert data.endswith(b"0998\n0999\n")
    assert len(data) <= 1000
    assert reader.gaps == 1


def test_a_reader_left_behind_goes_on_with_what_is_left(tmp_path: Path) -> None:
    writer = OutputWriter(tmp_path, max_bytes=1000, tail_bytes=0)
    with OutputReader(tmp_path, "stdout") as reader:
        writer.write("stdout", b"first")
        assert reader.read() == b"first"
        for number in range(1000):
            writer.write("stdout", b"%04d\n" % number)
        writer.close()
        assert read_all(reader).endswith(b"0999\n")
        assert reader.gaps == 1


def test_a_run_that_said_nothing(tmp_path: Path) -> None:
    with OutputReader(tmp_path, "stderr") as reader:
        assert reader.read() == b""
