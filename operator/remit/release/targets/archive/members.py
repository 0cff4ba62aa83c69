"""Reads tar and zip archives, one member after the other, with bounded memory. The standard library only."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Final, Self

from remit.release.targets.archive.destination import MAX_PATH_BYTES, ArchiveRefused, Destination

_CHUNK: Final = 1 << 18
_MAX_HEADER_BYTES: Final = 1 << 20
"""No name and no header of a sensible archive is longer; a header may claim that it has gigabytes."""
_BLOCK: Final = 512
_ENCRYPTED: Final = 0x1
_UTF8: Final = 0x800
_UNIX: Final = 3

_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_DECOMPRESSORS: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}

MALFORMED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    lzma.LZMAError,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RuntimeError,  # includes NotImplementedError, and zipfile raises it for encrypted members
)
"""What the readers raise for an archive that is damaged, or has what they do not know."""


def unpack_into(destination: Destination, file: IO[bytes]) -> None:
    """Put all members of the archive into `destination`.

    Raises Refused, one of MALFORMED, OSError, and MemoryError.
    """
    magic = file.read(8)
    file.seek(0)
    if magic.startswith(_ZIP):
        _unpack_zip(destination, file)
    else:
        _unpack_tar(destination, _decompressed(file, magic))
    destination.finish()


def _decompressed(file: IO[bytes], magic: bytes) -> IO[bytes]:
    for start, decompressor in _DECOMPRESSORS.items():
        if magic.startswith(start):
            stream: IO[bytes] = decompressor(file)
            return stream
    return file


class _Header(tarfile.TarInfo):
    """A header that is damaged is an error. tarfile takes one that is not the first for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            if tar.offset == 0:
                raise
            raise tarfile.ReadError(f"{error} at byte {tar.offset}") from None


class _Bounded(io.RawIOBase):
    """A stream for tarfile, which reads headers in one piece, of the size that they claim to have.

    It is read from its beginning to its end. A header that leads back, to have it read again and again, is damaged.
    """

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream, self._most = stream, most

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise ArchiveRefused(f"it has a header of more than {_MAX_HEADER_BYTES >> 20} MiB", too_large=True)
        data = self._stream.read(size)
        self._check()
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if offset < self._stream.tell():
            raise tarfile.ReadError("a member has a negative size")
        if offset > self._most:
            raise ArchiveRefused(f"it unpacks to more than {self._most} bytes", too_large=True)
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def _check(self) -> None:
        if self._stream.tell() > self._most:
            raise ArchiveRefused(f"it unpacks to more than {self._most} bytes", too_large=True)


def _unpack_tar(destination: Destination, stream: IO[bytes]) -> None:
    bounded = _Bounded(stream, destination.max_bytes + destination.max_members * 4 * _BLOCK)
    try:
        tar = tarfile.TarFile(fileobj=bounded, mode="r", tarinfo=_Header)
    except tarfile.ReadError as error:
        raise ArchiveRefused(
            f"it is not a tar archive (plain, gzip, bzip2 or xz) and not a zip archive: {error}"
        ) from None
    with tar:
        while (member := tar.next()) is not None:
            _add_tar_member(destination, tar, member)
            tar.members.clear()  # type: ignore[attr-defined]  # it would keep every header
    while bounded.read(_CHUNK):
        pass  # read to the end, where the checksum of compressed data is verified


def _add_tar_member(destination: Destination, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    if member.size < 0:
        raise ArchiveRefused(f"{member.name[:100]!a} has a negative size")
    if member.isdir():
        destination.add_directory(member.name)
    elif member.issym():
        destination.add_symbolic_link(member.name, member.linkname)
    elif member.islnk():
        destination.add_hard_link(member.name, member.linkname)
    elif member.isfile():
        if member.size > destination.max_bytes:
            raise ArchiveRefused(f"it unpacks to more than {destination.max_bytes} bytes", too_large=True)
        content = tar.extractfile(member)
        destination.add_file(member.name, member.mode, _chunks(content) if content else ())
    else:
        raise ArchiveRefused(f"{member.name[:100]!a} is neither a file, a folder nor a link")


def _unpack_zip(destination: Destination, file: IO[bytes]) -> None:
    with zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            _add_zip_member(destination, archive, member)


def _add_zip_member(destination: Destination, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    name, mode = _zip_name(member), member.external_attr >> 16
    if "\\" in name:
        raise ArchiveRefused(f"{name[:100]!a} has a backslash, which some programs take for a folder's end")
    if member.flag_bits & _ENCRYPTED:
        raise ArchiveRefused(f"{name[:100]!a} is encrypted")
    if member.is_dir():
        return destination.add_directory(name)
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFLNK}:
        raise ArchiveRefused(f"{name[:100]!a} is neither a file, a folder nor a link")
    with archive.open(member) as content:
        if stat.S_ISLNK(mode):
            return destination.add_symbolic_link(name, content.read(MAX_PATH_BYTES + 1).decode())
        return destination.add_file(name, stat.S_IMODE(mode) or 0o644, _chunks(content))


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Programs on Unix, macOS among them, store names as they are, often without saying that they are UTF-8."""
    stored = member.orig_filename.partition("\0")[0]
    if member.create_system != _UNIX or member.flag_bits & _UTF8 or member.filename != stored:
        return member.filename
    return os.fsdecode(stored.encode("cp437"))


def _chunks(content: IO[bytes]) -> Iterator[bytes]:
    while chunk := content.read(_CHUNK):
        yield chunk
