"""Tests `list` and `delete` with a glob: which paths match, which never do, and that nothing leads out of the
folder."""

from __future__ import annotations

import asyncio
import os
import threading
import tracemalloc
from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.file.executor import FileExecutor
from remit.sandbox import beneath

from .conftest import Desk

BOTH = ["list", "delete"]
DAY = 86400


@pytest.fixture(params=["openat2", "by component"])
def desk(folder: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Provides an executor with the kernel's path resolution, and one without it."""
    if request.param == "by component":
        monkeypatch.setattr(beneath, "_has_openat2", lambda: False)
    return desk_for(folder, f"{folder}/**", closed=f"{folder}/closed/**")


def desk_for(folder: Path, *paths: str, closed: str = "", **rule: Any) -> Desk:
    allow = [{"paths": list(paths), "operations": BOTH, **rule}]
    deny = [{"paths": [closed], "operations": BOTH}] if closed else []
    return Desk(FileExecutor([folder / "state"]), [{"files": {"allow": allow, "deny": deny}}])


async def do(desk: Desk, operation: str, path: Path, glob: str, **rest: Any) -> str:
    return await desk.do(file={"operation": operation, "path": str(path), "glob": glob, **rest})


def told(desk: Desk, folder: Path) -> list[str]:
    lines = desk.output.stdout.splitlines()
    return sorted(orjson.loads(line)["path"].removeprefix(f"{folder}/") for line in lines)


def make(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())


def aged(path: Path, seconds: float) -> None:
    when = path.lstat().st_mtime - seconds
    os.utime(path, (when, when), follow_symlinks=False)


NAMES = ("a.log", "b.txt", ".c.log", "x/d.log", "x/y/e.log", "x/y/f.txt")


@pytest.mark.parametrize(
    ("glob", "taken"),
    [
        ("*.log", {".c.log", "a.log"}),
        ("?.log", {"a.log"}),
        ("*/*.log", {"x/d.log"}),
        ("**/*.log", {".c.log", "a.log", "x/d.log", "x/y/e.log"}),
        ("x/**", {"x/d.log", "x/y/e.log", "x/y/f.txt"}),
        ("**/y/**/*.log", {"x/y/e.log"}),
        ("x/**/**/e.log", {"x/y/e.log"}),
        ("a.lo[g]", set()),
        ("nothing*", set()),
    ],
)
async def test_what_a_glob_takes(desk: Desk, folder: Path, glob: str, taken: set[str]) -> None:
    make(folder, *NAMES)
    await do(desk, "delete", folder, glob, dryRun=True)
    assert set(told(desk, folder)) == taken
    assert len(left(folder)) == len(NAMES), "a dry run removes nothing"
    await do(desk, "list", folder, glob)
    assert {name for name in told(desk, folder) if (folder / name).is_file()} == taken
    said = await do(desk, "delete", folder, glob)
    assert set(told(desk, folder)) == taken
    assert set(left(folder)) == set(NAMES) - taken
    assert f"deleted {len(taken)} " in said
    assert (folder / "x" / "y").is_dir(), "directories stay"


async def test_a_policy_says_by_the_same_glob_what_the_task_takes(folder: Path) -> None:
    make(folder, *NAMES)
    await do(desk_for(folder, f"{folder}/**/*.log"), "delete", folder, "**/*.log")
    assert left(folder) == ["b.txt", "x/y/f.txt"]
    make(folder, *NAMES)
    denying = desk_for(folder, f"{folder}/**", closed=f"{folder}/**/a.log")
    with pytest.raises(PolicyDenied, match=r"/a\.log is denied by files\.deny\[0\]"):
        await do(denying, "delete", folder, "*.log")
    assert len(left(folder)) == len(NAMES), "nothing is removed where one path is not allowed"


async def test_the_age(desk: Desk, folder: Path) -> None:
    make(folder, "old.log", "new.log", "link.log")
    (folder / "link.log").unlink()
    (folder / "link.log").symlink_to("new.log")
    aged(folder / "old.log", 3 * DAY)
    aged(folder / "link.log", 3 * DAY)
    await desk.do(file={"operation": "list", "path": str(folder), "olderThan": "1d12h"})
    assert told(desk, folder) == ["link.log", "old.log"]
    await do(desk, "delete", folder, "*.log", olderThan="4d")
    assert len(left(folder)) == 3
    await do(desk, "delete", folder, "*.log", olderThan="2d")
    assert left(folder) == ["new.log"], "a link has an age of its own, and goes as the link that it is"


async def test_a_dry_run_without_a_glob(desk: Desk, folder: Path) -> None:
    make(folder, "x/a", "x/y/b")
    await desk.do(file={"operation": "delete", "path": str(folder / "x"), "recursive": True, "dryRun": True})
    assert told(desk, folder) == ["x", "x/a", "x/y", "x/y/b"]
    assert left(folder) == ["x/a", "x/y/b"]
    with pytest.raises(OperationFailed) as caught:
        await desk.do(file={"operation": "delete", "path": str(folder / "x"), "dryRun": True})
    assert caught.value.reason == "NotEmpty", "it fails as the deletion would"


@pytest.mark.parametrize("glob", ["../*", "*/../*", "/etc/*", "x//*", "./*", "*/", "..", "a**", "**a/x", "***"])
async def test_a_glob_has_one_spelling(desk: Desk, folder: Path, glob: str) -> None:
    decision = desk.decision(file={"operation": "delete", "path": str(folder), "glob": glob})
    assert not decision.allowed
    assert "spec.file.glob" in decision.message


async def test_a_link_is_not_crossed(desk: Desk, folder: Path, tmp_path: Path) -> None:
    make(tmp_path, "outside/secret.log")
    make(folder, "in/a.log")
    for name in ("away", "in/away"):
        (folder / name).symlink_to(tmp_path / "outside")
    (folder / "near").symlink_to("in")
    for glob in ("**/*.log", "*/*.log", "away/*.log", "away/**", "near/*", "*/away/*"):
        await do(desk, "delete", folder, glob, dryRun=True)
        assert all(name == "in/a.log" for name in told(desk, folder)), glob
    await do(desk, "delete", folder, "**")
    assert left(tmp_path / "outside") == ["secret.log"]
    assert left(folder) == [], "the links themselves are taken"


async def test_a_path_that_is_a_link_is_refused(desk: Desk, folder: Path, tmp_path: Path) -> None:
    make(tmp_path, "outside/secret.log")
    (folder / "away").symlink_to(tmp_path / "outside")
    for path in (folder / "away", folder / "away" / "below"):
        with pytest.raises((OperationFailed, PolicyDenied)):
            await do(desk, "delete", path, "**")
    assert left(tmp_path / "outside") == ["secret.log"]


async def test_another_name_of_a_file_goes_and_the_file_stays(desk: Desk, folder: Path, tmp_path: Path) -> None:
    make(tmp_path, "secret")
    os.link(tmp_path / "secret", folder / "a.log")
    await do(desk, "delete", folder, "*.log")
    assert ((tmp_path / "secret").read_text(), left(folder)) == ("secret", [])


async def test_what_is_denied_is_named_before_anything_goes(desk: Desk, folder: Path) -> None:
    make(folder, "a.log", "closed/b.log", "z.log")
    for operation in BOTH:
        with pytest.raises(PolicyDenied, match=r"closed/b\.log"):
            await do(desk, operation, folder, "**/*.log")
    assert left(folder) == ["a.log", "closed/b.log", "z.log"]
    with pytest.raises(PolicyDenied, match="denied by"):
        await do(desk, "delete", folder / "closed", "*.log")
    await do(desk, "delete", folder, "*.log")
    assert left(folder) == ["closed/b.log"]


@pytest.mark.parametrize(
    ("allowed", "path", "glob", "possible"),
    [
        ("{}/*.log", "", "*.log", True),
        ("{}/*.log", "", "a*", True),
        ("{}/*.log", "", "*.txt", False),
        ("{}/*.log", "", "*/*.log", False),
        ("{}/x/**", "", "**/*.log", True),
        ("{}/x/**", "", "y/*.log", False),
        ("{}/x/**", "/x", "*", True),
        ("{}/x/**", "/xx", "*", False),
        ("{}/*/z?.log", "", "**", True),
        ("{}/x", "", "?", True),
        ("{}/x", "/x", "**", False),
    ],
)
def test_a_glob_that_cannot_be_within_what_is_allowed_is_denied(
    folder: Path, allowed: str, path: str, glob: str, possible: bool
) -> None:
    desk = desk_for(folder, allowed.format(folder))
    decision = desk.decision(file={"operation": "delete", "path": f"{folder}{path}", "glob": glob})
    assert decision.allowed == possible
    if not possible:
        assert f"{folder}{path}/{glob}" in decision.message
        assert allowed.format(folder) in decision.message


def test_judging_a_glob_takes_a_bounded_time(folder: Path) -> None:
    """The author of a task chooses the glob, and the author of a policy the patterns."""
    many = "*a" * 500
    desk = desk_for(folder, *(f"/{many}{index}b" for index in range(50)))
    before = os.times().user
    desk.decision(file={"operation": "delete", "path": "/x", "glob": f"{many}c"})
    assert os.times().user - before < 5


async def test_only_what_a_rule_names_goes(folder: Path) -> None:
    make(folder, "a.log", "b.txt")
    desk = desk_for(folder, f"{folder}/*.log")
    await do(desk, "delete", folder, "*.log")
    with pytest.raises(PolicyDenied, match=r"b\.txt"):
        await do(desk, "delete", folder, "*")
    assert left(folder) == ["b.txt"]


async def test_a_ceiling_applies_to_each_path(desk: Desk, folder: Path) -> None:
    make(folder, "a.log", "b.log")
    desk.ceilings = [{"files": {"allow": [{"paths": [f"{folder}/a*"], "operations": BOTH}]}}]
    with pytest.raises(PolicyDenied, match=r"b\.log"):
        await do(desk, "delete", folder, "*.log")
    await do(desk, "delete", folder, "a*.log")
    assert left(folder) == ["b.log"]


async def test_names_that_no_policy_can_be_asked_about_are_left(desk: Desk, folder: Path) -> None:
    names = [b"a\nb.log", b"\x1b[31mred.log", "\u202egol.log".encode(), b"bytes\xff.log"]
    make(folder, "good.log", "also.txt")
    for name in names:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).touch()
    said = await do(desk, "list", folder, "*.log")
    assert told(desk, folder) == ["good.log"]
    assert "\n" not in said
    assert "\x1b" not in said
    with pytest.raises(OperationFailed, match="left out") as caught:
        await do(desk, "delete", folder, "*.log")
    assert caught.value.reason == "PartlyDeleted"
    assert sorted(os.fsencode(path.name) for path in folder.iterdir()) == sorted([b"also.txt", *names])


async def test_owners(folder: Path) -> None:
    make(folder, "a.log")
    desk = desk_for(folder, f"{folder}/**", owners=["nobody-of-this-host"])
    with pytest.raises(OperationFailed) as caught:
        await do(desk, "delete", folder, "*.log")
    assert (caught.value.reason, left(folder)) == ("OwnerNotAllowed", ["a.log"])


async def test_the_operators_own_files_are_closed(folder: Path) -> None:
    make(folder, "state/run.log", "a.log")
    desk = desk_for(folder, f"{folder}/**", "/**")
    for path, glob in ((folder, "**/*.log"), (folder, "state/*"), (folder, "*/*"), (Path("/proc"), "self/*")):
        with pytest.raises(OperationFailed) as caught:
            await do(desk, "delete", path, glob, dryRun=True)
        assert caught.value.reason == "Protected", (path, glob)
    assert left(folder) == ["a.log", "state/run.log"]


@pytest.mark.no_cover
async def test_a_directory_swapped_for_a_link_meanwhile_is_not_entered(
    desk: Desk, folder: Path, tmp_path: Path
) -> None:
    """The swap happens between the look-up and the deletion, and within each, as fast as possible."""
    make(tmp_path, *(f"outside/{number}.log" for number in range(50)))
    over = threading.Event()

    def swap() -> None:
        spare, shown = folder / "spare", folder / "shown"
        while not over.is_set():
            shown.rename(spare)
            shown.symlink_to(tmp_path / "outside")
            shown.unlink()
            spare.rename(shown)

    make(folder, "shown/keep.txt")
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(60):
            make(folder, "one.log")
            try:
                await do(desk, "delete", folder, "**/*.log")
            except OperationFailed as error:
                assert error.reason in {"NotFound", "PartlyDeleted"}
    finally:
        over.set()
        await asyncio.to_thread(swapping.join)
    assert len(left(tmp_path / "outside")) == 50


async def test_many_files_take_no_memory(folder: Path) -> None:
    count = 1_000_000 if os.environ.get("REMIT_SOAK") else 20_000
    wide = folder / "wide"
    wide.mkdir()
    descriptor = os.open(wide, os.O_RDONLY)
    for number in range(count):
        os.close(os.open(f"{'x' * 100}{number}.txt", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    make(folder, "wide/one.log")
    desk = desk_for(folder, f"{folder}/**")
    await do(desk, "list", folder, "*")  # warms up imports and compiled patterns
    tracemalloc.start()
    try:
        await do(desk, "delete", wide, "*.log", dryRun=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told(desk, wide) == ["one.log"]
    assert peak < 1 << 20, "a list of the names alone would be larger"
    assert await do(desk, "delete", wide, "*.log") == f"deleted 1 file below {wide} that match *.log"
    if os.environ.get("REMIT_SOAK"):
        await do(desk, "delete", wide, "*.txt")
        assert left(wide) == []


async def test_a_cancelled_deletion_stops(folder: Path) -> None:
    make(folder, *(f"{number}.log" for number in range(300)))
    desk = desk_for(folder, f"{folder}/**")
    doing = asyncio.create_task(do(desk, "delete", folder, "*.log"))
    while len(left(folder)) == 300 and not doing.done():
        await asyncio.sleep(0)
    doing.cancel()
    await asyncio.gather(doing, return_exceptions=True)
    remain = len(left(folder))
    assert doing.cancelled() or remain == 0
    await asyncio.to_thread(lambda: None)
    assert len(left(folder)) == remain, "nothing of it goes on"


async def test_too_deep_is_left_out_and_reported(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(300):
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("deep.log", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    make(folder, "a.log")
    desk = desk_for(folder, f"{folder}/**")
    with pytest.raises(OperationFailed, match="deeper") as caught:
        await do(desk, "delete", folder, "**/*.log")
    assert caught.value.reason == "PartlyDeleted"
    assert not (folder / "a.log").exists()
