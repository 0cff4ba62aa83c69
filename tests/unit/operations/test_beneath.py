"""Tests the path resolver on real directories full of links: it opens nothing outside the root."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.sandbox import beneath
from remit.sandbox.beneath import open_beneath, place
from support import repetitions

NAMES = ["a", "b", "c"]
LINKS = [
    "..",
    "../..",
    ".",
    "/",
    "/etc",
    "../outside",
    "{outside}",
    "{root}",
    "a",
    "b/..",
    "../root/b",
    "/proc/self/cwd",
]
PARTS = [*NAMES, "..", ".", "passwd", "x"]
trees = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=3), st.sampled_from([None, *LINKS])), max_size=6
)
paths = st.lists(st.sampled_from(PARTS), min_size=1, max_size=6)


def grow(root: Path, outside: Path, tree: list[tuple[list[str], str | None]]) -> None:
    """Creates directories and links, as far as they fit together."""
    for parts, link in tree:
        with contextlib.suppress(OSError):
            plant(root, outside, parts, link)


def plant(root: Path, outside: Path, parts: list[str], link: str | None) -> None:
    at = root.joinpath(*parts[:-1])
    at.mkdir(parents=True, exist_ok=True)
    if at.resolve().is_relative_to(root):
        if link is None:
            (at / parts[-1]).mkdir()
        else:
            (at / parts[-1]).symlink_to(link.format(root=root, outside=outside))


@pytest.mark.parametrize("openat2", [True, False], ids=["openat2", "by component"])
@settings(max_examples=repetitions(40, soak=2000), deadline=None)
@given(tree=trees, parts=paths)
def test_nothing_outside_is_opened(openat2: bool, tree: list[tuple[list[str], str | None]], parts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if not openat2:
            patch.setattr(beneath, "_has_openat2", lambda: False)
        root, outside = Path(folder).resolve() / "root", Path(folder).resolve() / "outside"
        for path in (root, outside):
            path.mkdir()
        (outside / "x").mkdir()
        grow(root, outside, tree)
        within(root, "/".join(parts))
        try:
            with place(str(root), os.path.normpath(root / "/".join(p for p in parts if p != ".."))) as found:
                assert Path(found.path).is_relative_to(root)
                assert Path(f"/proc/self/fd/{found.parent}").readlink().is_relative_to(root)
        except OSError:
            pass


def within(root: Path, relative: str) -> None:
    """Asserts that whatever `relative` opens is the root or below it."""
    top = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        opened = open_beneath(top, relative, os.O_PATH)
        try:
            assert Path(f"/proc/self/fd/{opened}").readlink().is_relative_to(root)
        finally:
            os.close(opened)
    except OSError:
        pass
    finally:
        os.close(top)
