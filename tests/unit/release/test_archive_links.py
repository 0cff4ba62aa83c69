"""Tests the targets of symbolic links against the kernel's resolution."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from remit.release.targets.archive.destination import Parts, leaves

NAMES = ("a", "b", "c")
FOLDERS: list[Parts] = [(), *((one,) for one in NAMES), *((one, two) for one in NAMES for two in NAMES)]
paths = st.lists(st.sampled_from([*NAMES, "link", "..", ".", ""]), min_size=1, max_size=6).map(tuple)


def _is_target(parts: Parts) -> bool:
    return parts[0] != ""  # absolute paths are refused earlier


@given(st.dictionaries(st.sampled_from(FOLDERS).map(lambda folder: (*folder, "link")), paths.filter(_is_target)))
def test_no_link_that_stays_is_followed_out_of_the_folder(links: dict[Parts, Parts]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        top = Path(os.path.realpath(folder)) / "outer" / "top"
        for parts in FOLDERS:
            top.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        for parts, target in links.items():
            top.joinpath(*parts).symlink_to("/".join(target))
        for parts in links:
            real = _resolved_by_kernel(top.joinpath(*parts))
            if real is not None and not leaves(parts, links):
                assert real == str(top) or real.startswith(f"{top}/"), (parts, links)


def _resolved_by_kernel(path: Path) -> str | None:
    """Returns the path that the kernel resolves; None if it does not exist."""
    try:
        descriptor = os.open(path, os.O_PATH)
    except OSError:
        return None
    try:
        return str(Path(f"/proc/self/fd/{descriptor}").readlink())
    finally:
        os.close(descriptor)


def test_one_that_goes_out_and_comes_back_leaves() -> None:
    assert leaves(("link",), {("link",): ("..", "top", "a")})
    assert not leaves(("a", "link"), {("a", "link"): ("..", "b")})


def test_a_circle_leads_nowhere() -> None:
    assert not leaves(("link",), {("link",): ("link",)})
