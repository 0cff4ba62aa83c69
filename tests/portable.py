"""Runs the hostile suite where the interpreter and the repository cannot be read: as another user, and in a container.

Everything is put into one folder that every user may read. Hard links are used where possible, so this takes a second.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import sys
import sysconfig
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from support import soaking

REPOSITORY = Path(__file__).parents[1]
SUITE = ("test_hostile_programs.py",)
_ALIKE_EVERYWHERE = ("test_hostile_tasks.py", "test_hostile_scenarios.py")
"""Files whose results depend neither on the user nor on the engine; only `make soak` repeats them."""
_UNUSED = {"test", "idlelib", "site-packages", "ensurepip", "tkinter", "mypy", "ruff", "uv", "virtualenv", "pip"}
_READABLE = stat.S_IROTH


@dataclass(frozen=True)
class Portable:
    """A folder with everything that the suite needs, and the command to start it from there."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python3")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "LD_LIBRARY_PATH": str(self.folder / "lib"),
            "PYTHONPATH": str(self.folder / "packages"),
            "PYTHONHOME": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": "/tmp",
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        }

    def pytest(self, junit: Path, *more: str, also: Sequence[str] = ()) -> list[str]:
        """Returns the command that runs the hostile suite, and `also` some of the integration tests."""
        integration = self.folder / "repository" / "tests" / "integration"
        suite = SUITE + (_ALIKE_EVERYWHERE if soaking() else ())
        options = (
            "-q",
            "-o",
            "junit_family=xunit1",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:xdist",
            "--rootdir",
            str(self.folder / "repository"),
        )
        chosen = [str(integration / each) for each in (*(f"hostile/{name}" for name in suite), *also)]
        return [self.python, "-m", "pytest", *options, f"--junitxml={junit}", *more, *chosen]


def carry(folder: Path) -> Portable:
    """Fills `folder`, which every user must be able to enter."""
    folder.chmod(0o755)
    base, version = Path(sys.base_prefix), f"python{sysconfig.get_python_version()}"
    (folder / "bin").mkdir()
    _put(Path(sys.executable).resolve(), folder / "bin" / "python3")
    _tree(base / "lib" / version, folder / "lib" / version)
    for library in (base / "lib").glob("libpython*.so*"):
        _put(library.resolve(), folder / "lib" / library.name)
    _tree(Path(sysconfig.get_path("purelib")), folder / "packages")
    for name in ("operator", "tests", "manifests", "crds"):
        _tree(REPOSITORY / name, folder / "repository" / name)
    _put(REPOSITORY / "pyproject.toml", folder / "repository" / "pyproject.toml")
    return Portable(folder)


def _tree(source: Path, target: Path) -> None:
    for here, folders, files in os.walk(source):
        folders[:] = [name for name in folders if name not in _UNUSED]
        place = target / Path(here).relative_to(source)
        place.mkdir(mode=0o755, parents=True)
        for name in files:
            _put(Path(here) / name, place / name)


def _put(source: Path, target: Path) -> None:
    """Makes a hard link if every user can read the file, or else a readable copy."""
    mode = source.stat().st_mode
    if mode & _READABLE:
        with contextlib.suppress(OSError):
            os.link(source, target)
            return
    shutil.copyfile(source, target)
    target.chmod(mode & 0o777 | 0o444)


def ends(junit: Path, among: Iterable[str] = ("refused", "confined")) -> Counter[str]:
    """Counts the outcomes of the programs that were run inside, which `test_inside` recorded."""
    values = (found.get("value", "") for found in ET.parse(junit).iter("property") if found.get("name") == "end")
    return Counter(value for value in values if value in among)


def passed(junit: Path) -> set[str]:
    """Returns the names of the tests that passed and were not skipped."""
    cases = [case for case in ET.parse(junit).iter("testcase") if case.find("skipped") is None]
    return {str(case.get("name")) for case in cases} - {each.partition(": ")[0] for each in failures(junit)}


def failures(junit: Path) -> list[str]:
    """Returns the names of the failed tests, each with the first line of its message."""
    cases = ET.parse(junit).iter("testcase")
    return [
        f"{case.get('name')}: {(case.find(kind).get('message') or '').splitlines()[:1]}"  # type: ignore[union-attr]
        for case in cases
        for kind in ("failure", "error")
        if case.find(kind) is not None
    ]
