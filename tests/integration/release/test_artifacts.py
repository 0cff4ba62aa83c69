"""Tests artifacts on the operator's host: real folders, archives and links, and a policy that lists their paths."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from policies import reading
from remit.api.deployment import Artifact
from remit.errors import DeploymentError
from remit.operations.file import tree
from remit.release.targets import artifacts
from remit.release.targets.artifacts import Copy, obtain
from remit.release.targets.reading import Reading


async def have(place: Path, leave: Reading, **artifact: str) -> None:
    await obtain(Artifact.model_validate(artifact), Copy(place), lambda: leave, nothing)


async def refused(place: Path, leave: Reading, **artifact: str) -> DeploymentError:
    """Why it is; nothing is left of the try."""
    with pytest.raises(DeploymentError) as caught:
        await have(place, leave, **artifact)
    assert list(place.parent.iterdir()) == []
    return caught.value


async def nothing(address: str) -> AsyncIterator[bytes]:
    raise AssertionError(f"{address} is not to be fetched")
    yield b""


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """What policy allows, with one artifact, beside something private."""
    (tmp_path / "apps" / "shop" / "lib").mkdir(parents=True)
    (tmp_path / "apps" / "shop" / "lib" / "run").write_text("x")
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "key").write_text("private")
    return tmp_path / "apps"


async def test_a_folder_is_copied_with_its_links_and_without_rights_of_a_program(apps: Path, tmp_path: Path) -> None:
    shop = apps / "shop"
    (shop / "lib" / "run").chmod(0o4755)
    (shop / "out").symlink_to(tmp_path / "private")
    os.link(shop / "lib" / "run", shop / "again")
    place = tmp_path / "copies" / "1"
    await have(place, reading(f"{apps}/*"), path=str(shop))  # which allows the folder, and so all of it
    assert ((place / "lib" / "run").read_text(), (place / "again").read_text()) == ("x", "x")
    assert (place / "lib" / "run").stat().st_mode & 0o7077 == 0
    assert (place / "out").readlink() == tmp_path / "private"


@pytest.mark.parametrize("kind", ["path", "archive"])
async def test_no_link_leads_out_of_what_policy_allows(apps: Path, tmp_path: Path, kind: str) -> None:
    with tarfile.open(tmp_path / "private" / "key.tar", "w") as tar:
        tar.add(tmp_path / "private" / "key", "key")
    (apps / "above").symlink_to(tmp_path)
    (apps / "within").symlink_to(tmp_path / "private")
    (apps / "key.tar").symlink_to(tmp_path / "private" / "key.tar")
    inside = {"path": ["above/private", "within"], "archive": ["above/private/key.tar", "within/key.tar", "key.tar"]}
    for path in inside[kind]:
        error = await refused(tmp_path / "copies" / "1", reading(f"{apps}/**"), **{kind: f"{apps}/{path}"})
        assert error.reason in {"OutsideRoot", "SymbolicLink", "NotADirectory"}, error
        assert "link" in str(error) or "directory" in str(error)


async def test_a_folder_that_becomes_a_link_meanwhile_is_not_entered(
    apps: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = tree.entries

    def swapped(at: tree.Place):  # type: ignore[no-untyped-def]
        if at.name == "lib":
            shutil.rmtree(apps / "shop" / "lib")
            (apps / "shop" / "lib").symlink_to(tmp_path / "private")
        return entries(at)

    monkeypatch.setattr("remit.release.targets.reading.entries", swapped)
    error = await refused(tmp_path / "copies" / "1", reading(f"{apps}/**"), path=str(apps / "shop"))
    assert error.reason in {"SymbolicLink", "NotADirectory"}


async def test_what_a_rule_denies_and_what_is_the_operators_own_is_in_no_artifact(apps: Path, tmp_path: Path) -> None:
    (apps / "shop" / ".env").write_text("password")
    leave = reading(f"{apps}/**", deny="/**/.env")
    error = await refused(tmp_path / "copies" / "1", leave, path=str(apps / "shop"))
    assert error.reason == "PolicyDenied"
    assert ".env" in str(error)
    leave = reading("/**", protected=str(tmp_path / "private"))
    for path in (tmp_path / "private", tmp_path):  # itself, and as a part
        error = await refused(tmp_path / "copies" / "1", leave, path=str(path))
        assert error.reason == "Protected"


async def test_what_is_no_file_is_refused(apps: Path, tmp_path: Path) -> None:
    os.mkfifo(apps / "shop" / "pipe")
    error = await refused(tmp_path / "copies" / "1", reading(f"{apps}/**"), path=str(apps / "shop"))
    assert error.reason == "NotAFile"


async def test_archives(tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "run").write_text("x")
    (tmp_path / "app" / "run").chmod(0o4755)
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        tar.add(tmp_path / "app", ".")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "app" / "run", "run")
    for name in ("a.tgz", "a.zip"):
        place = tmp_path / "copies" / name
        await have(place, reading(f"{tmp_path}/*"), archive=str(tmp_path / name))
        assert ((place / "run").read_text(), (place / "run").stat().st_mode & 0o7077) == ("x", 0)


@pytest.mark.parametrize(
    ("artifact", "reason"),
    [
        ({"path": "{0}/no/such/folder"}, "ArtifactNotFound"),
        ({"archive": "{0}/evil.tar"}, "ArtifactFailed"),
        ({"archive": "{0}/good.tar", "sha256": "0" * 64}, "DigestMismatch"),
        ({"archive": "{0}/text"}, "ArtifactFailed"),
        ({"archive": "{0}/bomb.zip"}, "ArtifactTooLarge"),
        ({"archive": "{0}/bomb.tar"}, "ArtifactTooLarge"),
    ],
)
async def test_artifacts_that_are_refused(
    tmp_path: Path, artifact: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(artifacts, "_MOST_UNPACKED", 1000)
    (tmp_path / "text").write_text("no archive")
    with tarfile.open(tmp_path / "good.tar", "w") as tar:
        tar.add(tmp_path / "text", "text")
    with tarfile.open(tmp_path / "evil.tar", "w") as tar:
        tar.add(tmp_path / "text", "../../evil")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(1001))
    with tarfile.open(tmp_path / "bomb.tar", "w:gz") as tar:
        large = tarfile.TarInfo("zeros")
        large.size = 1001
        tar.addfile(large, io.BytesIO(bytes(1001)))
    written = {key: value.format(tmp_path) for key, value in artifact.items()}
    error = await refused(tmp_path / "copies" / "1", reading(f"{tmp_path}/**"), **written)
    assert error.reason == reason
    assert str(tmp_path) in str(error) or reason == "ArtifactTooLarge"
    assert not (tmp_path / "evil").exists()
