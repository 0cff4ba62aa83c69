"""Folders of users for the examples: small repositories, and files of a certain age."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

from parts import require

OWNER = 43210 if os.geteuid() == 0 else os.geteuid()
"""Owner of the files. A task that writes runs as the owner, who may not be root."""
HOST_PYTHON = "/usr/bin/python3"

_SHOP = {
    "shop/__init__.py": "def total(prices):\n    return sum(prices)\n",
    "shop/__main__.py": "from shop import total\n\nprint('total', total([19, 23]))\n",
}


def folder_of(folder: Path, files: Mapping[str, str]) -> Path:
    """Creates `folder` with these files, all of which belong to the owner."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    give_away(folder)
    return folder


def give_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OWNER, OWNER if os.geteuid() == 0 else -1)


def needs_modules(*modules: str) -> None:
    """Skips the test if the Python in sandboxes lacks one of the modules."""
    for module in modules:
        done = subprocess.run([HOST_PYTHON, "-c", f"import {module}"], env={}, capture_output=True, timeout=60)
        require(f"python3-{module}", done.returncode == 0, f"{HOST_PYTHON} has no {module}")


def tested_with_a_dependency(folder: Path) -> Path:
    """Creates a repository whose tests need a wheel, which is in the repository, so that no index is queried."""
    needs_modules("pip")
    folder.mkdir()
    about = "prices-1.0.dist-info"
    with zipfile.ZipFile(folder / "prices-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("prices.py", "TODAY = [19, 23]\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: prices\nVersion: 1.0\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    test = (
        "import unittest, prices, shop\n\n\nclass TotalTest(unittest.TestCase):\n"
        "    def test_total(self):\n        self.assertEqual(shop.total(prices.TODAY), 42)\n"
    )
    requirements = "./prices-1.0-py3-none-any.whl\n"
    return folder_of(folder, {**_SHOP, "test_shop.py": test, "requirements.txt": requirements})


def built_by_setuptools(folder: Path) -> Path:
    needs_modules("pip", "setuptools", "wheel")
    project = (
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n\n'
        '[project]\nname = "shop"\nversion = "1.0"\n\n[tool.setuptools]\npackages = ["shop"]\n'
    )
    return folder_of(folder, {**_SHOP, "pyproject.toml": project})


def tested_by_npm(folder: Path) -> Path:
    """Creates a repository whose test needs a package, which is in the repository, so that no registry is queried."""
    require("node", all(Path("/usr/bin", name).exists() for name in ("node", "npm")), "apt install nodejs npm")
    folder.mkdir()
    package = {
        "package/package.json": json.dumps({"name": "prices", "version": "1.0.0"}),
        "package/index.js": "module.exports = [19, 23];\n",
    }
    with tarfile.open(folder / "prices-1.0.0.tgz", "w:gz") as archive:
        for name, text in package.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    about = {"name": "cart", "version": "1.0.0", "dependencies": {"prices": "file:prices-1.0.0.tgz"}}
    prices = {"version": "1.0.0", "resolved": "file:prices-1.0.0.tgz"}
    lock = {**about, "lockfileVersion": 3, "packages": {"": about, "node_modules/prices": prices}}
    test = (
        "const assert = require('node:assert');\n"
        "require('node:test')('total', () => assert.equal(require('prices').reduce((a, b) => a + b), 42));\n"
    )
    return folder_of(
        folder,
        {
            "package.json": json.dumps({**about, "scripts": {"test": "node --test"}}),
            "package-lock.json": json.dumps(lock),
            "test/cart.test.js": test,
        },
    )


def access_log(path: Path) -> Path:
    """Creates the log of a web server."""
    asked = [("/", 200), ("/cart", 200), ("/cart", 502), ("/<b>", 404)]
    lines = [
        f'192.0.2.7 - - [01/Feb/2026:10:00:00 +0000] "GET {path} HTTP/1.1" {status} 31 "-" "-"'
        for path, status in asked
    ]
    path.write_text("\n".join(lines) + "\n")
    give_away(path)
    return path


def logs_of_some_age(folder: Path) -> Path:
    """Creates two old logs and two files that the example must not remove."""
    folder_of(folder, {"web.log": "", "web/2025.log": "", "web/2026.log": "", "web/2025.csv": ""})
    long_ago = time.time() - 40 * 86_400
    for name in ("web/2025.log", "web/2025.csv", "web.log"):
        os.utime(folder / name, (long_ago, long_ago))
    return folder
