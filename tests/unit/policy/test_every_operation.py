"""Tests for every operation that an error names the field and the remedy, and that a denial names what would allow
it."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from remit.api.commandpolicy import CommandPolicy
from remit.api.definitions import crds
from remit.api.executiontask import ExecutionTask
from remit.api.operationnames import Operation
from remit.controlplane.schema import Schema
from remit.errors import InvalidInput
from remit.policy.compile import compile_policy
from remit.policy.evaluate import evaluate
from remit.policy.needs import merged
from remit.policy.testing import decide_on, request_of
from remit.policy.verdict import Allowance

CONNECTION = {"name": "db", "key": "url"}


@dataclass(frozen=True)
class Bad:
    """An invalid operation, the field that the error names, and words of the remedy."""

    subject: dict[str, Any]
    field: str
    remedy: str
    beside: dict[str, Any] = field(default_factory=dict)
    """Further fields of the spec."""


@dataclass(frozen=True)
class Denied:
    """An operation, a policy, the fields of the policy that the denial names, and the change that allows it."""

    subject: dict[str, Any]
    policy: dict[str, Any]
    named: str
    allowed_by: dict[str, Any]


def sql(text: str) -> dict[str, Any]:
    return {"connection": CONNECTION, "statements": [{"sql": text}]}


BAD: dict[str, list[Bad]] = {
    "command": [
        Bad({"argv": ["ls"], "line": "ls"}, "spec.command", "set exactly one of argv or line"),
        Bad({"argv": []}, "spec.command.argv", "at least 1 item"),
        Bad({"line": "a | b"}, "column 3", "use a script"),
        Bad(
            {"line": "cat"},
            "spec",
            "set stdin or stdinFrom, not both",
            {"stdin": "x", "stdinFrom": {"configMapKeyRef": CONNECTION}},
        ),
        Bad({"line": "cat"}, "spec.stdinFrom", "set exactly one of", {"stdinFrom": {}}),
        Bad({"line": "cat"}, "spec", "none of volumes", {"stdinFrom": {"volume": {"name": "src"}}}),
        Bad(
            {"line": "cat"},
            "spec",
            "set configMapKeyRef",
            {
                "volumes": [{"name": "src", "configMap": {"name": "src"}}],
                "stdinFrom": {"volume": {"name": "src", "path": "file"}},
            },
        ),
        Bad(
            {"line": "cat"},
            "spec.stdinFrom.volume.path",
            "match",
            {
                "volumes": [{"name": "src", "hostPath": {"path": "/srv/src"}}],
                "stdinFrom": {"volume": {"name": "src", "path": "../file"}},
            },
        ),
    ],
    "script": [Bad({"interpreter": "sh"}, "spec.script.source", "Required")],
    "file": [
        Bad({"operation": "copy", "path": "/srv/a"}, "spec.file", "destination goes with copy and move"),
        Bad({"operation": "write", "path": "/srv/a"}, "spec.file", "need content or contentFrom"),
        Bad({"operation": "read", "path": "srv"}, "spec.file.path", "^/"),
        Bad({"operation": "burn", "path": "/srv"}, "spec.file.operation", "create"),
        Bad({"operation": "chmod", "path": "/srv/a", "mode": "9"}, "spec.file.mode", "[0-7]{3}"),
        Bad(
            {"operation": "read", "path": "/srv"},
            "spec",
            "stdinFrom goes with command, script and the start of a process",
            {"stdinFrom": {"configMapKeyRef": CONNECTION}},
        ),
        Bad({"operation": "read", "path": "/srv", "glob": "*"}, "spec.file", "glob goes with list and delete"),
        Bad({"operation": "delete", "path": "/srv", "glob": "../*"}, "spec.file.glob", "below path"),
        Bad({"operation": "list", "path": "/srv", "glob": "*", "recursive": True}, "spec.file", "'**/' in glob"),
        Bad({"operation": "delete", "path": "/srv", "olderThan": "7d"}, "spec.file", "olderThan goes with list"),
        Bad({"operation": "list", "path": "/srv", "olderThan": "7 days"}, "spec.file.olderThan", "d"),
        Bad({"operation": "list", "path": "/srv", "dryRun": True}, "spec.file", "dryRun goes with delete"),
        Bad({"operation": "stat", "path": "/srv/a"}, "spec", "leave it out", {"backend": "docker", "image": "a:1"}),
    ],
    "process": [
        Bad({"action": "start", "name": "a"}, "spec.process", "argv goes with start"),
        Bad({"action": "stop"}, "spec.process", "needs the process's name"),
    ],
    "http": [
        Bad({"url": "ftp://example.com"}, "spec.http.url", "^https?://"),
        Bad({"url": "https://example.com", "method": "BREW"}, "spec.http.method", "GET"),
        Bad({"url": "https://a", "headers": [{"name": "a b"}]}, "spec.http.headers[0].name", "match"),
        Bad(
            {"url": "https://a", "headers": [{"name": "a", "value": "1", "valueFrom": {"secretKeyRef": CONNECTION}}]},
            "spec.http.headers[0]",
            "set value or valueFrom, not both",
        ),
        Bad({"url": "https://a", "maxResponseBytes": "lots"}, "spec.http.maxResponseBytes", "match|quantity"),
    ],
    "redis": [
        Bad({"connection": CONNECTION, "commands": []}, "spec.redis.commands", "at least 1 item"),
        Bad({"connection": CONNECTION, "commands": [[]]}, "spec.redis.commands[0]", "at least 1 item"),
    ],
    "postgres": [
        Bad({"statements": [{"sql": "SELECT 1"}]}, "spec.postgres.connection", "Required"),
        Bad({**sql("SELECT 1"), "maxRows": 0}, "spec.postgres.maxRows", "greater than or equal to 1"),
    ],
    "container": [
        Bad({"action": "run"}, "spec.container", "image goes with run and pull"),
        Bad({"action": "logs"}, "spec.container", "name the container"),
        Bad({"action": "run", "image": "a b"}, "spec.container.image", "match"),
        Bad({"action": "stop", "name": "ab", "wait": True}, "spec.container", "wait and remove go with run"),
        Bad({"action": "run", "image": "a", "remove": True}, "spec.container", "remove needs wait"),
        Bad(
            {"action": "run", "image": "a", "wait": True, "options": {"restartPolicy": "Always"}},
            "spec.container",
            "restartPolicy does not go with wait",
        ),
        *(
            Bad({"action": action, "name": "ab", "workingDir": "/srv"}, "spec.container", "workingDir goes with exec")
            for action in ("start", "logs")
        ),
        *(
            Bad(
                {"action": "exec", "name": "ab", "argv": ["true"], "workingDir": folder},
                "spec.container.workingDir",
                "\\^/|at least 1|at most 1024|1024",
            )
            for folder in ("srv", "./srv", "", "/srv\n", "/srv\x00", "/srv/\x1b[2J", "/" + "a" * 1024)
        ),
    ],
}

COMMAND = {"commands": {"allow": [{"executable": "true"}]}}
DENIED: dict[str, list[Denied]] = {
    "command": [
        Denied({"line": "ls"}, {}, "spec.commands.allow", {"commands": {"allow": [{"executable": "ls"}]}}),
        Denied({"line": "ls"}, COMMAND, "spec.commands.allow", {"commands": {"allow": [{"executable": "ls"}]}}),
    ],
    "script": [
        Denied(
            {"interpreter": "sh", "source": "x"},
            {},
            "spec.scripts.interpreters",
            {"scripts": {"interpreters": ["sh"], "patterns": ["x"]}},
        ),
        Denied(
            {"interpreter": "sh", "source": "x"},
            {"scripts": {"interpreters": ["sh"]}},
            "spec.scripts.sha256",
            {"scripts": {"interpreters": ["sh"], "patterns": ["x"]}},
        ),
    ],
    "file": [
        Denied(
            {"operation": "read", "path": "/srv/a"},
            policy,
            named,
            {"files": {"allow": [{"paths": ["/srv/*"], "operations": ["read"]}]}},
        )
        for policy, named in (
            ({}, "spec.files.allow"),
            ({"files": {"allow": [{"paths": ["/srv/*"], "operations": ["stat"]}]}}, "spec.files.allow[0].operations"),
            ({"files": {"allow": [{"paths": ["/opt/*"], "operations": ["read"]}]}}, "spec.files.allow"),
        )
    ],
    "process": [
        Denied(
            {"action": "stop", "name": "a"}, {}, "spec.processes.operations", {"processes": {"operations": ["stop"]}}
        ),
        Denied(
            {"action": "start", "name": "a", "argv": ["true"]},
            {"processes": {"operations": ["start"]}},
            "spec.commands.allow",
            {"processes": {"operations": ["start"]}, **COMMAND},
        ),
    ],
    "http": [
        Denied({"url": "https://a.example/x"}, policy, named, {"http": {"allow": [{"hosts": ["a.example"]}]}})
        for policy, named in (
            ({}, "spec.http.allow"),
            ({"http": {"allow": [{"hosts": ["b.example"]}]}}, "spec.http.allow[].hosts"),
            ({"http": {"allow": [{"hosts": ["a.example"], "ports": [80]}]}}, "spec.http.allow[0].ports"),
            ({"http": {"allow": [{"hosts": ["a.example"], "methods": ["PUT"]}]}}, "spec.http.allow[0].methods"),
            ({"http": {"allow": [{"hosts": ["a.example"], "paths": ["/y"]}]}}, "spec.http.allow[0].paths"),
        )
    ],
    "redis": [
        Denied(
            {"connection": CONNECTION, "commands": [["GET", "k"]]},
            {"databases": {"redis": rule}},
            named,
            {"databases": {"redis": {"secrets": ["db"], "commands": ["GET"]}}},
        )
        for rule, named in (
            ({"commands": ["GET"]}, "spec.databases.redis.secrets"),
            ({"secrets": ["db"]}, "spec.databases.redis.commands"),
        )
    ],
    "postgres": [
        Denied(
            sql("SELECT 1"),
            {"databases": {"postgres": rule}},
            named,
            {"databases": {"postgres": {"secrets": ["db"], "statements": ["select"]}}},
        )
        for rule, named in (
            ({"statements": ["select"]}, "spec.databases.postgres.secrets"),
            ({"secrets": ["db"]}, "spec.databases.postgres.statements"),
        )
    ],
    "container": [
        Denied(
            {"action": "run", "image": "a:1", "argv": ["true"], "options": {"user": "nobody"}},
            {**RUNNING, **changed},
            named,
            RUNNING,
        )
        for RUNNING in (
            {"containers": {"operations": ["run"], "options": ["user"]}, "images": {"allow": ["a:*"]}, **COMMAND},
        )
        for changed, named in (
            ({"containers": {}}, "spec.containers.operations"),
            ({"images": {}}, "spec.images.allow"),
            ({"containers": {"operations": ["run"]}}, "spec.containers.options"),
            ({"commands": {}}, "spec.commands.allow"),
        )
    ]
    + [
        Denied(
            {"action": "exec", "name": "web", "argv": ["true"], "workingDir": folder},
            {"containers": {"operations": ["exec"], "workingDirs": listed}, **COMMAND},
            f"`containers: {{workingDirs: [{', '.join(json.dumps(each) for each in (*listed, folder))}]}}`",
            {"containers": {"operations": ["exec"], "workingDirs": [folder]}, **COMMAND},
        )
        for folder, listed in (("/srv/app", []), ("/srv/app/b", ["/srv/app", "/srv/*"]), ("/", ["/srv/**"]))
    ],
}


def listed(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(operation, case, id=f"{operation}-{n}")
        for operation, cases in table.items()
        for n, case in enumerate(cases)
    ]


@pytest.fixture(scope="module")
def served() -> Schema:
    crd = next(crd for crd in crds() if crd["spec"]["names"]["kind"] == "ExecutionTask")
    return Schema.compile(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])


def answer(served: Schema, obj: dict[str, Any]) -> str:
    """Returns the API server's error about a task or, if it accepts the task, the operator's."""
    defaulted = served.default(obj)
    if causes := served.validate(defaulted if defaulted is not None else obj):
        return "; ".join(f"{cause.field}: {cause.message}" for cause in causes)
    try:
        request_of(ExecutionTask.parse(obj))
    except InvalidInput as error:
        return str(error)
    return "accepted"


def test_the_tables_have_every_operation() -> None:
    assert set(BAD) == set(DENIED) == set(get_args(Operation))


@pytest.mark.parametrize(("operation", "bad"), listed(BAD))
def test_an_error_names_the_field_and_the_remedy(served: Schema, operation: str, bad: Bad) -> None:
    said = answer(
        served, {"kind": "ExecutionTask", "metadata": {"name": "t"}, "spec": {operation: bad.subject, **bad.beside}}
    )
    assert bad.field in said
    assert bad.remedy in said or re.search(bad.remedy, said), said


def decided(operation: str, subject: dict[str, Any], policy: dict[str, Any]) -> Any:
    task = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {operation: subject}})
    compiled = compile_policy(CommandPolicy.parse({"metadata": {"name": "p"}, "spec": policy}))
    assert compiled.ready, compiled.problems
    return decide_on(request_of(task), [compiled], "remit-system")


@pytest.mark.parametrize(("operation", "denied"), listed(DENIED))
def test_a_denial_names_what_would_have_allowed_it(operation: str, denied: Denied) -> None:
    decision = decided(operation, denied.subject, denied.policy)
    assert not decision.allowed
    assert "policy default/p" in decision.message
    assert denied.named in decision.message
    assert decided(operation, denied.subject, denied.allowed_by).allowed


def test_the_policies_of_the_documentation_are_ready() -> None:
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, re.S)]
    specs = [block["spec"] for block in blocks if "spec" in block]
    problems = [
        compile_policy(CommandPolicy.parse({"metadata": {"name": "p"}, "spec": spec})).problems for spec in specs
    ]
    assert not any(problems), problems
    assert {"files", "http", "databases", "scripts", "containers", "processes"} <= {name for s in specs for name in s}


@pytest.mark.parametrize(("operation", "denied"), listed(DENIED))
def test_a_denial_carries_what_the_policy_lacks(operation: str, denied: Denied) -> None:
    task = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {operation: denied.subject}})
    spec = denied.policy
    for _ in range(8):
        compiled = compile_policy(CommandPolicy.parse({"metadata": {"name": "p"}, "spec": spec}))
        outcome = evaluate(compiled, request_of(task))
        if isinstance(outcome, Allowance):
            return
        assert outcome.needs, outcome.message
        spec = merged(spec, outcome.needs)
    pytest.fail(f"never allowed by {spec}")
