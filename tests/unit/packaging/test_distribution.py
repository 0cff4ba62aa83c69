"""Tests what is published: its dependencies are declared, its archives contain what they should, and the wheel works
alone."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

pytestmark = pytest.mark.no_cover  # the tests run none of the package in this process

ROOT = Path(__file__).parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SOURCE = ROOT / "operator/remit"


def named(requirement: str) -> str:
    """Returns the normalized name of a requirement's project."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return normal(found[0])


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def imported(path: Path) -> set[str]:
    """Returns the top-level names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.partition(".")[0])
    return found


def test_what_is_imported_is_declared_and_what_is_declared_is_imported() -> None:
    names = set().union(*(imported(path) for path in SOURCE.rglob("*.py"))) - sys.stdlib_module_names - {"remit"}
    known = packages_distributions()
    assert names <= known.keys(), "not installed"
    extras = PROJECT["optional-dependencies"]
    declared = {named(each) for each in (*PROJECT["dependencies"], *extras["otel"], *extras["s3"])}
    assert {name for name in names if not {normal(each) for each in known[name]} & declared} == set()
    used = {normal(each) for name in names for each in known[name]}
    assert declared - used == set()


def test_every_dependency_has_one_version_in_the_constraints() -> None:
    pinned = [named(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if re.match(r"[a-z]", line)]
    assert len(pinned) == len(set(pinned))
    extras = PROJECT["optional-dependencies"]
    wanted = {named(each) for each in (*PROJECT["dependencies"], *extras["test"], *extras["dev"])}
    assert wanted - {*pinned, normal(PROJECT["name"])} == set()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Provides a folder with the wheel and the source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=60)
    return folder


def test_the_source_archive_holds_the_package_and_what_describes_it(built: Path) -> None:
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    outside = {name for name in names if not name.startswith(("operator/remit/", "operator/launcher/", "crds/"))}
    assert outside == {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "PKG-INFO", ".gitignore"}
    assert {name for name in names if name.startswith("crds/")} == {
        f"crds/{path.name}" for path in (ROOT / "crds").iterdir()
    }
    launcher = {name for name in names if name.startswith("operator/launcher/")}
    sources = {"build.py", "files.c", "launch.c", "launch.h", "sha256.c"}
    assert launcher == {f"operator/launcher/{name}" for name in sources}
    kept = {path.relative_to(ROOT).as_posix() for path in SOURCE.rglob("*") if path.is_file()}
    assert {name for name in names if name.startswith("operator/remit/")} == {n for n in kept if "__pycache__" not in n}


def test_the_wheel_works_in_an_environment_of_its_own(built: Path, tmp_path: Path) -> None:
    """The dependencies come from this environment, so that no index is needed; Remit itself comes from the wheel."""
    wheel = next(built.glob("*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert all(name.startswith(("remit/", "remit_operator-")) for name in names)
    assert "remit/py.typed" in names

    home = tmp_path / "venv"
    venv.create(home, symlinks=True)
    python = home / "bin/python"
    install = ["install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True, timeout=60)
    library = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    (library / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")

    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "NO_COLOR": "1"}

    def output(*command: str) -> str:
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert output(str(python), "-c", "import remit; print(remit.__file__)").startswith(str(library))
    for program in PROJECT["scripts"]:
        assert (home / "bin" / program).is_file()
    assert "Usage: remit" in output(str(home / "bin/remit"), "--help")
    assert output(str(home / "bin/kubectl-remit"), "crds").count("kind: CustomResourceDefinition") == 3
