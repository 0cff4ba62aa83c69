"""A base image with Debian and this machine's Python, made without a registry. It stands for `python:3.N-slim`."""

from __future__ import annotations

import functools
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from dockers import docker, needs_docker
from parts import require

IMAGE = "remit-python:test"
_CERTIFICATES = Path("etc/ssl/certs/ca-certificates.crt")
_LEFT_OUT = ("test", "tests", "idle_test", "site-packages", "__pycache__", "config-*")
_NOT_IN_SLIM = (
    "usr/share/doc",
    "usr/share/locale",
    "usr/share/man",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_CHANGES = (
    f"ENV PIP_CERT=/{_CERTIFICATES}",
    "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
)


@functools.cache
def python_base() -> str:
    """Returns the name of the image. REMIT_TEST_PYTHON_IMAGE overrides it. Takes a minute, and Debian's mirror."""
    if given := os.environ.get("REMIT_TEST_PYTHON_IMAGE"):
        return given
    needs_docker()
    debootstrap = shutil.which("debootstrap")
    require("debootstrap", debootstrap and os.geteuid() == 0 and shutil.which("strip"), "install it, and be root")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "root")
        packages = ",".join(["ca-certificates", *sorted(_packages())])
        release = platform.freedesktop_os_release()["VERSION_CODENAME"]
        _run(debootstrap or "", "--variant=minbase", f"--include={packages}", release, str(root))
        _add_python(root)
        shutil.copy("/" / _CERTIFICATES, root / _CERTIFICATES)
        for name in _NOT_IN_SLIM:
            shutil.rmtree(root / name)
            (root / name).mkdir()
        archive = Path(folder, "image.tar")
        _run("tar", "--directory", str(root), "--create", "--file", str(archive), ".")
        made = docker("import", *(f"--change={change}" for change in _CHANGES), str(archive), IMAGE)
    assert made.returncode == 0, made.stderr
    return IMAGE


def _add_python(root: Path) -> None:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    local, library = root / "usr/local", Path(sysconfig.get_path("stdlib"))
    shutil.copytree(library, local / "lib" / version, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    shutil.copy(os.path.realpath(sys.executable), local / "bin" / version)
    for path in _linked():
        if "libpython" in path:
            shutil.copy(path, local / "lib")
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(version)
    _run("strip", "--strip-unneeded", *(str(path) for path in local.rglob("*.so*") if not path.is_symlink()))
    _run("chroot", str(root), "ldconfig")
    _run("chroot", str(root), "/usr/local/bin/python", "-B", "-m", "ensurepip")
    _run("chroot", str(root), "/usr/local/bin/python", "-B", "-m", "pip", "uninstall", "--yes", "setuptools")
    (local / "bin/pip").symlink_to("pip3")


def _linked() -> set[str]:
    """Returns the shared libraries of the interpreter and its modules, except those that slim images lack too."""
    modules = Path(sysconfig.get_path("stdlib"), "lib-dynload").glob("*.so")
    programs = [str(path) for path in modules if not path.name.startswith(("_tkinter.", "nis."))]
    command = ["ldd", os.path.realpath(sys.executable), *programs]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    return set(re.findall(r"=> (/\S+) \(0x", said))


def _packages() -> set[str]:
    """Returns the Debian packages of those libraries."""
    patterns = [f"*-linux-gnu/{Path(path).name}" for path in _linked() if "libpython" not in path]
    found = subprocess.run(["dpkg-query", "--search", *patterns], capture_output=True, text=True, timeout=60)
    return {line.partition(":")[0] for line in found.stdout.splitlines()}


def _run(*argv: str) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{argv[0]}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
