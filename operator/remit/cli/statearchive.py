"""The state directory of `remit up` as one archive, and back.

The database is copied before everything else, so that what the operator keeps beside it is never older: a restored
directory is what a kill leaves behind, and an operator goes on from it in the same way.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import io
import os
import sqlite3
import stat
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final, NamedTuple

import orjson

from remit import __version__
from remit.controlplane.startup import DATABASE
from remit.errors import InvalidInput
from remit.privatefiles import private_directory
from remit.web.login import PAGE_FILE

FORMAT: Final = 1
MANIFEST: Final = "remit-backup.json"
_MARK: Final = Path(DATABASE).with_suffix(".mark").name
_OF_PROCESSES: Final = {Path(DATABASE).with_suffix(".lock").name, "operator.lock", PAGE_FILE}
"""What is of those that run now: locks, and the key of the page."""
_COPIED_FIRST: Final = {_MARK, DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm"}
_SNAPSHOT: Final = ".snapshot-"
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST_MANIFEST: Final = 65_536
_COMPRESSION: Final = 5
_PIECE: Final = 1 << 20
_DEEPEST: Final = 200
_REPLACED: Final = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENXIO}
"""How a file is missed that was seen a moment before: it is gone, or a link or a socket now."""
_DAMAGED: Final = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile)


class Contents(NamedTuple):
    """The contents of an archive. `cut`: files that became shorter while they were read, and end in zeros."""

    files: int
    size: int
    cut: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    """What this user may not read, or what lies too deep: tasks choose the modes and places of their files."""


def write_archive(state_dir: Path, out: IO[bytes]) -> Contents:
    """Write the state directory to `out`; control plane and operator may run meanwhile.

    Raises:
        InvalidInput: it holds no state, or its database is damaged.
        OSError: it cannot be read, or `out` not be written.
    """
    if not (state_dir / DATABASE).is_file():
        raise InvalidInput(f"{state_dir} holds no state of remit up; name its directory with --state-dir")
    with (
        gzip.GzipFile(fileobj=out, mode="wb", compresslevel=_COMPRESSION) as compressed,
        tarfile.open(fileobj=compressed, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        return _Writer(tar).write(state_dir)


class _Writer:
    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._files = self._size = 0
        self._cut: list[str] = []
        self._left_out: list[str] = []

    def write(self, state_dir: Path) -> Contents:
        made = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = {"format": FORMAT, "version": __version__, "made": made, "stateDir": str(state_dir)}
        self._add_content(MANIFEST, orjson.dumps(manifest))
        # The mark must be copied before the database, so that it is older than what it describes.
        with contextlib.suppress(FileNotFoundError):
            self._add_content(_MARK, (state_dir / _MARK).read_bytes())
        with _snapshot(state_dir) as database:
            self._add_file(str(database), DATABASE, None)
        self._add_tree(state_dir)
        return Contents(self._files, self._size, tuple(self._cut), tuple(self._left_out))

    def _add_tree(self, state_dir: Path) -> None:
        for root, folders, files, descriptor in os.fwalk(
            state_dir, follow_symlinks=False, onerror=self._unreadable(state_dir)
        ):
            folder = Path(root).relative_to(state_dir)
            if folder == Path():
                folders[:] = [name for name in folders if not name.startswith(_SNAPSHOT)]
                files = [name for name in files if name not in _COPIED_FIRST | _OF_PROCESSES]
            else:
                self._tar.addfile(_header(folder.as_posix(), os.fstat(descriptor), tarfile.DIRTYPE))
            if len(folder.parts) >= _DEEPEST:  # the walk holds a descriptor for each folder on the path
                self._left_out += [(folder / name).as_posix() for name in folders]
                folders.clear()
            for name in sorted([*folders, *files]):
                self._add(name, (folder / name).as_posix(), descriptor)

    def _add(self, name: str, path: str, folder: int) -> None:
        """A file or a link of `folder`. What goes meanwhile is left out, and so are sockets, pipes and devices."""
        try:
            info = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode):
                header = _header(path, info, tarfile.SYMTYPE)
                header.linkname = os.readlink(name, dir_fd=folder)
                self._tar.addfile(header)
            elif stat.S_ISREG(info.st_mode):
                self._add_file(name, path, folder)
        except PermissionError:
            self._left_out.append(path)
        except OSError as error:
            if error.errno not in _REPLACED:
                raise

    def _unreadable(self, state_dir: Path) -> Callable[[OSError], None]:
        def note(error: OSError) -> None:
            if isinstance(error, PermissionError):
                self._left_out.append(str(error.filename).removeprefix(f"{state_dir}/"))
            elif error.errno not in _REPLACED:
                raise error

        return note

    def _add_file(self, name: str, path: str, folder: int | None) -> None:
        with os.fdopen(os.open(name, _FILE, dir_fd=folder), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                return
            header = _header(path, info, tarfile.REGTYPE)
            content = _Exactly(file, info.st_size)
            self._tar.addfile(header, content)  # type: ignore[arg-type]  # it reads, and nothing else
        self._files += 1
        self._size += info.st_size
        if content.cut:
            self._cut.append(path)

    def _add_content(self, path: str, content: bytes) -> None:
        header = tarfile.TarInfo(path)
        header.size, header.mode, header.uid, header.gid = len(content), 0o600, os.geteuid(), os.getegid()
        self._tar.addfile(header, io.BytesIO(content))


class _Exactly:
    """Reads as many bytes of a file as it had at first, although somebody may write to it meanwhile."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self.cut = False

    def read(self, size: int) -> bytes:
        size = min(size, self._left)
        content = self._file.read(size)
        if len(content) < size:
            self.cut = True
            content += bytes(size - len(content))
        self._left -= size
        return content


def _header(path: str, info: os.stat_result, kind: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(path)
    header.type, header.mode, header.mtime = kind, stat.S_IMODE(info.st_mode), int(info.st_mtime)
    header.uid, header.gid = info.st_uid, info.st_gid
    header.size = info.st_size if kind == tarfile.REGTYPE else 0
    return header


@contextlib.contextmanager
def _snapshot(state_dir: Path) -> Iterator[Path]:
    """A copy of the database as one commit left it, of which the control plane need not know."""
    with tempfile.TemporaryDirectory(prefix=_SNAPSHOT, dir=state_dir) as folder:
        copy = Path(folder, DATABASE)
        try:
            with (
                contextlib.closing(sqlite3.connect(state_dir / DATABASE)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        except sqlite3.Error as error:
            raise InvalidInput(f"{state_dir / DATABASE} cannot be copied: {error}") from None
        copy.chmod(0o600)
        yield copy


class Manifest(NamedTuple):
    """Which Remit made an archive, when, and of which directory."""

    version: str
    made: str
    state_dir: str


def restore_archive(archive: IO[bytes], name: str, state_dir: Path) -> Manifest:
    """Make `state_dir` from an archive, whole or not at all. `name` is the archive's, for messages.

    Owners are restored as far as this user may: root's archives hold files of the users that tasks ran as.

    Raises:
        InvalidInput: `state_dir` holds something; the archive is damaged, of a later version, or no backup.
        OSError: something cannot be written.
    """
    if state_dir.is_symlink() or (state_dir.exists() and (not state_dir.is_dir() or any(state_dir.iterdir()))):
        raise InvalidInput(f"{state_dir} is not empty; move it away, or name another directory with --state-dir")
    private_directory(state_dir)
    with tempfile.TemporaryDirectory(prefix=f".{state_dir.name}-", dir=state_dir.parent) as scratch:
        made = Path(scratch, "state").resolve()
        made.mkdir(mode=0o700)
        try:
            with gzip.GzipFile(fileobj=archive) as content, tarfile.open(fileobj=content, mode="r|") as tar:
                manifest = _read_manifest(tar, name)
                _Reader(tar, made).read()
                while content.read(_PIECE):  # read to the end, where the checksum is verified
                    pass
        except _DAMAGED as error:
            raise InvalidInput(f"{name} is no whole backup: {error}; use another one") from None
        _check_database(made / DATABASE, name)
        made.rename(state_dir)  # the state directory is empty, otherwise the rename fails
    return manifest


def _read_manifest(tar: tarfile.TarFile, name: str) -> Manifest:
    first = tar.next()
    file = tar.extractfile(first) if first is not None and first.name == MANIFEST else None
    try:
        found: Any = orjson.loads(file.read(_LONGEST_MANIFEST)) if file is not None else None
        manifest = Manifest(str(found["version"]), str(found["made"]), str(found["stateDir"]))
        written = int(found["format"])
    except (TypeError, KeyError, ValueError):
        raise InvalidInput(f"{name} was not made by remit backup") from None
    if written > FORMAT:
        raise InvalidInput(
            f"{name} was made by Remit {manifest.version}, which this version ({__version__}) cannot read; "
            "restore it with that version or a later one"
        )
    return manifest


class _Reader:
    """Extracts into a directory that nobody else can write to. Links come last, so nothing is written through one."""

    def __init__(self, tar: tarfile.TarFile, folder: Path) -> None:
        self._tar = tar
        self._folder = folder
        self._leaves: set[PurePosixPath] = set()
        """Files and links: there is nothing below them, and they are there once."""
        self._folders: set[PurePosixPath] = set()

    def read(self) -> None:
        folders: list[tuple[Path, tarfile.TarInfo]] = []
        links: list[tuple[Path, tarfile.TarInfo]] = []
        while (member := self._tar.next()) is not None:
            path = self._path_of(member)
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if member.isdir():
                path.mkdir(mode=0o700, exist_ok=True)
                folders.append((path, member))
            elif member.issym():
                links.append((path, member))
            else:
                self._extract(path, member)
        for path, member in links:
            path.symlink_to(member.linkname)
            _give_away(path, member)
        for path, member in reversed(folders):
            _give_away(path, member)
            path.chmod(member.mode & 0o1777)

    def _path_of(self, member: tarfile.TarInfo) -> Path:
        path = PurePosixPath(member.name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in member.name:
            raise tarfile.ReadError(f"it has a file {member.name!r} outside of its directory")
        if not (member.isdir() or member.isreg() or member.issym()):
            raise tarfile.ReadError(f"{member.name!r} is neither a file nor a directory nor a link")
        if not self._leaves.isdisjoint([path, *path.parents]) or (not member.isdir() and path in self._folders):
            raise tarfile.ReadError(f"it has {member.name!r} twice")
        if not member.isdir():
            self._leaves.add(path)
        self._folders.update([path, *path.parents] if member.isdir() else path.parents)
        return self._folder / path

    def _extract(self, path: Path, member: tarfile.TarInfo) -> None:
        content = self._tar.extractfile(member)
        left = member.size
        with path.open("xb") as file:
            while content is not None and left:
                piece = content.read(min(left, _PIECE))
                if not piece:
                    raise tarfile.ReadError(f"{member.name!r} is cut off")
                file.write(piece)
                left -= len(piece)
        _give_away(path, member)
        path.chmod(member.mode & 0o777)


def _give_away(path: Path, member: tarfile.TarInfo) -> None:
    if os.geteuid() == 0:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)


def _check_database(path: Path, name: str) -> None:
    try:
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)) as database:
            found = database.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        found = str(error)
    if found != "ok":
        raise InvalidInput(f"{name} is no whole backup: its database is damaged ({found}); use another one")
