"""Tests that only regular files are read, up to a maximum size."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.regularfile import open_regular, read_text


def test_a_regular_file_and_a_link_to_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("é")
    (tmp_path / "link").symlink_to("a")
    assert read_text(tmp_path / "a") == read_text(tmp_path / "link") == "é"


@pytest.mark.parametrize("kind", ["pipe", "directory", "device", "link to a pipe"])
def test_nothing_else_is_read(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "it"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
        case "device":
            path = Path("/dev/zero")
        case _:
            os.mkfifo(tmp_path / "pipe")
            path.symlink_to("pipe")
    with pytest.raises(OSError, match="not a regular file") as caught:
        open_regular(path)
    assert caught.value.filename == str(path)


def test_a_socket_is_not_opened(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "it"))
        with pytest.raises(OSError, match="No such device"):
            open_regular(tmp_path / "it")


def test_sizes_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(200 << 20)
    with pytest.raises(InvalidInput, match="larger than 4 MiB"):
        read_text(path)


def test_what_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(InvalidInput, match="is not a text file"):
        read_text(tmp_path / "a")
