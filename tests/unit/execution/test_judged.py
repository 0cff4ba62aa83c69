"""What is executed is what was judged: the executor is given nothing of a task that policy was not asked about."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.api import CommandPolicy, ExecutionTask
from remit.backends import AttemptRequest
from remit.execution import admission
from remit.execution.admission import Admission, Admitted, PolicySet
from remit.execution.resolved import Resolved
from remit.operations.base import Work
from remit.policy import SCRIPT_PATH, Request, compile_policy, decide

ANYTHING = {
    "commands": {"allow": [{"pattern": ".*"}]},
    "scripts": {"interpreters": ["sh"], "patterns": ["(?s).*"]},
    "backends": ["process", "docker", "kubernetes"],
    "networks": ["none", "restricted", "host"],
    "environment": {"allow": ["*"]},
    "images": {"allow": ["*"]},
    "files": {"allow": [{"paths": ["/**"], "operations": ["read", "write", "copy"]}]},
    "processes": {"operations": ["start", "status"]},
    "http": {"allow": [{"hosts": ["*"], "methods": ["GET", "POST"], "ports": [80, 443]}]},
    "databases": {
        "postgres": {"secrets": ["db"], "statements": ["select", "insert"], "functions": ["*"]},
        "redis": {"secrets": ["db"], "commands": ["GET", "SET"]},
    },
    "containers": {"operations": ["run", "exec", "logs"], "options": ["network", "user"], "mounts": ["/**"]},
}
OPERATIONS = frozenset({"file", "process", "http", "redis", "postgres", "container"})
POLICY = compile_policy(CommandPolicy.parse({"metadata": {"name": "p", "namespace": "ns"}, "spec": ANYTHING}))

words = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=12)
paths = st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), min_size=1, max_size=4).map(lambda p: "/" + "/".join(p))
argv = st.lists(words, max_size=4).map(lambda rest: ["true", *rest])
reference = st.just({"name": "db", "key": "url"})
operations = st.one_of(
    st.fixed_dictionaries({"command": st.fixed_dictionaries({"argv": argv})}),
    st.fixed_dictionaries({"command": st.fixed_dictionaries({"line": words.map(lambda word: f"true {word!a}")})}),
    st.fixed_dictionaries(
        {"script": st.fixed_dictionaries({"interpreter": st.just("sh"), "source": st.text(min_size=1), "args": argv})}
    ),
    st.fixed_dictionaries(
        {"process": st.fixed_dictionaries({"action": st.just("start"), "name": st.just("p"), "argv": argv})}
    ),
    st.fixed_dictionaries(
        {"file": st.fixed_dictionaries({"operation": st.just("copy"), "path": paths, "destination": paths})}
    ),
    st.fixed_dictionaries(
        {"file": st.fixed_dictionaries({"operation": st.just("write"), "path": paths, "content": words})}
    ),
    st.fixed_dictionaries(
        {
            "http": st.fixed_dictionaries(
                {
                    "url": paths.map(lambda path: f"https://api.test{path}"),
                    "method": st.sampled_from(["GET", "POST"]),
                    "headers": st.lists(st.fixed_dictionaries({"name": st.just("X-A"), "value": words}), max_size=2),
                    "body": words,
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "redis": st.fixed_dictionaries(
                {
                    "connection": reference,
                    "commands": st.lists(st.tuples(st.sampled_from(["GET", "set"]), words), min_size=1),
                }
            )
        }
    ).map(lambda op: {"redis": {**op["redis"], "commands": [list(each) for each in op["redis"]["commands"]][:64]}}),
    st.fixed_dictionaries(
        {
            "postgres": st.fixed_dictionaries(
                {
                    "connection": reference,
                    "statements": st.lists(
                        st.fixed_dictionaries(
                            {"sql": st.just("select f($1)"), "parameters": st.lists(words, max_size=2)}
                        ),
                        min_size=1,
                        max_size=3,
                    ),
                }
            )
        }
    ),
    st.fixed_dictionaries(
        {
            "container": st.fixed_dictionaries(
                {
                    "action": st.just("run"),
                    "image": st.just("shop:v1"),
                    "argv": argv,
                    "options": st.fixed_dictionaries({"network": st.just("net"), "mounts": st.just([])}),
                }
            )
        }
    ),
)
surroundings = st.fixed_dictionaries(
    {},
    optional={
        "network": st.sampled_from(["none", "restricted", "host"]),
        "env": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["A", "B"]), "value": words}), max_size=1),
    },
)


@settings(max_examples=200, deadline=None)
@given(operation=operations, around=surroundings, folder=st.sampled_from(["/workspace", "/workspace/a"]))
def test_the_executor_is_given_what_was_judged(operation: dict[str, Any], around: dict[str, Any], folder: str) -> None:
    judged: list[Request] = []

    def recording(request: Request, *rest: Any) -> Any:
        judged.append(request)
        return decide(request, *rest)

    starts = not operation.keys().isdisjoint({"command", "script", "process"})
    spec = {**operation, **around, **({"workingDir": folder} if starts else {})}
    task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": "ns", "uid": "u"}, "spec": spec})
    environment = {each["name"]: each["value"] for each in around.get("env", ())}
    admit = Admission(performed=OPERATIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(admission, "decide", recording)
        verdict = admit.decide(task, PolicySet({"ns": [POLICY]}, "remit-system"), environment)
    assert isinstance(verdict, Admitted), verdict
    request = admit.attempt(task, verdict, 1, Resolved(env=dict(environment)), None).request
    (asked,) = judged
    if isinstance(request, Work):
        assert request.subject is asked.subject is verdict.grant.request.subject
        assert request.grant.request is asked
    run = request if isinstance(request, AttemptRequest) else request.run
    assert (run is None) == (asked.command is None)
    if run is None or asked.command is None:
        return
    assert run.command.argv == asked.command.argv
    assert run.command.executable == (asked.command.resolved or "")
    assert (run.confinement.working_dir, run.confinement.network, run.image) == (asked.working_dir, asked.network, "")
    own = {*admission.BASE_ENVIRONMENT, "REMIT_TASK_NAME", "REMIT_TASK_NAMESPACE", "REMIT_ATTEMPT"}
    assert run.command.env.keys() - own == {each["name"] for each in around.get("env", ())}
    assert asked.environment == run.command.env.keys() - own
    source = asked.subject.source if "script" in operation else None  # type: ignore[union-attr]
    assert run.files == ({SCRIPT_PATH: source.encode()} if source is not None else {})
