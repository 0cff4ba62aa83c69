"""Policies that are themselves an attack: patterns with exponential run time, and more entries than a policy may
have."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from remit.api.executiontask import ExecutionTask
from remit.errors import ApiError, InvalidInput
from remit.execution.admission import MAX_OUTPUT_BYTES, Admission, Admitted, PolicySet
from remit.execution.resolved import Resolved
from remit.kube.client import POLICIES
from remit.policy.testing import parse_policies

from .case import Book
from .conftest import World

BOOK = Book()
SLOW = "^(a+)+$"
VICTIM = "a" * 40 + "!"


async def apply(world: World, *patterns: str, name: str = "bomb") -> None:
    about = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": name}}
    rules = {"commands": {"allow": [{"pattern": pattern} for pattern in patterns]}}
    await world.kube.create(POLICIES, "default", {**about, "spec": rules})


async def not_ready(world: World, *patterns: str) -> str:
    """Applies a policy, and asserts that it is not in force and allows nothing. Returns its message."""
    await apply(world, *patterns, "echo .*")
    status = await world.until("bomb", lambda status: status.get("conditions"), POLICIES)
    (ready,) = (found for found in status["conditions"] if found["type"] == "Ready")
    assert ready["status"] == "False"
    task = await world.finished(await world.task("echo", "x"))
    assert task["conditions"][0]["reason"] == "PolicyNotReady"
    return str(ready["message"])


@BOOK.scenario(
    "a pattern that backtracks for ever",
    wants="to stop the operator with a regular expression",
    control="RE2, which takes linear time",
)
async def a_pattern_that_backtracks(world: World, folder: Path) -> None:
    try:
        subprocess.run([sys.executable, "-c", f"import re; re.match({SLOW!r}, {VICTIM!r})"], timeout=1)
    except subprocess.TimeoutExpired:
        pass  # expected: Python's own regular expression engine would run for hours
    else:
        raise AssertionError("the pattern does not explode at all")
    async with world.operator(), asyncio.timeout(60):
        await apply(world, SLOW, "(.*)*(.*)*(.*)*x", "((a|a)*)*b", r"(\w+\s?)*;", "echo ok")
        denied = await world.finished(await world.task(VICTIM))
        assert denied["phase"] == "Denied"
        denied = await world.finished(await world.task("cat", "a" * 8000, "a b c " * 1000))
        assert denied["phase"] == "Denied"
        honest = await world.finished(await world.task("echo", "ok"))
        assert honest["phase"] != "Denied"


@BOOK.scenario(
    "a pattern that is slow in its size",
    wants="to stop the operator with a long command and patterns for which RE2 finds no quick way",
    control="a bound for the work of all patterns of a decision; beyond it, a denial",
)
async def a_pattern_that_is_slow_in_its_size(world: World, folder: Path) -> None:
    async with world.operator(), asyncio.timeout(60):
        await apply(world, *[f"(.*(a|b|ab|ba)){{990}}c{number}" for number in range(30)], "echo ok")
        denied = await world.finished(await world.task("cat", *["ab" * 4000 + "ba"] * 8))
        assert denied["conditions"][0]["reason"] == "TooCostly"
        honest = await world.finished(await world.task("echo", "ok"))
        assert honest["phase"] != "Denied"


@BOOK.scenario(
    "a pattern that multiplies",
    wants="to fill the operator's memory with one compiled pattern",
    control="RE2's limit of repetitions; a limit of memory for each pattern",
)
async def a_pattern_that_multiplies(world: World, folder: Path) -> None:
    async with world.operator():
        assert "column" in await not_ready(world, "((a{1000}){1000}){1000}")


@BOOK.scenario(
    "many patterns of a fair size",
    wants="to fill the operator's memory with a policy whose patterns are each within their limit",
    control="a limit for all patterns of a policy together",
)
async def many_patterns(world: World, folder: Path) -> None:
    async with world.operator():
        patterns = [f"({'[a-z]{900}' * 10})x{number}" for number in range(100)]
        assert "too big" in await not_ready(world, *patterns)


@BOOK.scenario(
    "a pattern that is longer than a policy should be",
    wants="to fill the store with policies",
    control="maxLength and maxItems",
)
async def long_patterns(world: World, folder: Path) -> None:
    for patterns in (["a" * 100_000], ["a"] * 10_000):
        try:
            await apply(world, *patterns)
        except ApiError as error:
            assert error.status == 422
        else:
            raise AssertionError("it was taken")
    await apply(world, "a", name="fair")


@BOOK.scenario(
    "a pattern that looks around or back",
    wants="to be read by another engine than the one that was thought of",
    control="what RE2 does not know makes the policy not ready, and then it allows nothing",
)
async def look_around(world: World, folder: Path) -> None:
    async with world.operator():
        assert "RE2 has no look-around" in await not_ready(world, "echo (?!secret).*")


@BOOK.scenario(
    "a policy file whose aliases multiply",
    wants="to fill the memory of whoever tests a policy, by YAML's billion laughs",
    control="aliases are shared, and the models take no such shape",
)
async def yaml_bomb(world: World, folder: Path) -> None:
    levels = ["a: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)]
    bomb = "\n".join(["kind: CommandPolicy", "metadata: {name: p}", "spec:", *(f"  {line}" for line in levels)])
    async with asyncio.timeout(60):
        try:
            await asyncio.to_thread(parse_policies, bomb)
        except InvalidInput as error:
            assert len(str(error)) < 10_000
        else:
            raise AssertionError("it was taken for a policy")


@BOOK.scenario(
    "an output without end, all of it to be kept",
    wants="to fill the operator's disk, so that nothing can be recorded and so nothing runs",
    control="a limit of what is kept that no task and no policy can lift",
)
async def an_output_without_end(world: World, folder: Path) -> None:
    (allowing,) = parse_policies(
        "{kind: CommandPolicy, metadata: {name: p, namespace: default},"
        " spec: {commands: {allow: [{executable: echo}]}}}"
    )
    spec = {"command": {"argv": ["echo"]}, "output": {"maxBytes": "1Ti"}}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "default", "uid": "u"}, "spec": spec})
    admission = Admission()
    admitted = admission.decide(task, PolicySet({"default": [allowing]}, "remit-system"))
    assert isinstance(admitted, Admitted), admitted
    attempt = admission.attempt(task, admitted, 1, Resolved(), None)
    assert attempt.max_output_bytes == MAX_OUTPUT_BYTES
