"""Files of an image with Python: this machine's interpreter and what it needs."""

from __future__ import annotations

import functools
import io
import os
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from parts import require

PYTHON = "/usr/bin/python3"


def tree(files: Mapping[str, str] | None = None, programs: Sequence[str] = ()) -> bytes:
    """Returns an archive for `docker import` with Python, with `files` by path, and with `programs` of this machine in
    `/usr/bin` including their libraries. Skips the test if there is no Python."""
    archive = io.BytesIO(_interpreter())
    with tarfile.open(fileobj=archive, mode="a") as tar:
        known = set(tar.getnames())
        for program in programs:
            path = f"/usr/bin/{program}"
            for each in (path, *linked(os.path.realpath(path))):
                if each.lstrip("/") not in known:
                    known.add(each.lstrip("/"))
                    tar.add(os.path.realpath(each), each.lstrip("/"), recursive=False)
        for path, content in (files or {}).items():
            entry = tarfile.TarInfo(path.lstrip("/"))
            entry.size, entry.mode = len(content.encode()), 0o644
            tar.addfile(entry, io.BytesIO(content.encode()))
    return archive.getvalue()


@functools.cache
def _interpreter() -> bytes:
    require("docker", Path(PYTHON).exists(), "install python3 in /usr/bin")
    python, archive = os.path.realpath(PYTHON), io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in _files(python):
            tar.add(os.path.realpath(path), path.lstrip("/"), recursive=False)
        link = tarfile.TarInfo(PYTHON.lstrip("/"))
        link.type, link.linkname = tarfile.SYMTYPE, python
        tar.addfile(link)
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
    return archive.getvalue()


def linked(program: str) -> Iterator[str]:
    told = subprocess.run(["/usr/bin/ldd", program], capture_output=True, text=True, check=True).stdout
    yield from (word for line in told.splitlines() for word in line.split() if word.startswith("/"))


def _files(python: str) -> Iterator[str]:
    """Yields the paths of the interpreter, its libraries, and the modules that a server needs."""
    yield python
    yield from linked(python)
    library = Path(
        subprocess.check_output([python, "-c", "import os; print(os.path.dirname(os.__file__))"], text=True).strip()
    )
    skipped = {"test", "idlelib", "ensurepip", "lib2to3", "tkinter", "dist-packages", "site-packages", "__pycache__"}
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in skipped and not name.startswith("config-")]
        yield from (f"{folder}/{name}" for name in files)
