"""Runs `remit up` as users do, as a separate process, with kubectl and the CLI as its clients."""

from __future__ import annotations

import base64
import gc
import io
import json
import os
import pty
import re
import shlex
import ssl
import subprocess
import sys
import termios
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
import yaml

import commandline
from remit.cli.errors import report
from support import pauses

SOURCE = Path(__file__).parents[1] / "operator"
START_SECONDS = 60


def environment(**extra: str) -> dict[str, str]:
    """Returns this process's environment without variables that would select another API server or hide the terminal's
    size."""
    left_out = ("KUBE", "REMIT_STATE", "COLUMNS", "LINES")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(left_out)}
    return {**kept, "PYTHONPATH": str(SOURCE), "NO_COLOR": "1", **extra}


def until(reached: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Waits until `reached` returns a true value, and returns it."""
    end, pause = time.monotonic() + seconds, pauses()
    while not (found := reached()):
        assert time.monotonic() < end, f"in vain waited for {what}"
        time.sleep(next(pause))
    return found


@dataclass(frozen=True)
class Running:
    """A command in the background and its output."""

    process: subprocess.Popen[str]
    stdout: IO[str]
    stderr: IO[str]


@dataclass
class Terminal:
    """A command on a terminal, and its output since a key was last pressed."""

    process: subprocess.Popen[bytes]
    descriptor: int
    written: bytes = b""

    def read(self) -> bytes:
        """Returns the output so far."""
        with suppress(BlockingIOError):
            while chunk := os.read(self.descriptor, 65536):
                self.written += chunk
        return self.written

    def frames(self) -> list[list[str]]:
        """Returns the lines of each screen so far; each screen replaced the one before."""
        drawings = re.split(r"(?:\x1b\[1A|\x1b\[2K)+", self.read().decode(errors="replace").replace("\r", ""))
        return [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawing).split("\n") for drawing in drawings]

    def until(self, *words: bytes) -> bytes:
        """Waits until the output contains all of these words, and returns it."""
        try:
            until(lambda: all(word in self.read() for word in words), f"{words}")
        except AssertionError as late:
            raise AssertionError(f"{late}; written: {self.written[-4000:]!r}") from None
        return self.written

    def press(self, keys: bytes) -> None:
        self.written = b""
        os.write(self.descriptor, keys)

    def end(self) -> int:
        """Waits until it has ended and its output is read, and returns its exit code."""
        until(lambda: (self.read(), self.process.poll())[1] is not None, f"its end: {self.process.args!r}")
        self.read()
        return self.process.wait()


@dataclass
class RemitUp:
    """A running `remit up`, as a context manager. `kill` and `start` may be called inside the block."""

    state_dir: Path
    kubectl_path: str
    options: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    """The command to use instead of the usual `remit`."""
    process: subprocess.Popen[bytes] = field(init=False)

    @property
    def log(self) -> Path:
        return self.state_dir.with_name(self.state_dir.name + ".log")

    @property
    def env(self) -> dict[str, str]:
        return environment(
            KUBECONFIG=str(self.state_dir / "kubeconfig"), KUBECACHEDIR=str(self.state_dir.with_name("kubecache"))
        )

    def start(self) -> None:
        self.begin()
        until(
            lambda: "Ctrl-C stops it." in self.log.read_text() or self.process.poll() is not None,
            "remit up",
            START_SECONDS,
        )
        assert self.process.poll() is None, self.log.read_text()

    def begin(self) -> None:
        """Starts it without waiting until it is ready."""
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [*(self.program or REMIT), "up", "--state-dir", str(self.state_dir), "--port", "0", *self.options],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def worker(self, role: str) -> psutil.Process | None:
        """Returns the process that is the `control-plane` or the `operator` now."""
        for process in psutil.Process(self.process.pid).children():
            with suppress(psutil.Error):
                if role in process.cmdline():
                    return process
        return None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)

    def __enter__(self) -> RemitUp:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                self.kill()

    def remit(self, *arguments: str, stdin: str = "", timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*REMIT, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def on_a_terminal(self, *arguments: str, **env: str) -> bytes:
        """Runs a command that must succeed on a terminal, and returns its output. An empty value in `env` removes the
        variable."""
        ours, theirs = pty.openpty()
        with os.fdopen(ours, "rb", buffering=0) as screen:
            done = subprocess.run(
                [*REMIT, *arguments], env=self._set(env), stdout=theirs, stderr=subprocess.PIPE, timeout=60
            )
            os.close(theirs)
            assert done.returncode == 0, done.stderr
            seen = b""
            try:
                while chunk := screen.read(4096):
                    seen += chunk
            except OSError:  # Linux reports this way that the other end is closed
                pass
        return seen

    @contextmanager
    def spawn_on_a_terminal(
        self, *arguments: str, lines: int = 24, columns: int = 80, **env: str
    ) -> Iterator[Terminal]:
        """Like `spawn`, on a terminal of that size, whose settings the command must restore. `env` is as in
        `on_a_terminal`."""
        ours, theirs = pty.openpty()
        try:
            termios.tcsetwinsize(theirs, (lines, columns))
            os.set_blocking(ours, False)
            before = termios.tcgetattr(theirs)
            with subprocess.Popen(
                [*_INTERRUPTED, *REMIT, *arguments],
                env=self._set({"TERM": "xterm"} | env),
                stdin=theirs,
                stdout=theirs,
                stderr=theirs,
                start_new_session=True,
            ) as process:
                try:
                    yield Terminal(process, ours)
                    assert termios.tcgetattr(theirs) == before, "the terminal is not as it was"
                finally:
                    process.kill()
        finally:
            os.close(ours)
            os.close(theirs)

    def _set(self, env: dict[str, str]) -> dict[str, str]:
        return {key: value for key, value in (self.env | env).items() if value}

    def shell(self, folder: Path) -> Callable[[str], str]:
        """Returns a function that runs a shell command in `folder` with `remit` and `kubectl` on PATH, and returns its
        output even if it fails."""
        programs = self.state_dir.with_name("bin")
        programs.mkdir()
        for name, words in {"remit": REMIT, "kubectl": (self.kubectl_path,)}.items():
            (programs / name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (programs / name).chmod(0o755)
        env = {**self.env, "PATH": f"{programs}:{os.environ['PATH']}", "PWD": str(folder)}

        def run(command: str) -> str:
            done = subprocess.run(
                ["/bin/sh", "-c", command],
                env=env,
                cwd=folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=120,
                check=False,
            )
            return done.stdout

        return run

    def remit_here(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Like `remit`, in this process, which takes a second less CPU time. For tests with many commands."""
        with warnings.catch_warnings():
            # A command keeps its connections until its process ends. Here the garbage collector closes them.
            warnings.simplefilter("ignore", ResourceWarning)
            completed = self._invoke(arguments)
            gc.collect()
        return completed

    def _invoke(self, arguments: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        stderr = io.StringIO()
        with redirect_stderr(stderr):
            done = commandline.invoke(*arguments, env=self.env)
            error = done.exception
            code = done.exit_code if error is None or isinstance(error, SystemExit) else report(error)
        return subprocess.CompletedProcess(arguments, code, done.stdout, done.stderr + stderr.getvalue())

    @contextmanager
    def spawn(self, *arguments: str) -> Iterator[Running]:
        """Starts a command in the background. It is killed at the end of the block if it has not ended."""
        with subprocess.Popen(
            [*_INTERRUPTED, *REMIT, *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            assert process.stderr
            try:
                yield Running(process, process.stdout, process.stderr)
            finally:
                process.kill()

    def kubectl(self, *arguments: str, stdin: str = "") -> str:
        done = subprocess.run(
            [self.kubectl_path, *arguments],
            env=self.env,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def read(self, plural: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """Reads one of Remit's objects, or a list of them, without a process. For tests that read often."""
        config = yaml.safe_load((self.state_dir / "kubeconfig").read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        path = f"/apis/remit.dev/v1alpha1/namespaces/{namespace}/{plural}/{name}".rstrip("/")
        asking = urllib.request.Request(cluster["server"] + path, headers={"Authorization": f"Bearer {user['token']}"})
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        context = ssl.create_default_context(cadata=authority)
        with urllib.request.urlopen(asking, timeout=30, context=context) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def task(self, name: str, namespace: str = "default") -> dict[str, Any]:
        return self.read("executiontasks", name, namespace)

    def phase(self, name: str) -> str:
        return str(self.task(name).get("status", {}).get("phase"))


REMIT = (sys.executable, "-m", "remit.cli")
_INTERRUPTED = ("/usr/bin/env", "--default-signal=INT")
"""Background jobs of a shell ignore SIGINT, and so would every process that they start."""
