"""Tests the files that a Job's program leaves, as the launcher writes them to its log and the operator reads them."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launchers import SECONDS, first_process, launcher
from remit.backends.base import KeptFiles
from remit.backends.filetree import DescriptorTree, FileTree, TooMuch
from remit.backends.kubernetes.records import Records
from remit.backends.kubernetes.spool import Spool
from support import wait_until

MIB = 1 << 20
FORGED = "a 0 0 0 3 eA==\nb 0 0 YmFk\nc 0 3 00\nn 0 1 - 0\n= {}\n"


def kept(place: Path, *patterns: str, most: int = 64 * MIB, always: bool = False) -> list[KeptFiles]:
    return [KeptFiles(f"{place}/{pattern}".rstrip("/"), most, always) for pattern in patterns]


def command(place: Path, wanted: Sequence[KeptFiles], script: str, *more: str) -> list[str]:
    options: list[str] = []
    for each in wanted:
        below = os.path.relpath(each.pattern, place)
        flag = "-A" if each.always else "-a"
        options += ["-P", str(place), "-m", str(each.most_bytes), flag, "" if below == "." else below]
    return [launcher(), *options, *more, "-C", str(place), "--", "/bin/sh", "-c", script]


def lines_of(raw: bytes) -> list[bytes]:
    return [b"2026-01-01T00:00:00Z " + line + b"\n" for line in raw.split(b"\n")[:-1]]


def read(wanted: Sequence[KeptFiles], lines: Sequence[bytes]) -> Records:
    records = Records(spool=Spool(wanted))
    for line in lines:
        list(records.feed(line))
    return records


def left(place: Path, wanted: Sequence[KeptFiles], script: str = "true", *more: str) -> Records:
    """Returns what the launcher reports of a program that ends by itself."""
    done = subprocess.run(
        command(place, wanted, script, *more), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS
    )
    return read(wanted, lines_of(done.stdout))


def found(tree: FileTree, pattern: str) -> dict[str, tuple[int, bool, bytes]]:
    files = {}
    for file in tree.find(pattern):
        with file.open() as source:
            files[file.path] = (file.size, file.executable, source.read())
    return files


@contextlib.contextmanager
def on_this_host(place: Path) -> Iterator[DescriptorTree]:
    """Returns the same folder as the backend `process` reads it."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield DescriptorTree({str(place): descriptor})
    finally:
        os.close(descriptor)


@pytest.fixture
def place() -> Iterator[Path]:
    """Provides a folder that other users may enter."""
    with tempfile.TemporaryDirectory(prefix="remit-files-") as above:
        Path(above).chmod(0o755)
        folder = Path(above) / "workspace"
        folder.mkdir()
        folder.chmod(0o777)
        yield folder


def test_what_is_kept_is_what_other_backends_keep(place: Path) -> None:
    for path in ("a", "dist/x.whl", "dist/y.txt", "dist/sub/z.whl", "ä/b", "d/e/f/g"):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(path.encode() * 3000)
    (place / "empty").touch()
    (place / "tool").write_bytes(b"x")
    (place / "tool").chmod(0o755)
    (place / "odd\nname\x1b[2J \\ $(x)").write_bytes(FORGED.encode())
    (place / os.fsdecode(b"\xff\xfe")).write_bytes(b"no text")
    os.link(place / "a", place / "hard")
    outside = place.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (place / "link").symlink_to(outside / "secret")
    (place / "dist" / "folder").symlink_to(outside)
    os.mkfifo(place / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(place / "socket"))
    patterns = [
        *("", "a", "*", "**", "?", "dist", "dist/*", "dist/**", "dist/*.whl", "**/*.whl", "d/**/g", "d/**/**", "**/e"),
        *(
            "link",
            "pipe",
            "dist/folder/secret",
            "dist/folder/**",
            "nowhere",
            "nowhere/*",
            "a/b",
            "*/?",
            "odd*",
            "*a*e*",
        ),
    ]
    for some in (patterns[:16], patterns[16:]):
        wanted = kept(place, *some)
        records = left(place, wanted)
        with on_this_host(place) as tree:
            for each in wanted:
                assert found(records.spool, each.pattern) == found(tree, each.pattern), each.pattern


NAMES = st.lists(st.text("ab*?é", min_size=1, max_size=4), min_size=1, max_size=4).map("/".join)


@settings(max_examples=15, deadline=None)
@given(st.lists(NAMES, min_size=1, max_size=16, unique=True))
def test_any_pattern_means_the_same(tmp_path_factory: pytest.TempPathFactory, patterns: list[str]) -> None:
    place = tmp_path_factory.getbasetemp() / "patterns"
    if not place.exists():
        for names in itertools.product(["a", "b", "ab", "é", "aéb"], repeat=2):
            (place / "/".join(names)).mkdir(parents=True)
            (place / "/".join((*names, "ba"))).write_text("/".join(names))
    wanted = kept(place, *patterns)
    records = left(place, wanted)
    with on_this_host(place) as tree:
        for each in wanted:
            assert found(records.spool, each.pattern) == found(tree, each.pattern), each.pattern


def test_large_files_arrive_whole_and_are_reported_twice(place: Path) -> None:
    content = random.Random(1).randbytes(3 * MIB + 1)
    (place / "large").write_bytes(content)
    (place / "exact").write_bytes(content[: 5952 * 2])
    wanted = kept(place, "*")
    records = left(place, wanted)
    assert records.spool.is_whole
    assert {name: each[2] for name, each in found(records.spool, wanted[0].pattern).items()} == {
        "large": content,
        "exact": content[: 5952 * 2],
    }
    assert records.spool._length == len(content) + 5952 * 2, "what came twice is there twice"


def _told(place: Path, wanted: Sequence[KeptFiles]) -> list[bytes]:
    done = subprocess.run(command(place, wanted, "echo hi"), stdout=subprocess.PIPE, timeout=SECONDS)
    return lines_of(done.stdout)


@pytest.mark.parametrize("cut", [(3, 40), (1, 2), (2, 3), (100, 184), (0, 180), (190, 260)])
def test_lost_parts_are_read_from_the_second_transfer(place: Path, cut: tuple[int, int]) -> None:
    content = random.Random(2).randbytes(MIB + 77)
    (place / "large").write_bytes(content)
    wanted = kept(place, "*")
    lines = _told(place, wanted)
    assert len([line for line in lines if line.split(b" ")[1] == b"="]) == 2
    records = read(wanted, lines[: cut[0]] + lines[cut[1] :])
    assert records.are_over
    assert found(records.spool, wanted[0].pattern)["large"][2] == content


def test_what_is_lost_twice_is_not_kept(place: Path) -> None:
    (place / "large").write_bytes(b"x" * (MIB + 77))
    wanted = kept(place, "*")
    lines = _told(place, wanted)
    gone = b"b 0 7 "
    records = read(wanted, [line for line in lines if line.partition(b" ")[2][:6] != gone])
    assert records.are_over
    assert not records.spool.is_whole
    with pytest.raises(OSError, match="a part of it did not arrive"):
        list(records.spool.find(wanted[0].pattern))


def test_an_end_before_the_last_record_keeps_nothing(place: Path) -> None:
    (place / "small").write_bytes(b"x")
    wanted = kept(place, "*")
    lines = _told(place, wanted)
    for count in range(len(lines)):
        records = read(wanted, lines[:count])
        assert not records.are_over
        if count < len(lines) - 1:
            with pytest.raises(OSError, match="a part of it did not arrive"):
                list(records.spool.find(wanted[0].pattern))


def test_what_is_damaged_on_the_way_is_not_kept(place: Path) -> None:
    (place / "small").write_bytes(b"content")
    wanted = kept(place, "*")
    lines = [line.replace(b"b 0 0 Y29udGVudA==", b"b 0 0 Y29udGVudB==") for line in _told(place, wanted)]
    lines = [line.replace(b"Y29udGVudB==", b"Y29udGVuVA==") for line in lines]
    (file,) = read(wanted, lines).spool.find(wanted[0].pattern)
    with file.open() as source, pytest.raises(OSError, match="arrived damaged"):
        source.read()


def test_a_program_cannot_forge_what_it_left(place: Path) -> None:
    (place / "real").write_text("real")
    wanted = kept(place, "*")
    script = f"printf '%s' '{FORGED}'; printf '%s' '{FORGED}' >/proc/$PPID/fd/1; printf '%s' '{FORGED}' >/proc/1/fd/1"
    argv = first_process(*command(place, wanted, f"({script}) 2>/dev/null; exit 0"))
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS)
    records = read(wanted, lines_of(done.stdout))
    assert found(records.spool, wanted[0].pattern) == {"real": (4, False, b"real")}
    assert records.unexpected == b""


def test_only_files_that_are_always_kept_are_transferred_after_a_failure(place: Path) -> None:
    wanted = [*kept(place, "a"), *kept(place, "b", always=True)]
    records = left(place, wanted, "echo a >a; echo b >b; exit 3")
    assert not records.spool.knows(wanted[0].pattern)
    assert found(records.spool, wanted[1].pattern) == {"b": (2, False, b"b\n")}
    assert records.ended is not None
    assert records.ended.exit_code == 3


def test_files_are_transferred_once_all_processes_are_dead(place: Path) -> None:
    """A child that outlives its parent could write files at any time."""
    wanted = kept(place, "*")
    script = "(while :; do echo x >>log; done) & until [ -s log ]; do :; done; exit 0"
    done = subprocess.run(
        first_process(*command(place, wanted, script)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=SECONDS,
    )
    ((size, _, content),) = found(read(wanted, lines_of(done.stdout)).spool, wanted[0].pattern).values()
    assert content == (place / "log").read_bytes()
    assert size == len(content)


def test_a_sparse_file_is_not_even_read(place: Path) -> None:
    with (place / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    wanted = [*kept(place, "*", most=MIB), *kept(place, "nothing")]
    lines = _told(place, wanted)
    assert not [line for line in lines if line.split(b" ")[1] == b"b"]
    records = read(wanted, lines)
    assert next(iter(records.spool.find(wanted[0].pattern))).size > MIB
    assert found(records.spool, wanted[1].pattern) == {}


def test_all_together_are_bounded(place: Path) -> None:
    (place / "a").write_bytes(b"x")
    with (place / "b").open("wb") as file:
        file.truncate(64 * MIB)
    wanted = kept(place, "a", "b")
    records = left(place, wanted)
    assert found(records.spool, wanted[0].pattern) == {"a": (1, False, b"x")}
    with pytest.raises(TooMuch, match="64 MiB together"):
        list(records.spool.find(wanted[1].pattern))


def test_a_deep_tree_is_bounded(place: Path) -> None:
    (place.joinpath(*["d"] * 64)).mkdir(parents=True)
    (place.joinpath(*["d"] * 64, "f")).write_text("deep")
    wanted = kept(place, "**")
    assert len(found(left(place, wanted).spool, wanted[0].pattern)) == 1
    (place.joinpath(*["d"] * 65)).mkdir()
    with pytest.raises(OSError, match="more than 64 deep"):
        list(left(place, wanted).spool.find(wanted[0].pattern))


def test_a_forbidden_read_is_reported_by_its_error(place: Path) -> None:
    (place / "hidden").write_text("x")
    (place / "hidden").chmod(0)
    wanted = [*kept(place, "*"), *kept(place.parent / "nowhere", "*")]
    argv = command(place, wanted[:1], "true")
    argv[1:1] = ["-P", str(place.parent / "nowhere"), "-m", "1", "-a", "*"]
    done = subprocess.run(first_process(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS)
    records = read([wanted[1], wanted[0]], lines_of(done.stdout))
    with pytest.raises(PermissionError):
        list(records.spool.find(wanted[0].pattern))
    with pytest.raises(FileNotFoundError):
        list(records.spool.find(wanted[1].pattern))


def test_a_swapped_folder_leads_nowhere(place: Path) -> None:
    """Another process with access to the folder continuously swaps a folder and a link to the outside."""
    outside = place.parent / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    (place / "dir").mkdir()
    (place / "dir" / "f").write_text("own")
    (place / "aside").symlink_to(outside)
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            (place / "dir").rename(place / "third")
            (place / "aside").rename(place / "dir")
            (place / "third").rename(place / "aside")

    wanted = kept(place, *["**", "dir/f", "*/f", "dir/**"] * 4)
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = set()
        for _ in range(20):
            spool = left(place, wanted).spool
            for each in wanted:
                with contextlib.suppress(OSError):  # the file was transferred twice and was another one the second time
                    seen |= {content for _, _, content in found(spool, each.pattern).values()}
    finally:
        over.set()
        swapper.join()
    assert seen <= {b"own"}


def test_files_of_a_stopped_program_are_transferred(place: Path) -> None:
    """This includes a program that does not stop: it is killed at its timeout, and the launcher is not."""
    wanted = kept(place, "log", always=True)
    script = "trap 'echo term >>log' TERM; echo begun >log; while :; do sleep 0.1; done"
    argv = first_process(*command(place, wanted, script, "-k", "1"))
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        wait_until(lambda: (place / "log").exists(), "it has begun")
        (first,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(first), signal.SIGTERM)
        raw, _ = process.communicate(timeout=SECONDS)
    records = read(wanted, lines_of(raw))
    assert found(records.spool, wanted[0].pattern)["log"][2] == b"begun\nterm\n"
    assert records.ended is not None
    assert records.ended.signal == signal.SIGKILL


def test_the_input_is_a_file_of_a_folder(place: Path) -> None:
    (place / "sub").mkdir()
    (place / "sub" / "in $(x)").write_text("words")
    (place / "link").symlink_to("sub/in $(x)")
    (place / "folder").symlink_to("sub")
    os.mkfifo(place / "pipe")

    def read_from(path: str) -> tuple[bytes, tuple[str, int] | None]:
        argv = [launcher(), "-I", str(place), "-i", path, "--", "/bin/cat"]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=SECONDS)
        records, said = Records(), bytearray()
        for line in lines_of(done.stdout):
            for _, text in records.feed(line):
                said += text
        assert records.ended is not None
        return bytes(said), (records.ended.error, records.ended.errno) if records.ended.error else None

    assert read_from("sub/in $(x)") == (b"words", None)
    for path, why in (
        *(("link", errno.ELOOP), ("folder/in $(x)", errno.ENOTDIR), ("pipe", errno.EINVAL), ("sub", errno.EISDIR)),
        *(("none", errno.ENOENT), ("../outside", errno.EINVAL), ("sub/in $(x)/y", errno.ENOTDIR)),
    ):
        assert read_from(path) == (b"", ("stdin", why)), path
