"""Tests `remit top` as a program on a terminal, with `remit up`."""

from __future__ import annotations

import re
import signal
from contextlib import AbstractContextManager

import pytest

from remitup import RemitUp, Terminal
from trees import submit

_COLOURED = re.compile(rb"\x1b\[[0-9;]*\b(3[0-7]|4[0-7]|38;[25];[0-9;]+|48;[25];[0-9;]+|9[0-7]|10[0-7])[0-9;]*m")


def top(up: RemitUp, *arguments: str, **env: str) -> AbstractContextManager[Terminal]:
    return up.spawn_on_a_terminal("top", *arguments, columns=100, **{"TERM": "xterm-256color"} | env)


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
        assert b"\x1b[?1049l" in screen.written
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
        assert not _COLOURED.search(drawn + screen.written)


def test_without_a_terminal_or_a_server_it_says_what_to_do(up: RemitUp) -> None:
    done = up.remit("top")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: remit top draws on a terminal, and this is none; 'remit get -w' prints each change as a line\n"
    )
    with top(up, "-n", "default", KUBECONFIG="/nowhere/kubeconfig") as screen:
        assert screen.end() == 1
        assert b"error: " in screen.written
        assert b"Traceback" not in screen.written
        assert b"\x1b[?1049h" not in screen.written
