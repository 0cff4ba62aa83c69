"""Tests hostile archives: members that lead out of the folder, exhaust the machine, or can never be unpacked."""

from __future__ import annotations

import bz2
import gzip
import io
import os
import socket
import stat
import struct
import sys
import tarfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from parts import require
from policies import reading
from remit.api.deployment import Artifact
from remit.errors import DeploymentError
from remit.release.targets import artifacts
from remit.release.targets.archive.destination import ArchiveRefused, Destination
from remit.release.targets.archive.members import MALFORMED, unpack_into
from remit.release.targets.archive.unpacking import _steps
from remit.release.targets.artifacts import Copy, obtain
from remit.sandbox import Execute, Layer, fork_server, probe_host

Tar = Callable[[tarfile.TarFile], None]


async def unpacked(tmp_path: Path, archive: bytes) -> Path:
    """Returns the folder with the archive's content. Raises DeploymentError."""
    (tmp_path / "archive").write_bytes(archive)
    place = tmp_path / "copies" / "1"
    artifact = Artifact(archive=str(tmp_path / "archive"))
    await obtain(artifact, Copy(place), lambda: reading(f"{tmp_path}/*"), _nothing)
    unpacked_here(tmp_path, archive)
    return place


def unpacked_here(tmp_path: Path, archive: bytes) -> None:
    """Unpacks with the rules alone, without the sandbox around them. Raises their exceptions."""
    (folder := tmp_path / "here").mkdir()
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        unpack_into(Destination(root, artifacts._MOST_UNPACKED, artifacts._MOST_FILES), io.BytesIO(archive))
    finally:
        os.close(root)


async def refused(tmp_path: Path, archive: bytes) -> DeploymentError:
    """Asserts that the archive is refused permanently and that nothing remains, and returns the error."""
    with pytest.raises(DeploymentError, match="archive cannot be unpacked: ") as caught:
        await unpacked(tmp_path, archive)
    assert list((tmp_path / "copies").iterdir()) == []
    assert not caught.value.retryable
    with pytest.raises((ArchiveRefused, OSError, MemoryError, RecursionError, *MALFORMED)):
        unpacked_here(tmp_path, archive)
    return caught.value


async def _nothing(address: str) -> AsyncIterator[bytes]:
    raise AssertionError(f"{address} is not to be fetched")
    yield b""


def tar(*members: tuple[str, bytes | str] | tuple[str, bytes, str], mode: str = "w") -> bytes:
    """Returns an archive with members (name, content), (name, type, link target) or (folder name, type, "")."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, *target in members:
            member = tarfile.TarInfo(name)
            if target:
                member.type, member.linkname = content, target[0]
                archive.addfile(member)
            else:
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


def zipped(*members: tuple[str, bytes, int]) -> bytes:
    """Returns an archive with members (name, content, st_mode)."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content, mode in members:
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, content)
    return made.getvalue()


LINK, HARD, FOLDER = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE


async def test_links_that_only_a_too_long_path_resolves_lead_nowhere(tmp_path: Path) -> None:
    """As in CVE-2025-4517: the library's check resolves less of the path than the kernel then follows."""
    victim = tmp_path / "victim"
    victim.write_text("before")
    members: list[tuple[str, bytes, str] | tuple[str, bytes]] = []
    long, short, path = "d" * 247, "abcdefghijklmnop", ""
    for letter in short:
        members += [(f"{path}{long}", FOLDER, ""), (f"{path}{letter}", LINK, long)]
        path += f"{long}/"
    deepest = "/".join(short) + "/" + "l" * 254
    up = "../" * len(short)
    members += [
        (deepest, LINK, up),
        ("escape", LINK, f"{deepest}/../../../../../../../../../{tmp_path.parent}"),
        ("out", HARD, f"escape/{tmp_path.name}/victim"),
        ("out", b"after"),
    ]
    await refused(tmp_path, tar(*members))
    assert victim.read_text() == "before"


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", b"x")],
        [("/evil", b"x")],
        [("a/../../evil", b"x")],
        [("link", LINK, "/etc")],
        [("link", LINK, "..")],
        [("a", FOLDER, ""), ("a/link", LINK, "../..")],
        [("a/b", FOLDER, ""), ("inner", LINK, "a/b"), ("link", LINK, "inner/../../..")],
        [("a/b", FOLDER, ""), ("a/b/up", LINK, "../.."), ("link", LINK, "a/b/up/..")],
        [("link", LINK, "."), ("link/file", b"x")],
        [("file", b"x"), ("link", LINK, "file"), ("hard", HARD, "link")],
        [("hard", HARD, "hard")],
        [("file", b"x"), ("file", HARD, "file")],
        [("hard", HARD, "later"), ("later", b"x")],
        [("hard", HARD, "/etc/passwd")],
        [("pipe", tarfile.FIFOTYPE, "")],
        [("device", tarfile.CHRTYPE, "")],
        [("file", b"x"), ("file/inside", b"x")],
        [("folder", FOLDER, ""), ("folder", b"x")],
        [("d/" * 200, FOLDER, "")],
        [("n" * 256, b"x")],
        [("n/" * 3000 + "n", b"x")],
    ],
    ids=lambda members: " ".join(member[0][:20] for member in members),
)
async def test_members_of_a_tar_that_are_refused(tmp_path: Path, members: list[tuple[str, bytes, str]]) -> None:
    error = await refused(tmp_path, tar(*members))
    assert error.reason == "ArtifactFailed"
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "member",
    [
        ("../evil", b"x", 0o644),
        ("/evil", b"x", 0o644),
        ("a\\..\\evil", b"x", 0o644),
        ("link", b"/etc", stat.S_IFLNK | 0o777),
        ("link", b"../..", stat.S_IFLNK | 0o777),
        ("link", b"x" * 5000, stat.S_IFLNK | 0o777),
        ("pipe", b"", stat.S_IFIFO | 0o644),
    ],
    ids=lambda member: f"{member[0]} {member[1][:5]!r}",
)
async def test_members_of_a_zip_that_are_refused(tmp_path: Path, member: tuple[str, bytes, int]) -> None:
    assert (await refused(tmp_path, zipped(member))).reason == "ArtifactFailed"
    assert not (tmp_path / "evil").exists()


def _patched(archive: bytes, local: int, central: int, value: int) -> bytes:
    """Sets a field of two bytes in the header of the only member and in the directory of the archive."""
    changed, where = bytearray(archive), archive.index(b"PK\x01\x02")
    changed[local : local + 2] = changed[where + central : where + central + 2] = struct.pack("<H", value)
    return bytes(changed)


async def test_zips_that_cannot_be_read_are_refused_with_the_cause(tmp_path: Path) -> None:
    plain = zipped(("file", b"content", 0o644))
    assert "'file' is encrypted" in str(await refused(tmp_path, _patched(plain, 6, 8, 1)))
    assert "compression" in str(await refused(tmp_path, _patched(plain, 8, 10, 99)))
    assert "CRC" in str(await refused(tmp_path, plain.replace(b"content", b"CONTENT")))


async def test_a_header_that_claims_gigabytes_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("x")
        header.type, header.size = kind, 3 << 29
        body = bz2.compress(header.tobuf(tarfile.GNU_FORMAT)) + bz2.compress(bytes(1 << 20)) * (3 << 9)
        error = await refused(tmp_path, body)
        assert (error.reason, "header of more than 1 MiB" in str(error)) == ("ArtifactTooLarge", True)


@pytest.mark.parametrize("cut", [5, 100, 700], ids=str)
@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
async def test_damaged_archives_are_refused(tmp_path: Path, mode: str, cut: int) -> None:
    whole = tar(("file", os.urandom(3000)), mode=mode)
    assert (await refused(tmp_path, whole[:cut])).reason == "ArtifactFailed"


async def test_a_damaged_header_is_not_the_end_of_the_archive(tmp_path: Path) -> None:
    whole = bytearray(tar(("first", b"x"), ("second", b"y")))
    whole[1024 + 150] ^= 1
    assert "it is damaged: bad checksum at byte 1024" in str(await refused(tmp_path, bytes(whole)))
    assert "it is damaged: truncated header at byte 1024" in str(await refused(tmp_path, bytes(whole[:1500])))


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
async def test_the_checksum_at_the_end_of_compressed_data_is_checked(tmp_path: Path, mode: str) -> None:
    whole = tar(("file", os.urandom(3000)), mode=mode)
    assert "it is damaged" in str(await refused(tmp_path, whole[:-6]))


async def test_bits_that_have_changed_are_seen_by_the_checksum(tmp_path: Path) -> None:
    stored = gzip.compress(tar(("file", b"content")), compresslevel=0)
    assert "CRC check failed" in str(await refused(tmp_path, stored.replace(b"content", b"CONTENT")))


def _with_records(member: bytes, **records: str) -> bytes:
    """Returns a member after a pax header."""
    header = tarfile.TarInfo("pax")
    lines = b"".join(_record(name.replace("__", "."), value) for name, value in records.items())
    header.type, header.size = tarfile.XHDTYPE, len(lines)
    return header.tobuf() + lines + bytes(-len(lines) % 512) + member


def _record(name: str, value: str) -> bytes:
    rest = f" {name}={value}\n"
    return f"{len(rest) + 2 + (len(rest) > 97)}{rest}".encode()


@pytest.mark.parametrize(
    "records",
    [
        {"size": "-1536"},  # leads back to the pax header, repeatedly
        {"size": "-99999999"},
        {"GNU__sparse__map": "0,-100000,0,512", "GNU__sparse__size": "512"},
    ],
    ids=str,
)
async def test_a_header_that_leads_back_is_refused(tmp_path: Path, records: dict[str, str]) -> None:
    member = tar(("second", bytes(512)))
    archive = tar(("first", b"x"))[:1024] + _with_records(member, **records)
    assert "negative size" in str(await refused(tmp_path, archive))


async def test_a_path_that_is_too_long_below_the_folder_is_refused_for_good(tmp_path: Path) -> None:
    path = "/".join(["n" * 200] * 19)
    assert "too long a name" in str(await refused(tmp_path, tar((path, b"x"))))


async def test_a_long_message_does_not_block(tmp_path: Path) -> None:
    """Names in the message may be longer than a pipe holds."""
    archive = bytearray(zipped(("\x01" * 60_000, b"x", 0o644)))
    archive[30] = 2
    error = await refused(tmp_path, bytes(archive))
    assert "File name in directory" in str(error)
    assert len(str(error)) < 500


async def test_a_file_that_is_not_an_archive_is_refused(tmp_path: Path) -> None:
    for content in (b"<html>not here</html>" * 100, b"\x28\xb5\x2f\xfd" + bytes(range(256)) * 4, b"x", b""):
        assert "it is not a tar archive (plain, gzip, bzip2 or xz) and not a zip archive" in str(
            await refused(tmp_path, content)
        )


async def test_names_of_a_zip_made_on_unix_are_kept(tmp_path: Path) -> None:
    """Info-ZIP and macOS write UTF-8 without setting the flag for it."""
    plain = zipped(("caXX", b"x", 0o644))
    assert (plain[6:8], plain.count(b"caXX")) == (b"\0\0", 2)
    place = await unpacked(tmp_path, plain.replace(b"caXX", "ca\u00e9".encode()))
    assert [path.name for path in place.iterdir()] == ["ca\u00e9"]


async def test_what_an_archive_may_hold(tmp_path: Path) -> None:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, mode in (("bin/run", 0o4775), ("data", 0o666)):
            member = tarfile.TarInfo(name)
            member.mode, member.size, member.uid = mode, 3, 12345
            archive.addfile(member, io.BytesIO(b"old"))
        for name, type_, target in (("bin/again", HARD, "bin/run"), ("lib", LINK, "bin"), ("gone", LINK, "no/such")):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = type_, target
            archive.addfile(member)
        archive.addfile(data := tarfile.TarInfo("data"))
        assert data.size == 0
    place = await unpacked(tmp_path, made.getvalue())
    assert (place / "lib" / "again").read_text() == "old"
    assert (place / "bin/run").stat().st_ino == (place / "bin/again").stat().st_ino
    assert (place / "data").read_text() == ""  # the later member replaced it
    assert (place / "gone").is_symlink()
    modes = {name: stat.S_IMODE((place / name).stat().st_mode) for name in ("bin/run", "data")}
    assert modes == {"bin/run": 0o700, "data": 0o600}
    assert (place / "data").stat().st_uid == os.geteuid()


async def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    """A bundle of Python wheels or Java archives is such a file."""
    place = await unpacked(tmp_path, tar(("inner.zip", zipped(("file", b"x", 0o644)))))
    assert [path.name for path in place.iterdir()] == ["inner.zip"]


async def test_links_in_a_zip_stay_links(tmp_path: Path) -> None:
    link = stat.S_IFLNK | 0o777
    place = await unpacked(tmp_path, zipped(("real", b"x", 0o755), ("link", b"real", link)))
    assert (place / "link").readlink() == Path("real")
    assert stat.S_IMODE((place / "real").stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "attempt",
    [
        "open({victim!r}, 'w')",
        "open({victim!r})",
        "import os; os.listdir('/root')",
        "import socket; socket.create_connection(('127.0.0.1', {port}), 5)",
        "bytearray(2 << 30)",
    ],
)
async def test_the_process_that_unpacks_reaches_nothing_else(tmp_path: Path, attempt: str) -> None:
    abilities = probe_host().abilities
    confined = abilities[Layer.LANDLOCK].available and abilities[Layer.SECCOMP].available
    require("landlock", confined, "run it on a kernel with Landlock and seccomp")
    into, victim = tmp_path / "into", tmp_path / "victim"
    into.mkdir()
    victim.write_text("before")
    with socket.create_server(("127.0.0.1", 0)) as server, (tmp_path / "stderr").open("w+") as stderr:
        program = attempt.format(victim=str(victim), port=server.getsockname()[1])
        for code, ends in ((f"open({str(into / 'made')!r}, 'w')", 0), (program, 1)):
            argv = [os.path.realpath(sys.executable), "-I", "-S", "-c", code]
            with Path(os.devnull).open("r+b") as null:
                process = fork_server().begin(
                    Execute(argv, (null.fileno(), null.fileno(), stderr.fileno()), steps=_steps(into, 1 << 20))
                )
            process.wait(30)
            assert process.returncode == ends, (tmp_path / "stderr").read_text()
            process.close()
    assert victim.read_text() == "before"
