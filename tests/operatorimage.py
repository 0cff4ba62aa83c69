"""Builds an image of the operator from this checkout or another one, without a registry.

It contains what the Dockerfile's image contains: the wheel and its dependencies without unused parts and symbols, the
programs that Jobs start with, a user, and tini. Python is that of this machine, and BusyBox replaces Debian's programs.
"""

from __future__ import annotations

import functools
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import launchers
from clusters import loaded
from dockers import docker, needs_docker, tree
from image.slim import is_unused
from parts import require

IMAGE = "remit-operator:test"
HOME = "/opt/remit"
USER = 10001
_ROOT = Path(__file__).parents[1]
_PACKAGES = f"{HOME}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
_PASSWD = f"root:x:0:0::/:/bin/sh\nremit:x:{USER}:{USER}::/var/lib/remit:/bin/false\nnobody:x:65534:65534::/:/bin/sh\n"
_MAIN = f"#!{HOME}/bin/python\nfrom remit.cli import main\n\nmain()\n"
_NOT_NEEDED = {
    *("test", "tests", "idlelib", "ensurepip", "lib2to3", "tkinter", "turtledemo", "pydoc_data"),
    *("dist-packages", "site-packages"),
}
_CHANGES = (
    f"ENV PATH={HOME}/bin:/usr/local/bin:/usr/bin:/bin",
    "ENV PYTHONDONTWRITEBYTECODE=1",
    "ENV PYTHONUNBUFFERED=1",
    "ENV REMIT_STATE_DIR=/var/lib/remit",
    f"USER {USER}:{USER}",
    "WORKDIR /var/lib/remit",
    f'ENTRYPOINT ["/usr/bin/tini", "--", "{HOME}/bin/remit"]',
)


@functools.cache
def operator_image() -> str:
    """Loads the image on every node of the test's cluster. REMIT_TEST_OPERATOR_IMAGE overrides it."""
    return loaded(os.environ.get("REMIT_TEST_OPERATOR_IMAGE") or build())


def build(checkout: Path = _ROOT, image: str = IMAGE) -> str:
    """Builds the image in the machine's Docker engine, from any checkout with the libraries of this one."""
    needs_docker()
    tini = shutil.which("tini") or shutil.which("docker-init")
    require("docker", tini, "install tini")
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "image.tar")
        with tarfile.open(archive, mode="w") as tar:
            _add_busybox(tar)
            _add_python(tar, Path(folder))
            _add_packages(tar, checkout, Path(folder))
            tar.add(os.path.realpath(tini or ""), "usr/bin/tini")
            for program in launchers.folder().iterdir():
                tar.add(program, f"usr/libexec/remit/{program.name}")
            _add_text(tar, "etc/passwd", _PASSWD)
            state = tarfile.TarInfo("var/lib/remit")
            state.type, state.mode, state.uid, state.gid = tarfile.DIRTYPE, 0o700, USER, USER
            tar.addfile(state)
        made = docker("import", *(f"--change={change}" for change in _CHANGES), str(archive), image)
    assert made.returncode == 0, made.stderr
    return image


def _add_busybox(tar: tarfile.TarFile) -> None:
    with tarfile.open(fileobj=io.BytesIO(tree())) as busybox:
        for entry in busybox:
            if entry.name != "etc/passwd":
                tar.addfile(entry, busybox.extractfile(entry) if entry.isfile() else None)


def _add_file(tar: tarfile.TarFile, path: Path, name: str, folder: Path) -> None:
    """Adds a file without symbols, which are a third of the size of binaries."""
    if ".so" in path.name and (strip := shutil.which("strip")):
        stripped = folder / "stripped"
        subprocess.run([strip, "--strip-unneeded", "-o", str(stripped), str(path)], check=True, timeout=60)
        path = stripped
    tar.add(path, name.lstrip("/"), recursive=False)


def _add_python(tar: tarfile.TarFile, folder: Path) -> None:
    """Adds the interpreter, its library, and a virtual environment at HOME."""
    python = os.path.realpath(sys.executable)
    library = Path(sysconfig.get_path("stdlib"))
    modules = list(_files(library))
    for path in modules:
        _add_file(tar, path, str(path), folder)
    tar.add(python, python.lstrip("/"))
    linked = [Path(python), *(path for path in modules if path.suffix == ".so")]
    linked += [path for path in Path(sysconfig.get_path("platlib")).rglob("*.so") if path.is_file()]
    for path in _libraries(linked):
        _add_file(tar, Path(os.path.realpath(path)), path, folder)
    link = tarfile.TarInfo(f"{HOME}/bin/python".lstrip("/"))
    link.type, link.linkname = tarfile.SYMTYPE, python
    tar.addfile(link)
    _add_text(tar, f"{HOME}/pyvenv.cfg", f"home = {Path(python).parent}\n")
    _add_text(tar, f"{HOME}/bin/remit", _MAIN, 0o755)


def _files(library: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in _NOT_NEEDED and not name.startswith("config-")]
        yield from (Path(folder, name) for name in files if not name.startswith("_tkinter") and ".opt-" not in name)


def _libraries(programs: Iterable[Path]) -> set[str]:
    """Returns the shared libraries of the programs that are outside the installed packages."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, timeout=60).stdout
    found = set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", told, re.MULTILINE))
    return {path for path in found if not path.startswith(sys.prefix)}


def _add_packages(tar: tarfile.TarFile, checkout: Path, folder: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=checkout, check=True, capture_output=True, timeout=60)
    own = folder / "own"
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(own)
    compiled = [sys.executable, "-m", "compileall", "-q", "-s", str(own), "-p", _PACKAGES, str(own)]
    subprocess.run(compiled, check=True, timeout=100)
    tar.add(own, _PACKAGES.lstrip("/"))
    for name in sorted(_closure("remit-operator", frozenset({"otel", "s3"})) - {"remit-operator"}):
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or ():
            if ".." not in file.parts and not is_unused(file) and (path := Path(str(file.locate()))).is_file():
                _add_file(tar, path, f"{_PACKAGES}/{file}", folder)


def _closure(written: str, extras: frozenset[str] = frozenset(), found: set[str] | None = None) -> set[str]:
    """Returns the names of the distribution and all its installed requirements."""
    found, name = set() if found is None else found, canonicalize_name(written)
    found.add(name)
    for text in importlib.metadata.requires(name) or ():
        needed = Requirement(text)
        wanted = needed.marker is None or any(
            needed.marker.evaluate({"extra": extra}) for extra in (extras or frozenset({""}))
        )
        if wanted and (canonicalize_name(needed.name) not in found or needed.extras):
            _closure(needed.name, frozenset(needed.extras), found)
    return found


def _add_text(tar: tarfile.TarFile, path: str, text: str, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(path.lstrip("/"))
    entry.size, entry.mode = len(text.encode()), mode
    tar.addfile(entry, io.BytesIO(text.encode()))
