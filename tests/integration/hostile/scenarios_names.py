"""Names, messages and output that try to control a terminal or to forge a line of output."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import pty
import subprocess
import sys
from pathlib import Path

import structlog

from remit.errors import ApiError
from remit.kube.client import POLICIES
from remit.telemetry.logs import configure

from .case import Book
from .conftest import World

BOOK = Book()
FORGED = '{"level": "info", "message": "forged"}'
WEAPONS = {
    "the window's title": "\x1b]0;owned\x07",
    "the clipboard": "\x1b]52;c;b3duZWQ=\x07",
    "the screen": "\x1b[2J",
    "a C1 control": "\x9b2J",
    "text direction": "\u202eowned",
    "a line over another": "harmless\rowned",
    "erasing": "owned\b\b\b\b\b",
}
SCRIPT = "import sys; sys.stdout.write({text!r}); sys.stderr.write({text!r})"


async def on_a_terminal(*arguments: str, folder: Path) -> str:
    """Returns what `remit …` writes to a terminal."""

    def run() -> bytes:
        master, terminal = pty.openpty()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "200"}
        process = subprocess.Popen(
            [sys.executable, "-m", "remit.cli", *arguments],
            stdin=terminal, stdout=terminal, stderr=terminal, env=environment, cwd=folder,
        )  # fmt: skip
        os.close(terminal)
        said = b""
        try:
            while chunk := os.read(master, 65536):
                said += chunk
        except OSError:
            pass  # reading from a terminal ends with EIO
        finally:
            os.close(master)
        process.wait(60)
        return said

    return (await asyncio.to_thread(run)).decode(errors="replace").replace("\r\n", "\n")


@BOOK.scenario(
    "output that drives a terminal",
    wants="to retitle, clear or script the terminal of whoever looks at a task",
    control="control characters are written as escapes where a terminal reads; JSON and YAML are escaped",
)
async def output_that_drives_a_terminal(world: World, folder: Path) -> None:
    text = "CANARY" + "|".join(WEAPONS.values()) + "|END"
    async with world.operator():
        await world.policy({"executable": "python3"})
        name = await world.task("python3", "-c", SCRIPT.format(text=text))
        status = await world.finished(name)
        assert "\x1b]0;owned" in status["output"]["stdoutTail"], "it was said"
        where = ("--kubeconfig", str(folder / "controlplane" / "kubeconfig"))
        state = ("--state-dir", str(world.settings.state_dir))
        looks = [
            await on_a_terminal("logs", name, *where, *state, folder=folder),
            await on_a_terminal("logs", name, *where, "--state-dir", str(folder / "elsewhere"), folder=folder),
            await on_a_terminal("get", name, "-o", "json", *where, folder=folder),
            await on_a_terminal("get", name, "-o", "yaml", *where, folder=folder),
        ]
    for look in looks:
        assert "CANARY" in look
        for what, weapon in WEAPONS.items():
            assert weapon not in look, what
    raw = await asyncio.to_thread((next(world.settings.state_dir.rglob("stdout.head"))).read_bytes)
    assert raw == text.encode(), "what is kept is what was said"


@BOOK.scenario(
    "messages that drive a terminal",
    wants="the same by what status, Events and the audit trail say of a task",
    control="messages are escaped where they enter status, Events and what the CLI shows",
)
async def messages_that_drive_a_terminal(world: World, folder: Path) -> None:
    weapon = "".join(WEAPONS.values()) + "\n" + FORGED
    async with world.operator():
        await world.policy("echo")
        body = {"executable": "ls", "reason": weapon[:200]}
        rules = {"commands": {"allow": [{"executable": "echo"}], "deny": [body]}}
        policy = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": "loud"}}
        await world.kube.create(POLICIES, "default", {**policy, "spec": rules})
        name = await world.task("ls")
        status = await world.finished(name)
        (event,) = await world.events(name, 1)
        where = ("--kubeconfig", str(folder / "controlplane" / "kubeconfig"))
        looks = [
            json.dumps(status, ensure_ascii=False),
            json.dumps(event, ensure_ascii=False),
            await on_a_terminal("get", "tasks", "-o", "wide", *where, folder=folder),
            await on_a_terminal("audit", "show", "--state-dir", str(world.settings.state_dir), folder=folder),
        ]
    assert status["conditions"][0]["reason"] == "DeniedByRule"
    for look in looks:
        assert "owned" in look
        for what, each in WEAPONS.items():
            assert each not in look, what
        assert f"\n{FORGED}" not in look


@BOOK.scenario(
    "a line of the log that the operator did not write",
    wants="to put an event of its own into the operator's log",
    control="one event a line, with control characters escaped, in JSON and for people",
)
async def a_forged_line_of_the_log(world: World, folder: Path) -> None:
    root = logging.getLogger()
    before, level, settings = root.handlers[:], root.level, structlog.get_config()
    try:
        for form in ("json", "console"):
            heard = io.StringIO()
            configure(format=form, level="debug", stream=heard)
            log = structlog.get_logger("remit.test")
            async with world.operator():
                await world.policy({"executable": "python3"})
                source = SCRIPT.format(text=f"\n{FORGED}\n")
                name = await world.task("python3", "-c", source.replace("\n", ""), stdin=f"\n{FORGED}\n")
                await world.finished(name)
                log.info("a task said\n" + FORGED, said="".join(WEAPONS.values()) + "\n" + FORGED)
            lines = heard.getvalue().splitlines()
            assert any(name in line for line in lines), "the operator logs what it does"
            assert FORGED not in lines
            if form == "json":
                assert all(json.loads(line)["message"] != "forged" for line in lines)
            assert not any(weapon in heard.getvalue() for weapon in WEAPONS.values())
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.configure(**settings)


@BOOK.scenario(
    "names that break out of a message",
    wants="to forge a line by the name of a Secret, a key, a working directory or an argument",
    control="the schema's patterns; control characters are refused in commands",
)
async def names_that_break_out(world: World, folder: Path) -> None:
    weapon = "x\x1b[2J\n" + FORGED
    reference = {"name": "db", "key": "k"}
    refused = 0
    for spec in (
        {"workingDir": f"/workspace/{weapon}"},
        {"privateFiles": [{"path": f"/run/private/{weapon}", "value": "x"}]},
        {"env": [{"name": weapon, "value": "x"}]},
        *(
            {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {**reference, field: weapon}}}]}
            for field in ("name", "key")
        ),
        {"envFrom": [{"secretRef": {"name": weapon}}]},
    ):
        try:
            await world.task("echo", **spec)
        except ApiError as error:
            assert error.status == 422, error
            refused += 1
    assert refused == 6
    async with world.operator():
        await world.policy("echo")
        status = await world.finished(await world.task("echo", weapon))
    assert status["conditions"][0]["reason"] == "InvalidCommand"
    assert "\n" not in status["message"]
