"""Tests reading the files of a container from archives, whose links and paths are not trusted."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import tarfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.backends.docker.archivetree import ArchiveTree
from remit.backends.filetree import DescriptorTree, FileTree
from remit.backends.pathpattern import MAX_DEPTH

USER = os.geteuid()


class Folder:
    """Archives of a folder, written like the engine does: sorted by name, and a file with several names once."""

    def __init__(self, root: Path) -> None:
        self.root, self.asked = root, list[str]()

    def mode(self, path: str) -> int:
        try:
            return (self.root / path.lstrip("/")).lstat().st_mode
        except (FileNotFoundError, NotADirectoryError):
            return 0

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[IO[bytes]]:
        self.asked.append(path)
        reading, writing = os.pipe()
        with os.fdopen(reading, "rb") as source, os.fdopen(writing, "wb") as target:
            thread = threading.Thread(target=self._write, args=(path, target))
            thread.start()
            try:
                yield source
            finally:
                source.close()
                thread.join()

    def _write(self, path: str, target: IO[bytes]) -> None:
        options: dict[str, Any] = {"format": tarfile.PAX_FORMAT, "errors": "surrogateescape"}
        with (
            contextlib.suppress(BrokenPipeError),
            contextlib.closing(target),
            tarfile.open(fileobj=target, mode="w|", **options) as tar,
        ):
            tar.add(self.root / path.lstrip("/"), arcname=path.rpartition("/")[2])


class Given:
    """An archive of `/workspace` with arbitrary content."""

    def __init__(self, *entries: tuple[tarfile.TarInfo, bytes], cut: int | None = None) -> None:
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for entry, content in entries:
                tar.addfile(entry, io.BytesIO(content))
        self.content = packed.getvalue()[:cut]

    def mode(self, path: str) -> int:
        return 0o40755

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[io.BytesIO]:
        yield io.BytesIO(self.content)


def tree(archives: Any, **options: Any) -> ArchiveTree:
    given: dict[str, Any] = {"places": ["/workspace"], "uid": USER, "gid": os.getegid(), "most_beside": 1 << 20}
    return ArchiveTree(archives, **given | options)


def found(tree: FileTree, pattern: str) -> dict[str, bytes]:
    contents = {}
    for file in tree.find(pattern):
        assert file.path not in contents
        with file.open() as source:
            contents[file.path] = source.read(1 << 20)
            assert len(contents[file.path]) == file.size
    return contents


def entry(name: str, content: bytes = b"", **attributes: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size, info.uid, info.gid, info.mode = len(content), USER, os.getegid(), 0o644
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, content


ROOT = entry("workspace", type=tarfile.DIRTYPE, mode=0o755)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for path in ("dist/shop.whl", "dist/sub/deep.whl", "report.html", "a/x.xml", "a/b/x.xml"):
        (tmp_path / "workspace" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "workspace" / path).write_text(path)
    return tmp_path / "workspace"


_NAMES = ["a", "b", "ab", "a\nb", "\udcff"]
_PATHS = st.lists(st.sampled_from(_NAMES), min_size=1, max_size=4).map("/".join)
_KINDS = st.sampled_from(["file", "file", "file", "link", "pipe", "second name"])
_PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "a*", "**"]), max_size=4).map("/".join)


@given(
    paths=st.dictionaries(_PATHS, _KINDS, min_size=1, max_size=8), patterns=st.lists(_PATTERNS, min_size=1, max_size=4)
)
def test_finds_what_is_found_by_descriptor(
    tmp_path_factory: pytest.TempPathFactory, paths: dict[str, str], patterns: Sequence[str]
) -> None:
    root = tmp_path_factory.mktemp("container")
    place = root / "workspace"
    place.mkdir()
    (root / "secret").write_text("secret")
    for path, kind in sorted(paths.items(), key=lambda item: len(item[0]), reverse=True):
        target = place / path
        target.parent.mkdir(parents=True, exist_ok=True)
        match kind:
            case _ if target.exists():
                continue
            case "link":
                target.symlink_to(root)
            case "pipe":
                os.mkfifo(target)
            case "second name":
                os.link(root / "secret", target)
            case _:
                target.write_bytes(os.fsencode(path))
    descriptor = os.open(place, os.O_PATH | os.O_DIRECTORY)
    try:
        for pattern in patterns:
            wanted = f"/workspace/{pattern}".rstrip("/")
            assert found(tree(Folder(root)), wanted) == found(DescriptorTree({"/workspace": descriptor}), wanted), (
                wanted
            )
    finally:
        os.close(descriptor)


def test_only_the_folder_before_the_first_wildcard_is_read(folder: Path) -> None:
    archives = Folder(folder.parent)
    assert set(found(tree(archives), "/workspace/dist/*.whl")) == {"shop.whl"}
    assert found(tree(archives), "/workspace/report.html") == {"report.html": b"report.html"}
    assert found(tree(archives), "/workspace/report.html/x") == found(tree(archives), "/workspace/no/*") == {}
    assert found(tree(archives), "/elsewhere") == {}
    assert archives.asked == ["/workspace/dist", "/workspace/report.html"]


def test_no_link_is_followed_on_the_way(folder: Path) -> None:
    (folder.parent / "secret").mkdir()
    (folder.parent / "secret" / "key").write_text("secret")
    (folder / "out").symlink_to("../secret")
    archives = Folder(folder.parent)
    for pattern in ("out/key", "out/*", "out", "out/**", "*/key"):
        assert found(tree(archives), f"/workspace/{pattern}") == {}
    assert "/workspace/out" not in archives.asked


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "../x",
        "workspace/../x",
        "workspace/a/../../x",
        "workspace/./x",
        "workspace//x",
        "other/x",
        "x",
        "",
    ],
)
def test_what_is_not_beneath_is_an_error(name: str) -> None:
    with pytest.raises(OSError, match=r"which is not in it|cannot be read"):
        found(tree(Given(ROOT, entry(name, b"x"))), "/workspace/**")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"?", b"S"])
def test_what_is_no_regular_file_is_not_there(kind: bytes) -> None:
    odd = entry("workspace/x", type=kind, linkname="/etc/shadow", devmajor=1, devminor=3)
    assert found(tree(Given(ROOT, odd, entry("workspace/y", b"y"))), "/workspace/**") == {"y": b"y"}


def test_what_lies_beneath_a_link_comes_from_the_archive() -> None:
    link = entry("workspace/up", type=tarfile.SYMTYPE, linkname="/")
    assert found(tree(Given(ROOT, link, entry("workspace/up/x", b"mine"))), "/workspace/**") == {"up/x": b"mine"}


def test_a_name_counts_once() -> None:
    twice = Given(ROOT, entry("workspace/x", b"1"), entry("workspace/x", b"2"))
    assert found(tree(twice), "/workspace/x*") == {"x": b"1"}


def test_an_archive_that_breaks_off_is_not_taken_for_all() -> None:
    whole = Given(ROOT, entry("workspace/a", b"a" * 600), entry("workspace/b", b"b" * 600))
    assert set(found(tree(whole), "/workspace/*")) == {"a", "b"}
    for cut in (0, 1, 512, 700, 1024, 1536, 2047, 2048, 2560, 3072, 3584):
        broken = Given(ROOT, entry("workspace/a", b"a" * 600), entry("workspace/b", b"b" * 600), cut=cut)
        with pytest.raises(OSError, match=r"breaks off|cannot be read"):
            found(tree(broken), "/workspace/*")


@pytest.mark.parametrize("junk", [b"\xff" * 2048, b"workspace" + b"\0" * 503, os.urandom(4096)])
def test_what_is_no_archive_is_an_error(junk: bytes) -> None:
    archives = Given()
    archives.content = junk
    with pytest.raises(OSError, match=r"breaks off|cannot be read|not in it"):
        found(tree(archives), "/workspace/**")


def test_a_huge_file_is_not_passed_over(folder: Path) -> None:
    with (folder / "sparse").open("wb") as sparse:
        sparse.truncate(1 << 40)
    with pytest.raises(
        OSError, match=r"sparse of 1099511627776 bytes; put what is to be kept into a folder of its own"
    ):
        found(tree(Folder(folder.parent)), "/workspace/*.html")
    assert found(tree(Folder(folder.parent)), "/workspace/dist/*.whl")


def test_what_its_user_may_not_read_is_not_read() -> None:
    other = USER + 1
    for closed in (
        [entry("workspace/x", b"x", mode=0o200)],
        [entry("workspace/x", b"x", uid=other, gid=other, mode=0o660)],
        [entry("workspace/d", type=tarfile.DIRTYPE, mode=0o600), entry("workspace/d/x", b"x")],
        [entry("workspace/d", type=tarfile.DIRTYPE, mode=0o700, uid=other, gid=other), entry("workspace/d/x", b"x")],
    ):
        with pytest.raises(PermissionError):
            found(tree(Given(ROOT, *closed)), "/workspace/**")
        assert found(tree(Given(ROOT, *closed)), "/workspace/y*") == {}
    readable = entry("workspace/x", b"x", uid=other, gid=other, mode=0o604)
    assert found(tree(Given(ROOT, readable)), "/workspace/*") == {"x": b"x"}


def test_a_closed_folder_on_the_way(folder: Path) -> None:
    (folder / "a").chmod(0o600)
    with pytest.raises(PermissionError):
        found(tree(Folder(folder.parent)), "/workspace/a/b/*.xml")
    (folder / "a").chmod(0o700)


def test_folders_that_lie_too_deep() -> None:
    deep = [entry("workspace" + "/d" * depth, type=tarfile.DIRTYPE, mode=0o755) for depth in range(1, MAX_DEPTH + 2)]
    assert found(tree(Given(ROOT, *deep[:-1], entry("workspace" + "/d" * MAX_DEPTH + "/x", b"x"))), "/workspace/**")
    with pytest.raises(OSError, match=r"deep in each other"):
        found(tree(Given(ROOT, *deep)), "/workspace/**")
    with pytest.raises(OSError, match=r"deep in each other"):
        found(tree(Given(ROOT)), "/workspace" + "/d" * (MAX_DEPTH + 2))


def test_folders_of_the_host_are_read_by_descriptor(folder: Path, tmp_path: Path) -> None:
    host = tmp_path / "host"
    (host / "b").mkdir(parents=True)
    (host / "x.xml").write_text("of the host")
    (host / "b" / "x.xml").write_text("of the host, deep")
    descriptor = os.open(host, os.O_PATH | os.O_DIRECTORY)
    try:
        hosts = DescriptorTree({"/workspace/a": descriptor, "/src": descriptor})
        given = tree(Folder(folder.parent), hosts=hosts)
        assert found(given, "/workspace/**/x.xml") == {"a/x.xml": b"of the host", "a/b/x.xml": b"of the host, deep"}
        assert found(given, "/workspace/a/x.xml") == found(given, "/src/x*") == {"x.xml": b"of the host"}
        assert set(found(given, "/workspace/*.html")) == {"report.html"}
        assert found(given, "/workspace/*")["a/x.xml"] == b"of the host"
    finally:
        os.close(descriptor)


def test_nothing_is_kept_of_what_was_passed() -> None:
    archive = Given(ROOT, *(entry(f"workspace/{number}", b"x") for number in range(1000)))
    gc.collect()
    before = sum(isinstance(each, tarfile.TarInfo) for each in gc.get_objects())
    for file in tree(archive).find("/workspace/999*"):
        assert file.path == "999"
        assert sum(isinstance(each, tarfile.TarInfo) for each in gc.get_objects()) < before + 10
