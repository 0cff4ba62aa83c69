"""`remit top` as a program on a terminal, with `remit up`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from remitup import REMIT, RemitUp
from trees import submit

PATIENCE = 60
_COLOURED = re.compile(rb"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|38;[25];[0-9;]+|48;[25];[0-9;]+|9[0-7]|10[0-7])[0-9;]*m")


@dataclass
class Screen:
    """What a program draws on a terminal, byte by byte."""

    terminal: int
    process: subprocess.Popen[bytes]
    seen: bytes = b""

    def until(self, *words: bytes) -> bytes:
        """Read on until all of this has been drawn."""
        end = time.monotonic() + PATIENCE
        while not all(word in self.seen for word in words):
            assert time.monotonic() < end, (words, self.seen[-4000:])
            if select.select([self.terminal], [], [], 0.5)[0]:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.terminal, 1 << 16)
        return self.seen

    def press(self, keys: bytes) -> None:
        self.seen = b""
        os.write(self.terminal, keys)

    def end(self) -> int:
        """Its exit code, once all is read."""
        end = time.monotonic() + PATIENCE
        while self.process.poll() is None or select.select([self.terminal], [], [], 0)[0]:
            assert time.monotonic() < end
            if select.select([self.terminal], [], [], 0.1)[0]:
                try:
                    self.seen += os.read(self.terminal, 1 << 16)
                except OSError:
                    break
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def top(up: RemitUp, *arguments: str, **env: str) -> Iterator[Screen]:
    """A variable that is empty in `env` is not set."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    variables = {key: value for key, value in (up.env | {"TERM": "xterm-256color"} | env).items() if value}
    command = [*REMIT, "top", *arguments]
    before = termios.tcgetattr(theirs)
    process = subprocess.Popen(
        command, env=variables, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True
    )
    try:
        yield Screen(ours, process)
        assert termios.tcgetattr(theirs) == before, "the terminal is not as it was"
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)


def test_it_shows_follows_cancels_and_leaves_the_terminal_as_it_was(up: RemitUp) -> None:
    submit(up, "shown-on-top", r"printf 'first\n\033]0;owned\007\n'; sleep 600")
    with top(up, NO_COLOR="") as screen:
        drawn = screen.until(b"shown-on-top", b"Running", b"live")
        assert b"\x1b[?1049h" in drawn
        assert _COLOURED.search(drawn)
        screen.press(b"l")
        drawn = screen.until(b"first", rb"\x1b]0;owned\x07")
        assert b"\x1b]0;owned" not in drawn
        screen.press(b"\x1b")
        screen.until(b"shown-on-top")
        screen.press(b"c")
        screen.until(b"Cancel task default/shown-on-top?")
        screen.press(b"y")
        screen.until(b"Cancelled")
        screen.press(b"q")
        assert screen.end() == 0
        assert b"\x1b[?1049l" in screen.seen
    assert up.phase("shown-on-top") == "Cancelled"


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_without_colours_and_with_a_signal(up: RemitUp, signum: signal.Signals) -> None:
    with top(up, "-A", NO_COLOR="1") as screen:
        drawn = screen.until(b"all namespaces", b"live")
        if signum == signal.SIGINT:
            screen.press(b"\x03")
        else:
            screen.process.send_signal(signum)
        assert screen.end() == 0
        assert not _COLOURED.search(drawn + screen.seen)


def test_without_a_terminal_or_a_server_it_says_what_to_do(up: RemitUp) -> None:
    done = up.remit("top")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: remit top draws on a terminal, and this is none; 'remit get -w' prints each change as a line\n"
    )
    with top(up, "-n", "default", KUBECONFIG="/nowhere/kubeconfig") as screen:
        assert screen.end() == 1
        assert b"error: " in screen.seen
        assert b"Traceback" not in screen.seen
        assert b"\x1b[?1049h" not in screen.seen
