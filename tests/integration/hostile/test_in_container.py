"""Runs the suite in a container with Docker's defaults: its seccomp profile, no CAP_SYS_ADMIN, as root and as nobody.

In there, bubblewrap cannot create namespaces. Tasks whose confinement cannot be enforced otherwise are refused, and no
program runs unconfined.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest

from parts import require
from portable import Portable, carry, ends, failures

SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
CONFIGURATION = ("/etc/ld.so.cache", "/etc/nsswitch.conf", "/etc/alternatives", "/etc/ssl/openssl.cnf")
USERS = {"root": "0:0", "nobody": "65534:65534"}
CAP_SYS_ADMIN = 1 << 21
LOOK = """
import json
from remit.sandbox import probe_host
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
layers = {str(layer): ability.available for layer, ability in probe_host().abilities.items()}
layers["bare"] = probe_host().bare is not None
print(json.dumps({"capabilities": int(status["CapEff"], 16), "seccomp": status["Seccomp"].strip(), "layers": layers}))
"""


def docker(*arguments: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", *arguments], capture_output=True, timeout=600, **options)


@dataclass(frozen=True)
class Container:
    """What a container is started from: an image with the host's own system, and the suite."""

    image: str
    portable: Portable
    results: Path

    def run(self, user: str, *argv: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
        variables = {**self.portable.environment, **environment}
        shown = [f"--volume={path}:{path}:ro" for path in ("/usr", *own_folders(), str(self.portable.folder))]
        return docker(
            "run", "--rm", "--network=none", f"--user={USERS[user]}", "--memory=1g", "--pids-limit=512",
            "--tmpfs=/tmp:exec,mode=1777", f"--volume={self.results}:{self.results}", "--workdir=/tmp",
            *shown, *(f"--env={name}={value}" for name, value in variables.items()), self.image, *argv,
        )  # fmt: skip


def own_folders() -> list[str]:
    """Returns /lib and similar folders that are not links into /usr."""
    return [f"/{name}" for name in SYSTEM if Path(f"/{name}").is_dir() and not Path(f"/{name}").is_symlink()]


def root_file_system() -> bytes:
    """Returns a tar archive of what a root file system needs in addition to /usr."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "var", "var/tmp", "run", "root", *SYSTEM):
            path = Path(f"/{name}")
            if name in SYSTEM and not path.exists():
                continue
            entry = tarfile.TarInfo(name)
            if name in SYSTEM and path.is_symlink():
                entry.type, entry.linkname = tarfile.SYMTYPE, str(path.readlink())
            else:
                entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if name.endswith("tmp") else 0o755
            tar.addfile(entry)
        accounts = {
            "etc/passwd": "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n",
            "etc/group": "root:x:0:\nnogroup:x:65534:\n",
        }
        for name, text in accounts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
        for name in CONFIGURATION:
            if Path(name).exists():
                tar.add(name)
    return archive.getvalue()


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    answers = shutil.which("docker") and docker("version").returncode == 0
    require("docker", answers, "install docker.io and start dockerd")
    tag = f"remit-hostile:{uuid4().hex}"
    made = docker("import", "-", tag, input=root_file_system())
    assert made.returncode == 0, made.stderr
    try:
        with tempfile.TemporaryDirectory(prefix="remit-hostile-", dir="/var/tmp") as folder:
            for name in ("suite", "results"):
                (Path(folder) / name).mkdir()
            Path(folder).chmod(0o755)
            (Path(folder) / "results").chmod(0o777)
            container = Container(tag, carry(Path(folder) / "suite"), Path(folder) / "results")
            started = container.run("root", "/usr/bin/true")
            require("docker", started.returncode == 0, f"no container can be started: {started.stderr.decode()}")
            yield container
    finally:
        docker("image", "rm", "--force", tag)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("user", ["root", pytest.param("nobody", marks=pytest.mark.soak)])
def test_nothing_runs_bare_in_a_container(container: Container, user: str) -> None:
    source = str(container.portable.folder / "repository" / "operator")
    path = f"{container.portable.environment['PYTHONPATH']}:{source}"
    looked = container.run(user, container.portable.python, "-c", LOOK, PYTHONPATH=path)
    assert looked.returncode == 0, looked.stderr.decode()
    seen = json.loads(looked.stdout)
    assert not seen["capabilities"] & CAP_SYS_ADMIN
    assert seen["seccomp"] == "2", "Docker's filter is on"
    assert not seen["layers"]["namespaces"], "or else this is no test"
    print(seen)

    junit = container.results / f"{user}.xml"
    # Attacks that succeed outside the sandbox may fail in here, because Docker also restricts them.
    done = container.run(user, *container.portable.pytest(junit, "--basetemp=/tmp/tests", "-k", "not test_outside"))
    assert done.returncode == 0, (failures(junit) if junit.exists() else [], done.stdout.decode()[-3000:], done.stderr)
    outcomes = ends(junit)
    assert sum(outcomes.values()) > 40, outcomes
    if seen["layers"]["bare"]:
        assert outcomes["confined"] > 80, "the suite ran under the engine without namespaces"
    assert set(outcomes) <= {"refused", "confined"}
