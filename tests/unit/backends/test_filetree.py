"""Files that an attempt left are found by descriptor: no link is followed, and no more is read than its user could."""

from __future__ import annotations

import itertools
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends import DescriptorTree
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
    """Between its discovery and its opening a name may come to stand for something else."""
    (tmp_path / "secret").write_text("secret")
    walk = tree.find("/workspace/a/*.xml")
    file = next(walk)
    (folder / "a" / "x.xml").unlink()
    (folder / "a" / "x.xml").symlink_to(tmp_path / "secret")
    with file.open() as source:
        assert source.read() == b"a/x.xml"


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
        closed.chmod(0o640)  # root's own group does not count
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
    for path in sorted(paths, key=len, reverse=True):  # what is a folder by then stays one
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if not (root / path).is_dir():
            (root / path).write_text(path)
    files = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    # Each `**` may stand for no folder at all, too.
    parts = pattern.split("/")
    spans = [index for index, part in enumerate(parts) if part == "**"]
    variants = [
        [part for index, part in enumerate(parts) if index not in left_out]
        for count in range(len(spans) + 1)
        for left_out in itertools.combinations(spans, count)
    ]
    globs = [path_glob("/" + "/".join(variant)) for variant in variants]
    ancestors = {file: [file, *(str(each) for each in Path(file).parents if each.name), ""] for file in files}
    expected = {file for file in files if any(glob.matches(f"/{part}") for glob in globs for part in ancestors[file])}
    descriptor = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        assert set(found(DescriptorTree({"/": descriptor, "/w": descriptor}), f"/w/{pattern}").values()) == expected
    finally:
        os.close(descriptor)
