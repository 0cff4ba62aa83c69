"""Types of hostile cases: what the attacker wants, the control that stops the attack, and how the test verifies that it
was stopped.

A `Program` is Python code that runs inside the sandbox. It calls `won(...)` if the attack succeeds, and its last line
reports that the attack was tried. A case fails if its program succeeds or ends early. If `outside` names a user, the
same program also runs without a sandbox as that user and must succeed, which proves that the attack works.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from remit.backends.outcome import ExitReason
from remit.sandbox import Layer, Limits

MEBIBYTE = 1 << 20
SMALL = Limits(memory_bytes=128 * MEBIBYTE, pids=32, disk_bytes=8 * MEBIBYTE, cpu_cores=1.0)

_PRELUDE = '''
import ctypes, errno, json, os, resource, signal, socket, struct, subprocess, sys, threading, time
scene = json.loads(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)

def won(*evidence):
    print("WON", *evidence, flush=True)

def stopped(error):
    print("STOPPED", errno.errorcode.get(error.errno, error.errno), flush=True)

def checked(result):
    """The result of a C call, or its error as OSError."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result

def syscall(number, *arguments):
    return checked(libc.syscall(ctypes.c_long(number), *(
        ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))

def linger():
    while True: time.sleep(60)
'''

_FIND_FOLDERS = """
import os, re, sys
variables = {"/workspace": "HOME", "/tmp": "TMPDIR"}
exec(re.sub("/workspace|/tmp", lambda found: os.environ[variables[found[0]]], sys.argv.pop()))
"""


EXITED = (ExitReason.COMPLETED, ExitReason.EXIT_CODE)
"""The reasons of a program that ended by itself."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the table of attacks."""

    name: str
    wants: str
    """What the attacker wants, as `to …`."""
    control: str
    """What stops the attack."""

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, kw_only=True)
class Program(Case):
    """An attack by a program that a policy allowed to run.

    `stopped_by` are the errors, one of which must have occurred (empty: the attack must have no effect). `ends` are the
    reasons with which the attempt may end. `layer` is the layer that must be in force for the control to exist.
    """

    attack: str
    stopped_by: tuple[str, ...] = ()
    outside: Literal["anybody", "root"] | None = None
    ends: tuple[ExitReason, ...] = EXITED
    exits: int = 0
    """The exit code that must be reported, if the program ends by exiting."""
    tried: bool = True
    """Whether the program survives long enough to report that it tried."""
    limits: Limits = SMALL
    timeout: float = 90
    layer: Layer | None = None
    bare_stopped_by: tuple[str, ...] = ()
    """Additional errors that stop it without namespaces, where access is refused instead of hidden."""
    bare_ends: tuple[ExitReason, ...] = ()

    @property
    def source(self) -> str:
        body = textwrap.indent(textwrap.dedent(self.attack).strip("\n"), "    ")
        return f"{_PRELUDE}\ntry:\n{body}\nexcept OSError as error:\n    stopped(error)\nprint('TRIED', flush=True)\n"

    def arguments(self, scene: dict[str, Any]) -> tuple[str, ...]:
        """Returns the arguments for `python3`, isolated from its environment."""
        return "-I", "-c", self.source, json.dumps(scene)

    def bare_arguments(self, scene: dict[str, Any]) -> tuple[str, ...]:
        """Returns the same arguments with the private folders at other paths, which an attacker would find out, too."""
        return "-I", "-c", _FIND_FOLDERS, json.dumps(scene), self.source


@dataclass(frozen=True, kw_only=True)
class Task(Case):
    """An attack by a task. `spec` must end with `reason`; `honest`, the same without the attack, must succeed."""

    spec: dict[str, Any]
    reason: str
    honest: dict[str, Any]
    policy: dict[str, Any] = field(default_factory=lambda: ECHO_AND_LIST)


ECHO_AND_LIST: dict[str, Any] = {"commands": {"allow": [{"executable": "echo"}, {"executable": "ls"}]}}
"""The policy of a task if the case does not specify one."""


@dataclass(frozen=True, kw_only=True)
class Command(Case):
    """Attacks on the starter policy. Every argument list must be denied, and `honest`, a similar one, must be
    allowed."""

    attacks: tuple[tuple[str, ...], ...]
    honest: tuple[str, ...]
    reason: str = "NotAllowed"


@dataclass(frozen=True, kw_only=True)
class Body(Case):
    """An attack by a request. `body` must be refused with one of `codes`, and an ordinary body must be accepted after
    it."""

    body: Callable[[], dict[str, Any] | bytes]
    codes: tuple[int, ...] = (400, 422)


@dataclass(frozen=True, kw_only=True)
class Scenario(Case):
    """An attack that needs more than a program. The function performs it and asserts that it had no effect."""

    play: Callable[..., Awaitable[None]]


class Book:
    """The cases of one module, in the order in which they are written."""

    def __init__(self) -> None:
        self.cases: list[Scenario] = []

    def scenario(self, name: str, *, wants: str, control: str) -> Callable[..., Any]:
        """Declares the test function below it as a case."""

        def declare(play: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
            self.cases.append(Scenario(name=name, wants=wants, control=control, play=play))
            return play

        return declare
