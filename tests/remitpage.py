"""`remit page` of a cluster, as users have it: a process of its own, with a browser without a screen."""

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
    """What it wrote to standard error."""

    @property
    def origin(self) -> str:
        return self.link.partition("/login")[0]

    def end(self) -> int:
        """As Ctrl-C does. Its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)

    @contextmanager
    def looking(self) -> Iterator[Looker]:
        """Logged in, once what can be read was read."""
        with logged_in(self.link) as looker:
            yield looker


@contextmanager
def remit_page(folder: Path, *arguments: str, **env: str) -> Iterator[RemitPage]:
    """`folder` is a new one, and its home."""
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
