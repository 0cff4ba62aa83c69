"""Tests finding an attempt's files by descriptor: no link is followed, and only files that its user could read are
read."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends.filetree import DescriptorTree, FileTree, collected
from remit.backends.outcome import ExitReason, Outcome
from remit.policy.patterns import path_glob

OTHER_USER = 12_345
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("dist/shop.whl", "dist/sub/deep.whl", "dist/notes.txt", "report.html", "a/x.xml", "a/b/x.xml"):
        (tmp_path / "w" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "w" / path).write_text(path)
    return tmp_path / "w"


@pytest.fixture
def tree(folder: Path) -> Iterator[DescriptorTree]:
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield DescriptorTree({"/workspace": descriptor})
    os.close(descriptor)


def found(tree: DescriptorTree, pattern: str) -> dict[str, str]:
    contents = {}
    for file in tree.find(pattern):
        assert file.path not in contents
        with file.open() as source:
            contents[file.path] = source.read().decode()
    return contents


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("/workspace/report.html", {"report.html": "report.html"}),
        ("/workspace/dist/*.whl", {"shop.whl": "dist/shop.whl"}),
        ("/workspace/dist/**/*.whl", {"shop.whl": "dist/shop.whl", "sub/deep.whl": "dist/sub/deep.whl"}),
        ("/workspace/**/x.xml", {"a/x.xml": "a/x.xml", "a/b/x.xml": "a/b/x.xml"}),
        ("/workspace/**/b/x.xml", {"a/b/x.xml": "a/b/x.xml"}),
        ("/workspace/*/x.xml", {"a/x.xml": "a/x.xml"}),
        ("/workspace/a", {"x.xml": "a/x.xml", "b/x.xml": "a/b/x.xml"}),
        ("/workspace/a/**", {"x.xml": "a/x.xml", "b/x.xml": "a/b/x.xml"}),
        ("/workspace/?", {"a/x.xml": "a/x.xml", "a/b/x.xml": "a/b/x.xml"}),
        ("/workspace/missing/*.whl", {}),
        ("/workspace/report.html/x", {}),
        ("/elsewhere/report.html", {}),
    ],
)
def test_patterns(tree: DescriptorTree, pattern: str, paths: dict[str, str]) -> None:
    assert found(tree, pattern) == paths


def test_the_whole_place(tree: DescriptorTree) -> None:
    assert set(found(tree, "/workspace")) == set(found(tree, "/workspace/**")) == {
        "dist/shop.whl", "dist/sub/deep.whl", "dist/notes.txt", "report.html", "a/x.xml", "a/b/x.xml",
    }  # fmt: skip


def test_only_regular_files_and_no_links(tree: DescriptorTree, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret")
    (folder / "up").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe.txt")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.txt"))
        assert found(tree, "/workspace/*.txt") == {}
    assert found(tree, "/workspace/link.txt") == found(tree, "/workspace/pipe.txt") == {}
    assert found(tree, "/workspace/up/secret") == found(tree, "/workspace/up") == {}
    assert "secret" not in "".join(found(tree, "/workspace/**").values())


def test_names_are_kept_as_they_are(tree: DescriptorTree, folder: Path) -> None:
    names = ["new\nline.log", "\x1b[31mred.log", "-rf.log", "a\\b.log", "*.log", "ü.log"]
    for name in names:
        (folder / name).write_text(name)
    assert found(tree, "/workspace/*.log") == {name: name for name in names}


def test_a_file_is_looked_at_as_it_is_opened(tree: DescriptorTree, folder: Path, tmp_path: Path) -> None:
    """Between its discovery and its opening, a name may come to refer to another file."""
    (tmp_path / "secret").write_text("secret")
    walk = tree.find("/workspace/a/*.xml")
    file = next(walk)
    (folder / "a" / "x.xml").unlink()
    (folder / "a" / "x.xml").symlink_to(tmp_path / "secret")
    with file.open() as source:
        assert source.read() == b"a/x.xml"


def test_others_who_swap_names_meanwhile_gain_nothing(tree: DescriptorTree, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "x.xml").write_text("secret")
    over = threading.Event()

    def swap() -> None:
        while not over.is_set():
            for name, link in (("a/x.xml", tmp_path / "secret"), ("a/b", tmp_path / "secrets")):
                (folder / name).rename(folder / "aside")
                (folder / name).symlink_to(link)
                (folder / name).unlink()
                os.mkfifo(folder / name)
                (folder / name).unlink()
                (folder / "aside").rename(folder / name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            assert {*found(tree, "/workspace/a").values()} <= {"a/x.xml", "a/b/x.xml"}
    finally:
        over.set()
        swapping.join()


def test_folders_are_walked_once_however_often_a_pattern_may_match(
    tree: DescriptorTree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepest = folder.joinpath(*"a" * 20)
    deepest.mkdir(parents=True)
    walked, scandir = 0, os.scandir

    def counting(where: int) -> AbstractContextManager[Iterator[os.DirEntry[str]]]:
        nonlocal walked
        walked += 1
        assert walked < 1000
        return scandir(where)

    monkeypatch.setattr(os, "scandir", counting)
    assert found(tree, f"/workspace{'/**/a' * 8}/missing") == {}
    assert found(tree, f"/workspace{'/**' * 20}/missing") == {}


def test_names_are_looked_at_to_an_end(tree: DescriptorTree, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that do not match take time as well."""
    monkeypatch.setattr("remit.backends.filetree.MAX_NAMES", 100)
    for number in range(101):
        (folder / "dist" / f"{number}").touch()
    with pytest.raises(OSError, match="more than 100 names"):
        found(tree, "/workspace/dist/*.whl")
    assert found(tree, "/workspace/dist/shop.whl")


def test_it_reads_on_when_its_maker_is_gone(folder: Path, tmp_path: Path) -> None:
    """A thread that hangs on a disk may continue when the attempt's descriptors refer to something else."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.html").write_text("of somebody else")
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    tree = DescriptorTree({"/workspace": descriptor})
    os.close(descriptor)
    assert os.open(tmp_path / "other", os.O_PATH | os.O_DIRECTORY) == descriptor
    try:
        assert found(tree, "/workspace/report.html") == {"report.html": "report.html"}
        own = tree.places["/workspace"]
        del tree
        with pytest.raises(OSError):
            os.fstat(own)
    finally:
        os.close(descriptor)


async def test_what_comes_too_late_is_given_up(tree: DescriptorTree, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.backends.filetree.COLLECTING_SECONDS", 0.01)
    hangs, ended = threading.Event(), threading.Event()
    seen: list[str] = []

    def collector(tree: FileTree, outcome: Outcome) -> Outcome:
        try:
            hangs.wait()
            seen.extend(file.path for file in tree.find("/workspace/**"))
        finally:
            ended.set()
        return outcome

    outcome = await collected(collector, tree, Outcome(ExitReason.COMPLETED, "completed", 0))
    assert outcome.reason == ExitReason.ARTIFACT_UNREADABLE
    hangs.set()
    assert await asyncio.to_thread(ended.wait)
    assert seen == []


@needs_root
def test_what_its_user_may_not_read_is_not_read(folder: Path) -> None:
    closed = folder / "a" / "x.xml"
    closed.chmod(0o600)
    folder.parent.chmod(0o711)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        tree = DescriptorTree({"/workspace": descriptor}, OTHER_USER)
        assert found(tree, "/workspace/report.html")
        with pytest.raises(PermissionError):
            found(tree, "/workspace/a/x.xml")
        closed.chmod(0o640)  # root's own group has no effect
        with pytest.raises(PermissionError):
            found(tree, "/workspace/a/x.xml")
        (folder / "a").chmod(0o710)
        closed.chmod(0o644)
        with pytest.raises(PermissionError):
            found(tree, "/workspace/a/*.xml")
        os.chown(folder / "a", OTHER_USER, OTHER_USER)
        assert found(tree, "/workspace/a/*.xml")
    finally:
        os.close(descriptor)
    assert closed.read_text() == "a/x.xml"  # this thread is root again


_PATHS = st.lists(st.sampled_from(["a", "b", "ab"]), min_size=1, max_size=4).map("/".join)
_PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "a*", "**"]), min_size=1, max_size=4).map(
    lambda parts: "/".join([*parts, "*"] if parts[-1] == "**" else parts)
)


@given(paths=st.sets(_PATHS, min_size=1, max_size=8), pattern=_PATTERNS)
def test_patterns_mean_what_those_of_policies_mean(
    tmp_path_factory: pytest.TempPathFactory, paths: set[str], pattern: str
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for path in sorted(paths, key=len, reverse=True):  # a path that is a folder by then remains one
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not (root / path).is_dir():
            (root / path).write_text(path)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    glob = path_glob(f"/{pattern}")
    ancestors = {file: [file, *(str(each) for each in Path(file).parents if each.name), ""] for file in files}
    expected = {file for file in files if any(glob.matches(f"/{part}") for part in ancestors[file])}
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        assert set(found(DescriptorTree({"/": descriptor, "/w": descriptor}), f"/w/{pattern}").values()) == expected
    finally:
        os.close(descriptor)
