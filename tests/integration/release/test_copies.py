"""Tests copies of artifacts: they are identified by their content, restored when they are damaged, and closed to other
users."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policies import reading
from releases import spec
from remit.errors import DeploymentError
from remit.release.model import Revision, Snapshot
from remit.release.target import Material
from remit.release.targets import artifacts
from remit.release.targets import copies as module
from remit.release.targets.artifacts import earlier_place
from remit.release.targets.copies import Copies
from remit.release.targets.reading import Reading
from remit.release.targets.treedigest import tree_digest
from remit.sandbox import reader_group


async def nothing(revision: Revision, material: Material, address: str) -> AsyncIterator[bytes]:
    raise AssertionError(f"{address} is not to be fetched")
    yield b""


class Shelf:
    """Copies of the folder `app`, read each time as by another operator."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.source, self.earlier = folder, folder / "app", folder / "earlier" / "shop"
        (self.source / "lib").mkdir(parents=True)
        (self.source / "lib" / "run").write_text("v1")
        (self.source / "link").symlink_to("lib/run")
        self.copies = self.another()

    def another(self) -> Copies:
        leave = reading(f"{self.folder}/app")
        place = self.folder / "copies" / "shop"
        digests = self.folder / "digests.json"
        return Copies(place, digests, None, lambda *_: leave, nothing, lambda: None, self.earlier)

    async def bring(self, number: int) -> bool:
        self.copies = self.another()
        wish = spec(artifact={"path": str(self.source)}, target={"process": {"command": ["run"]}})
        return await self.copies.bring(Revision(number, Snapshot("app", wish, "hash")), Material())

    def text(self, number: int) -> str:
        return (self.copies.of(number) / "lib" / "run").read_text()


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_a_copy_is_made_once_and_not_affected_by_later_edits(shelf: Shelf) -> None:
    assert await shelf.bring(1)
    (shelf.source / "lib" / "run").write_text("v2")
    assert not await shelf.bring(1)
    assert shelf.text(1) == "v1"
    assert shelf.copies.digests() == {1: tree_digest(shelf.copies.of(1))}


@pytest.mark.parametrize("damage", ["gone", "file gone", "edited", "added", "permitted", "link"])
async def test_a_damaged_copy_is_made_again_from_its_source(shelf: Shelf, damage: str) -> None:
    await shelf.bring(1)
    damaged(shelf.copies.of(1), damage)
    assert await shelf.bring(1)
    assert tree_digest(shelf.copies.of(1)) == shelf.copies.digests()[1]


@pytest.mark.parametrize("damage", ["gone", "file gone", "edited", "added", "permitted", "link"])
async def test_nothing_but_what_was_hashed_is_given_to_a_hook(shelf: Shelf, damage: str) -> None:
    assert shelf.another().verified(1) is None
    await shelf.bring(1)
    for copies in (shelf.copies, shelf.another()):
        assert copies.verified(1) == (copies.of(1), copies.digests()[1])
    damaged(shelf.copies.of(1), damage)
    assert [copies.verified(1) for copies in (shelf.copies, shelf.another())] == [None, None]


@pytest.mark.parametrize("damage", ["gone", "edited"])
async def test_a_damaged_copy_is_made_again_from_another_one_of_the_same_content(shelf: Shelf, damage: str) -> None:
    await shelf.bring(1)
    await shelf.bring(2)
    shutil.rmtree(shelf.source)
    damaged(shelf.copies.of(1), damage)
    assert await shelf.bring(1)
    assert shelf.text(1) == "v1"


@pytest.mark.parametrize("damage", ["gone", "edited"])
async def test_a_source_that_is_not_what_the_revision_was_made_from_is_refused(shelf: Shelf, damage: str) -> None:
    await shelf.bring(1)
    (shelf.source / "lib" / "run").write_text("edited")
    await shelf.bring(2)
    damaged(shelf.copies.of(1), damage)
    with pytest.raises(DeploymentError, match=f"{shelf.source} of revision 1 has changed since") as refused:
        await shelf.bring(1)
    assert (refused.value.reason, refused.value.retryable) == ("ArtifactChanged", False)
    assert shelf.copies.at_hand() == {2}, "what is damaged is not left where instances would take it from"
    assert shelf.text(2) == "edited"


async def test_a_repair_that_failed_is_not_tried_at_each_look(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    await shelf.bring(1)
    wish = spec(artifact={"path": str(shelf.source)}, target={"process": {"command": ["run"]}})
    revision = Revision(1, Snapshot("app", wish, "hash"))
    shutil.rmtree(shelf.copies.of(1))
    shelf.source.rename(shelf.folder / "away")
    with pytest.raises(DeploymentError):
        await shelf.copies.repair(revision, Material())
    (shelf.folder / "away").rename(shelf.source)
    with pytest.raises(DeploymentError):
        await shelf.copies.repair(revision, Material())
    monkeypatch.setattr(module, "_RETRY_SECONDS", 0.0)
    assert await shelf.copies.repair(revision, Material())


async def test_what_belongs_to_other_revisions_goes_and_so_do_their_digests(shelf: Shelf) -> None:
    for number in (1, 2):
        await shelf.bring(number)
    damaged(shelf.copies.of(1), "edited")
    await shelf.bring(1)
    await shelf.copies.keep({2})
    assert [path.name for path in shelf.copies.folder.iterdir()] == ["2"]
    assert shelf.copies.digests().keys() == {2}
    await shelf.copies.clear()
    assert [path.name for path in shelf.folder.rglob("*") if "shop" in path.parts] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="instances of an ordinary operator are its own user")
async def test_only_the_group_of_the_readers_may_read_a_copy(shelf: Shelf) -> None:
    (shelf.source / "lib" / "key").write_text("private")
    (shelf.source / "lib" / "key").chmod(0o600)
    (shelf.source / "lib" / "run").chmod(0o4755)
    group = reader_group()
    assert group is not None
    shelf.another = lambda: Copies(  # type: ignore[method-assign]
        shelf.folder / "copies" / "shop",
        shelf.folder / "digests.json",
        group,
        lambda *_: reading(f"{shelf.folder}/app"),
        nothing,
        lambda: None,
    )
    await shelf.bring(1)
    copy = shelf.copies.of(1)
    modes = {name: (copy / name).stat().st_mode & 0o7777 for name in (".", "lib", "lib/key", "lib/run", "..", "../..")}
    assert modes == {
        ".": 0o750,
        "lib": 0o750,
        "lib/key": 0o640,
        "lib/run": 0o750,
        "..": 0o710,
        "../..": 0o710,
    }
    assert {path.lstat().st_gid for path in (shelf.folder / "copies").rglob("*") if not path.is_symlink()} == {group}


async def test_a_copy_that_was_being_made_when_all_are_removed_does_not_come_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cleared = threading.Event(), threading.Event()

    def copy(self: Reading, path: str, into: Path) -> None:
        begun.set()
        assert cleared.wait(60)
        into.mkdir(parents=True, exist_ok=True)  # as if files were added faster than they are removed

    monkeypatch.setattr(Reading, "copy", copy)
    bringing = asyncio.create_task(shelf.bring(1))
    assert await asyncio.to_thread(begun.wait, 60)
    await shelf.copies.clear()
    cleared.set()
    await asyncio.gather(bringing, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_default_executor()
    assert not shelf.copies.of(1).exists()


@pytest.mark.parametrize("source", ["edited", "gone"])
async def test_a_copy_of_an_earlier_version_is_reused_even_if_its_source_changed(shelf: Shelf, source: str) -> None:
    shutil.copytree(shelf.source, shelf.earlier / "1", symlinks=True)
    if source == "gone":
        shutil.rmtree(shelf.source)
    else:
        (shelf.source / "lib" / "run").write_text("edited")
    assert await shelf.bring(1)
    assert shelf.text(1) == "v1"
    assert shelf.copies.digests() == {1: tree_digest(shelf.copies.of(1))}
    assert (shelf.earlier / "1").is_dir(), "instances of the earlier version run in it"


async def test_copies_of_an_earlier_version_go_with_their_revisions(shelf: Shelf) -> None:
    for number in (1, 2):
        (shelf.earlier / str(number)).mkdir(parents=True)
    await shelf.copies.keep({2})
    assert [path.name for path in shelf.earlier.iterdir()] == ["2"]
    await shelf.copies.clear()
    assert not shelf.earlier.exists()


@pytest.mark.parametrize(("mode", "used"), [(0o711, True), (0o731, False), (0o713, False)])
def test_where_another_user_could_have_written_no_earlier_copy_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, used: bool
) -> None:
    monkeypatch.setattr(artifacts, "_EARLIER", tmp_path)
    folder = Path("/var/lib/remit/artifacts")
    assert earlier_place(folder) is None
    place = tmp_path / "remit-artifacts-2fda47242106ad3a"
    place.mkdir()
    place.chmod(mode)
    assert earlier_place(folder) == (place if used else None)


def damaged(copy: Path, how: str) -> None:
    match how:
        case "gone":
            shutil.rmtree(copy)
        case "file gone":
            (copy / "lib" / "run").unlink()
        case "edited":
            (copy / "lib" / "run").write_text("XX")
        case "added":
            (copy / "lib" / "more").touch()
        case "permitted":
            (copy / "lib" / "run").chmod(0o700)
        case "link":
            (copy / "link").unlink()
            (copy / "link").symlink_to("elsewhere")
