"""Runs `remit page` for a cluster as users do, as a separate process, with a client without a browser."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pages import Looker, logged_in
from remitup import REMIT, environment, until


@dataclass(frozen=True)
class RemitPage:
    process: subprocess.Popen[bytes]
    link: str
    log: Path
    """File with its standard error."""

    @property
    def origin(self) -> str:
        return self.link.partition("/login")[0]

    def end(self) -> int:
        """Ends it like Ctrl-C does, and returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    @contextmanager
    def looking(self) -> Iterator[Looker]:
        """Yields a session that is logged in, after the server has read the state."""
        with logged_in(self.link) as looker:
            yield looker


@contextmanager
def remit_page(folder: Path, *arguments: str, **env: str) -> Iterator[RemitPage]:
    """Runs `remit page`. `folder` is a new folder, which becomes its home directory."""
    folder.mkdir()
    out, log = folder / "out", folder / "log"
    with out.open("wb") as stdout, log.open("wb") as stderr:
        process = subprocess.Popen(
            [*REMIT, "page", *arguments],
            env=environment(HOME=str(folder), **env),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    try:
        until(lambda: out.read_text().endswith("\n") or process.poll() is not None, "its link")
        assert process.poll() is None, log.read_text()
        yield RemitPage(process, out.read_text().strip(), log)
    finally:
        process.kill()
        process.wait()
