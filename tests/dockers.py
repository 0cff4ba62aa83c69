"""Docker for tests: the engine of this machine, images that are built on the spot, and separate engines that tests can
break."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import io
import os
import random
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
import uuid
import warnings
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import pytest

from parts import require
from remit.backends.base import Handle

SHARED = "unix:///var/run/docker.sock"
MARK = "remit.test"
_PATIENCE = 60.0
_T = TypeVar("_T")
_APPLETS = (
    "sh",
    "sleep",
    "echo",
    "cat",
    "head",
    "tail",
    "env",
    "id",
    "dd",
    "yes",
    "ls",
    "stat",
    "touch",
    "wc",
    "seq",
    "httpd",
    "mkdir",
    "chmod",
    "printf",
    "ln",
    "mkfifo",
    "mknod",
)


def docker(*arguments: str, host: str = SHARED, **options: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["docker", "-H", host, *arguments], capture_output=True, timeout=300, **options)


def needs_docker() -> None:
    """Skips the test if no engine answers."""
    answers = shutil.which("docker") and docker("version").returncode == 0
    require("docker", answers, "install docker.io and start dockerd")
    require("docker", _busybox(), "install busybox-static")


@contextlib.asynccontextmanager
async def engine_to_itself() -> AsyncIterator[None]:
    """Gives one test at a time, across processes, exclusive use of the engine, because Deployments with the same name
    would conflict on it."""
    with (Path(tempfile.gettempdir()) / "remit-tests-on-docker.lock").open("a") as lock:
        await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
        await asyncio.to_thread(_remove_what_was_left)
        yield


def _remove_what_was_left() -> None:
    """Removes containers of tests that were killed. It finds them by the label of test images, so it does not touch
    those of users."""
    left = docker("ps", "-aq", "--filter", f"label={MARK}").stdout.decode().split()
    if left:
        docker("rm", "-fv", *left)


def make_image(
    host: str = SHARED,
    changes: Sequence[str] = (),
    *,
    links: Mapping[str, str] | None = None,
    folders: Mapping[str, int] | None = None,
) -> str:
    """Builds a tiny image with a shell, and `changes` as lines of a Dockerfile. Remove it with `remove_image`.

    `links` are more symbolic links, and what each leads to; `folders` are more folders, and the mode of each."""
    tag = f"remit-test:{uuid.uuid4().hex}"
    packed = tree(links or {}, folders or {})
    made = docker("import", *(f"--change={change}" for change in changes), "-", tag, host=host, input=packed)
    assert made.returncode == 0, made.stderr
    return tag


def remove_image(tag: str, host: str = SHARED) -> None:
    """Removes the image and all containers of it."""
    ids = docker("ps", "-aq", "--filter", f"ancestor={tag}", host=host).stdout.decode().split()
    if ids:
        docker("rm", "-fv", *ids, host=host)
    docker("image", "rm", "--force", tag, host=host)


def _busybox() -> str | None:
    return next((path for path in ("/bin/busybox", "/usr/bin/busybox") if Path(path).exists()), None)


_FOLDERS = {"tmp": 0o1777, **dict.fromkeys(("bin", "etc", "proc", "sys", "dev", "run", "data"), 0o755)}


def tree(links: Mapping[str, str] = MappingProxyType({}), folders: Mapping[str, int] = MappingProxyType({})) -> bytes:
    """Returns the file tree of the image as a tar archive."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, mode in {**_FOLDERS, **folders}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            tar.addfile(entry)
        tar.add(os.path.realpath(_busybox() or ""), "bin/busybox")
        for name, target in {**{f"bin/{applet}": "busybox" for applet in _APPLETS}, **links}.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            tar.addfile(entry)
        passwd = b"root:x:0:0::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        tar.addfile(entry, io.BytesIO(passwd))
    return archive.getvalue()


@dataclass
class OwnEngine:
    """A separate dockerd, which shares nothing with the machine's engine and can be killed and started again.

    It has a bridge of its own, because `--bridge=none` would remove the `docker0` of the machine's engine.
    """

    folder: Path
    """A folder with a short path, because the path of a socket is limited to 107 bytes."""
    live_restore: bool = False
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _bridge: str = field(default_factory=lambda: f"rt{uuid.uuid4().hex[:8]}", init=False)

    @property
    def host(self) -> str:
        return f"unix://{self.folder}/d.sock"

    def start(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("address", "add", f"198.18.{random.randrange(256)}.1/24", "dev", self._bridge)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    "dockerd", f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec",
                    f"--pidfile={self.folder}/pid", f"--host={self.host}",
                    f"--bridge={self._bridge}", "--iptables=false", "--storage-driver=vfs",
                    *(["--live-restore"] if self.live_restore else []),
                ],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while docker("version", host=self.host).returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log").read_text()[-1500:]
                self.stop()
                require("docker", False, f"no second dockerd can be started: {said}")
            time.sleep(0.1)

    def hang(self) -> None:
        """Stops the engine with SIGSTOP: it accepts connections and answers nothing, and containers continue to run."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
                self._process.send_signal(signal.SIGCONT)
            self._process.wait(_PATIENCE)
            self._process = None
            _ip("link", "delete", self._bridge)


@contextlib.contextmanager
def own_engine(*, live_restore: bool = False) -> Iterator[OwnEngine]:
    """Starts an engine. At the end, nothing of it remains, not even the mount that a dockerd makes of its data
    folder."""
    with tempfile.TemporaryDirectory(prefix="rd", ignore_cleanup_errors=True) as folder:
        engine = OwnEngine(Path(folder), live_restore)
        try:
            engine.start()
            yield engine
        finally:
            engine.stop()
            mounted = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
            for path in sorted((path for path in mounted if path.startswith(f"{folder}/")), reverse=True):
                subprocess.run(["umount", "--lazy", path], check=False, timeout=_PATIENCE)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, timeout=_PATIENCE)


async def during(doing: asyncio.Future[Any], condition: Coroutine[Any, Any, _T]) -> _T:
    """Returns the result of `condition`. If `doing` ends first, or the time is over, the test fails with the
    details."""
    waiting = asyncio.ensure_future(condition)
    try:
        await asyncio.wait({doing, waiting}, timeout=_PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if waiting.done():
            return waiting.result()
        assert doing.done(), f"it goes on, and the condition is not met after {_PATIENCE:g} s"
        raise AssertionError(f"it ended before the condition was met: {doing.result()}")
    finally:
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


@dataclass
class Heard:
    """The output of an attempt and its handle."""

    streams: dict[str, bytearray] = field(default_factory=lambda: {"stdout": bytearray(), "stderr": bytearray()})
    total: int = 0
    keep: bool = True
    came: asyncio.Event = field(default_factory=asyncio.Event)
    handles: list[Handle] = field(default_factory=list)

    def write(self, stream: str, chunk: bytes) -> None:
        self.total += len(chunk)
        if self.keep:
            self.streams[stream] += chunk
        self.came.set()

    async def begun(self, doing: asyncio.Future[Any]) -> None:
        """Waits for the first output of the attempt that `doing` runs."""
        await during(doing, self.came.wait())

    @property
    def out(self) -> bytes:
        return bytes(self.streams["stdout"])

    @property
    def err(self) -> bytes:
        return bytes(self.streams["stderr"])


@pytest.fixture
def sdk_leaves_sockets() -> Iterator[None]:
    """Ignores unclosed sockets of the Docker SDK, which does not close the socket of a failed connection until the
    exception is freed."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def LEAKING(test: Any) -> Any:  # used like a mark
    """Ignores warnings about such sockets while the test runs."""
    ignored = "ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning"
    return pytest.mark.usefixtures("sdk_leaves_sockets")(pytest.mark.filterwarnings(*ignored)(test))
