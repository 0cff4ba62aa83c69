"""Malicious objects that are sent to the embedded control plane."""

from __future__ import annotations

import json
from typing import Any

from .case import Body

TOO_BIG = (400, 413, 422)


def task(metadata: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    about = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask"}
    return {**about, "metadata": {"name": "attack", **(metadata or {})}, "spec": {"command": {"argv": ["ls"]}, **spec}}


def nested(levels: int) -> bytes:
    head = json.dumps(task()).removesuffix("}}").encode()
    return head + b', "x": ' + b'{"a":' * levels + b"1" + b"}" * levels + b"}}"


CASES = [
    Body(
        name="a deeply nested spec",
        wants="to exhaust the stack of whoever reads it",
        control="a limit of depth",
        body=lambda: nested(100_000),
    ),
    Body(
        name="a spec nested as deep as JSON readers go",
        wants="the same, just below the reader's own limit",
        control="a limit of depth; strict field validation",
        body=lambda: nested(900),
    ),
    Body(
        name="a huge spec",
        wants="to fill the store with one object",
        control="a limit of the request's size",
        body=lambda: task(stdin="x" * (8 << 20)),
        codes=TOO_BIG,
    ),
    Body(
        name="a huge argument list",
        wants="to make every later look at the task expensive",
        control="maxItems",
        body=lambda: task(command={"argv": ["ls"] * 100_000}),
    ),
    Body(
        name="a huge argument",
        wants="the same by one argument",
        control="maxLength",
        body=lambda: task(command={"argv": ["ls", "x" * 100_000]}),
    ),
    Body(
        name="a huge line",
        wants="to keep the splitter busy",
        control="maxLength",
        body=lambda: task(command={"line": "'" * 200_000}),
    ),
    Body(
        name="a flood of variables",
        wants="to overflow what the kernel takes",
        control="maxItems",
        body=lambda: task(env=[{"name": f"A{n}", "value": "x"} for n in range(10_000)]),
    ),
    Body(
        name="a flood of labels",
        wants="to make every selector expensive",
        control="a limit of the metadata's size",
        body=lambda: task({"labels": {f"k{n}": "x" for n in range(200_000)}}),
        codes=TOO_BIG,
    ),
    Body(
        name="huge annotations",
        wants="to be kept in memory by every watcher",
        control="256 KiB of annotations",
        body=lambda: task({"annotations": {"a": "x" * 300_000}}),
        codes=TOO_BIG,
    ),
    Body(
        name="a name that is a path",
        wants="to have its files written elsewhere in the run store",
        control="names are DNS names; folders are named by uid",
        body=lambda: task({"name": "../../etc"}),
    ),
    Body(
        name="a name with terminal escapes",
        wants="to drive the terminal of whoever lists tasks",
        control="names are DNS names",
        body=lambda: task({"name": "a\x1b[2J"}),
    ),
    Body(
        name="a name with a newline",
        wants="to forge a line of a log",
        control="names are DNS names",
        body=lambda: task({"name": 'a\n{"level": "info"}'}),
    ),
    Body(
        name="a working directory by a detour",
        wants="to have a folder made on the host while its sandbox is built",
        control="a pattern without `..`, asked again by the sandbox",
        body=lambda: task(workingDir="/workspace/../../oldroot/tmp/x"),
    ),
    Body(
        name="a working directory of the host",
        wants="to have a program take a file of the host, or one beside its private files, for its own",
        control="a rule of the schema, asked again with the policies: the private workspace alone",
        body=lambda: task(workingDir="/run/p", privateFiles=[{"path": "/run/p/package.json", "value": "{}"}]),
    ),
    Body(
        name="a number that is none",
        wants="to have a limit become infinite or not a number",
        control="the schema; a strict reader",
        body=lambda: json.dumps(task(timeoutSeconds=1)).replace(": 1}", ": 1e999}").encode(),
    ),
    Body(
        name="a negative limit",
        wants="to have a limit mean no limit",
        control="the schema's minimum",
        body=lambda: task(timeoutSeconds=-1),
    ),
    Body(
        name="a key twice",
        wants="to show one value to a checker and another to a runner",
        control="strict field validation",
        body=lambda: json.dumps(task()).replace('"spec": {', '"spec": {"stdin": "a", "stdin": "b", ').encode(),
    ),
    Body(
        name="a field that does not exist",
        wants="to have a misspelt limit silently left out",
        control="strict field validation",
        body=lambda: task(timeoutSecond=1),
    ),
    Body(
        name="two operations in one task",
        wants="to have one checked and the other run",
        control="exactly one, by CEL",
        body=lambda: task(script={"interpreter": "sh", "source": "id"}),
    ),
]
