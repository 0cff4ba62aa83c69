"""Programs that receive a secret and try to have it written where other users read: status, Events, logs, files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import orjson
import structlog

from remit.kube.client import EVENTS, NAMESPACES, POLICIES, SECRETS, TASKS
from remit.telemetry.logs import configure

from .case import Book
from .conftest import World

BOOK = Book()
PRELUDE = """
import base64, json, os, sys, time
from urllib.parse import quote
secret = open("/run/private/secret").read()
assert secret == os.environ["SECRET"]
say = lambda text, stream=1: os.write(stream, text.encode())
"""


@contextlib.contextmanager
def listening(world: World) -> Iterator[io.StringIO]:
    """Captures the operator's logs at the most verbose level."""
    root, heard = logging.getLogger(), io.StringIO()
    before, level, settings = root.handlers[:], root.level, structlog.get_config()
    configure(format="json", level="debug", stream=heard, redactor=world.redactor)
    try:
        yield heard
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        structlog.configure(**settings)


def spellings(secret: str) -> set[bytes]:
    raw = secret.encode()
    lines = {line.encode() for line in secret.splitlines() if len(line) >= 8}
    texts = (repr(secret)[1:-1], json.dumps(secret)[1:-1], quote(secret, safe=""))
    wrapped = base64.encodebytes(raw).splitlines()
    return {raw, base64.b64encode(raw), *wrapped, raw.hex().encode(), *lines, *(text.encode() for text in texts)}


def leak(name: str, wants: str, program: str, **spec: object) -> None:
    """Declares a case whose `program` knows `secret` and outputs it with `say`."""

    @BOOK.scenario(name, wants=wants, control="redaction of all that Remit writes, by stream and before it is kept")
    async def play(world: World, folder: Path) -> None:
        secret = f"k3y-{uuid4().hex}\"'$ %\nsecond-line-{uuid4().hex}\n"
        written = await everything_written(world, secret, PRELUDE + program, spec)
        for what, content in written.items():
            for spelling in spellings(secret):
                assert spelling not in content, what
        assert b"canary" in written[TASKS.plural] or spec, "the program never came so far"


async def everything_written(world: World, secret: str, program: str, spec: dict[str, object]) -> dict[str, bytes]:
    about = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault"}}
    data = {"secret": base64.b64encode(secret.encode()).decode()}
    await world.kube.create(SECRETS, "default", {**about, "data": data})
    reference = {"valueFrom": {"secretKeyRef": {"name": "vault", "key": "secret"}}}
    with listening(world) as heard:
        async with world.operator(health_port=0) as operator:
            await world.policy(
                scripts={"interpreters": ["python3"], "patterns": ["(?s).*"]}, environment={"allow": ["SECRET"]}
            )
            name = await world.task(
                script={"interpreter": "python3", "source": program},
                env=[{"name": "SECRET", **reference}], privateFiles=[{"path": "/run/private/secret", **reference}],
                retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}}, **spec,
            )  # fmt: skip
            await world.finished(name)
            await world.events(name, 1)
            written = {
                resource.plural: orjson.dumps(await world.kube.list(resource)) for resource in (TASKS, EVENTS, POLICIES)
            }
            async with aiohttp.ClientSession() as session:
                url = f"http://127.0.0.1:{operator.health.port}/metrics"
                async with session.get(url) as answer:
                    assert answer.status == 200
                    written["metrics"] = await answer.read()
    written["log"] = heard.getvalue().encode()
    files = [path for path in world.settings.state_dir.rglob("*") if path.is_file()]
    assert {"audit.jsonl", "outcome.json"} <= {path.name for path in files}
    return written | {str(path): await asyncio.to_thread(path.read_bytes) for path in files}


_LEAKS: tuple[tuple[str, str, str], ...] = (
    ("a secret said plainly", "to have it in status and in the kept output", "say(f'canary {secret} canary')"),
    ("a secret on standard error", "the same by the other stream", "say(f'canary {secret}', 2); sys.exit(3)"),
    ("a secret in pieces", "to have no write with all of it in it",
     "for character in secret: say(character)\nsay('canary')"),
    ("a secret in pieces over time", "to have pieces of it read one by one",
     "say(secret[:10]); time.sleep(0.3); say(secret[10:]); say('canary')"),
    ("a secret over the edge of a buffer", "to have it cut by the size of a pipe or a file",
     "for size in (65536, 1048576): say('x' * (size - 7)); say(secret)\nsay('canary')"),
    ("a secret over the edge of the tail", "to have its end in status without its beginning",
     "say('x' * 5000 + secret + 'y' * 4080); say('canary')"),
    ("a secret in a traceback", "to have it in the message of an error", "say('canary', 2); raise ValueError(secret)"),
    ("a secret as the exit message", "to have it in status as why the task failed", "say('canary'); sys.exit(secret)"),
    ("a secret in other spellings", "to write it as programs do that quote and encode",
     "say('canary ' + ' '.join([repr(secret), json.dumps({'s': secret}), quote(secret, safe=''), secret.encode().hex(),"
     " base64.b64encode(secret.encode()).decode(), base64.b64encode(f'user:{secret}'.encode()).decode(),"
     " base64.encodebytes(secret.encode()).decode()]))"),
    ("a line of a secret", "to say a line of a key at a time, with others between",
     "say('canary\\n' + '\\n--\\n'.join(secret.splitlines()))"),
    ("a secret among many", "to have it overlooked behind half of it, again and again",
     "say('canary' + (secret[:-1] + '!') * 50 + secret[:20] * 50 + secret)"),
)  # fmt: skip
for _name, _wants, _program in _LEAKS:
    leak(_name, _wants, _program)
leak(
    "a secret in a start that fails",
    "to have it in the message of the sandbox",
    "say('never')",
    workingDir="/workspace/nowhere",
)
leak(
    "a secret in a run that is cut off",
    "to have half of it kept when the time is over",
    "say('canary ' + secret + secret[:12]); time.sleep(60)",
    timeoutSeconds=1,
    terminationGracePeriodSeconds=0,
)


@contextlib.asynccontextmanager
async def held(world: World, *secrets: str) -> AsyncIterator[str]:
    """Runs a task that has the secrets and does not end, in a namespace of its own."""
    await world.kube.create(
        NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "hostile"}}
    )
    about = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "vault"}}
    data = {f"S{number}": base64.b64encode(secret.encode()).decode() for number, secret in enumerate(secrets)}
    await world.kube.create(SECRETS, "hostile", {**about, "data": data})
    await world.policy("sleep", namespace="hostile", environment={"allow": ["S*"]})
    name = await world.task("sleep", "3600", namespace="hostile", envFrom=[{"secretRef": {"name": "vault"}}])
    await world.until(name, lambda status: status.get("conditions"), namespace="hostile")
    yield name


@BOOK.scenario(
    "a secret that is one of Remit's own words",
    wants="to have what others run told as failed, run again, and missing from the record",
    control="only words of users are redacted, and only by the secrets of their own namespace",
)
async def a_secret_that_is_one_of_remits_own_words(world: World, folder: Path) -> None:
    words = ("Completed", "completed", "Allowed", "default", "echo", "/usr/bin", "process", "command", "execution")
    async with world.operator(), held(world, *words) as name:
        await world.phase(name, "Running", namespace="hostile")
        assert all(world.redactor.redact(word) != word for word in words), "they are not held"
        await world.policy("echo")
        task = await world.task("echo", "completed", retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}})
        status = await world.finished(task)
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Succeeded", "Completed")
    assert (status["attemptCount"], status["output"]["stdoutTail"]) == (1, "completed\n")
    lines = (world.settings.state_dir / "audit" / "audit.jsonl").read_bytes().splitlines()
    records = [record for line in lines if (record := orjson.loads(line)).get("task") == task]
    assert [(each["kind"], each["namespace"], each["verdict"]) for each in records] == [
        ("decision", "default", "Allowed"),
        ("execution", "default", "Completed"),
    ]
    assert records[0]["argv"] == ["echo", "completed"]


@BOOK.scenario(
    "a secret with too many lines to look for",
    wants="to keep the operator busy looking for each of them in everything it writes",
    control="a bound for what a task may bring; a look-up whose time does not grow with the secrets",
)
async def a_secret_with_too_many_lines(world: World, folder: Path) -> None:
    secret = "\n".join(uuid4().hex[:8] for _ in range(50_000))
    async with world.operator(), held(world, secret) as name, asyncio.timeout(60):
        status = await world.until(name, lambda status: status.get("message"), namespace="hostile")
        assert (status["phase"], status["conditions"][0]["reason"]) == ("Pending", "WaitingForReference")
        assert "lines of Secrets" in status["message"]
        await world.policy("echo")
        assert (await world.finished(await world.task("echo", "x")))["phase"] == "Succeeded"


@BOOK.scenario(
    "the operator's own environment",
    wants="to have a task see what the operator was started with",
    control="an environment made from the task alone; nothing of the operator's is inherited",
)
async def the_operators_environment(world: World, folder: Path) -> None:

    canary = f"canary-{uuid4().hex}"
    os.environ["REMIT_HOSTILE_TOKEN"] = canary
    try:
        async with world.operator():
            await world.policy({"executable": "python3"})
            look = "import os; from pathlib import Path; print(dict(os.environ))"
            look += "; print([path.read_text() for path in Path('/proc').glob('[0-9]*/environ')])"
            name = await world.task("python3", "-c", look)
            status = await world.finished(name)
            written = orjson.dumps([await world.kube.list(resource) for resource in (TASKS, EVENTS)])
    finally:
        del os.environ["REMIT_HOSTILE_TOKEN"]
    assert status["phase"] == "Succeeded", status
    assert "REMIT_TASK_NAME" in status["output"]["stdoutTail"]
    assert canary.encode() not in written
    for path in world.settings.state_dir.rglob("*"):
        if path.is_file():
            assert canary.encode() not in await asyncio.to_thread(path.read_bytes), path
