"""Tests that a suggested policy allows what was observed and nothing else, and names what it cannot allow."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies import policy
from randomtasks import operations, surroundings
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.request import PolicyRequest
from remit.policy.suggestion import Options, Run, Suggestion, suggest
from remit.policy.testing import request_of
from remit.telemetry.redact import MASK, Redactor
from support import repetitions

OTHER = "zz-another"


def asked(spec: dict[str, Any], labels: dict[str, str] | None = None) -> PolicyRequest:
    metadata = {"name": "t", "namespace": "data", "labels": labels or {}}
    return request_of(ExecutionTask.parse({"metadata": metadata, "spec": spec}))


def run(name: str, labels: dict[str, str] | None = None, **spec: Any) -> Run:
    return Run(name=f"task {name}", request=asked(spec, labels), stdin="stdin" in spec)


def command(name: str, line: str, **spec: Any) -> Run:
    return run(name, command={"line": line}, **spec)


def compiled(suggestion: Suggestion) -> list[CompiledPolicy]:
    """Returns the policies as an API server would deliver them to an operator."""
    policies = [compile_policy(CommandPolicy.parse(each.object)) for each in suggestion.policies]
    assert all(each.ready for each in policies), [each.problems for each in policies]
    return policies


def decided(suggestion: Suggestion, request: PolicyRequest, *others: CompiledPolicy) -> Decision:
    return decide(request, [*compiled(suggestion), *others])


def suggested(*runs: Run, policies: Sequence[CompiledPolicy] = (), **options: Any) -> Suggestion:
    return suggest(runs, "data", policies, (), Options(**options))


def rules(suggestion: Suggestion, number: int = 0) -> list[dict[str, Any]]:
    allow: list[dict[str, Any]] = suggestion.policies[number].spec["commands"]["allow"]
    return allow


def said(suggestion: Suggestion, number: int = 0) -> str:
    return "\n".join(line for lines in suggestion.policies[number].comments.values() for line in lines)


def why(suggestion: Suggestion) -> dict[str, str]:
    return {each.run.name: each.why for each in suggestion.left_out}


def neighbours(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns tasks that differ from this one, and from each other, in one thing that policies check."""
    found = [{**spec, "env": [*spec.get("env", ()), {"name": "ANOTHER", "value": "x"}]}]
    if "image" in spec:
        found.append({**spec, "image": f"{spec['image']}-{OTHER}"})
    ((operation, subject),) = [(name, value) for name, value in spec.items() if name in NEIGHBOURS]
    return [*found, *({**spec, operation: {**subject, **change}} for change in NEIGHBOURS[operation](subject))]


def other_network(spec: dict[str, Any]) -> str:
    return "host" if spec.get("network") != "host" else "none"


def other_argv(subject: dict[str, Any]) -> list[dict[str, Any]]:
    if "line" in subject:
        return [{"line": f"{subject['line']} {OTHER}"}]
    argv = subject["argv"]
    return [{"argv": [*argv, OTHER]}, {"argv": [*argv[:-1], argv[-1] + OTHER]}, {"argv": [*argv, ""]}]


NEIGHBOURS: dict[str, Callable[[dict[str, Any]], list[dict[str, Any]]]] = {
    "command": other_argv,
    "process": lambda subject: [*other_argv(subject), {"action": "stop", "argv": None}],
    "script": lambda subject: [{"source": subject["source"] + OTHER}, {"interpreter": "python3"}],
    "file": lambda subject: [{"path": f"{subject['path']}x"}, {"path": f"{subject['path']}/{OTHER}"}],
    "http": lambda subject: [
        {"url": f"{subject['url']}x"},
        {"url": subject["url"].replace("api.test", "api.test:444")},
        {"url": subject["url"].replace("api.test", "x.api.test")},
        {"method": "DELETE"},
    ],
    "redis": lambda subject: [{"commands": [["DEL", "a"]]}, {"connection": {"name": "db2", "key": "url"}}],
    "postgres": lambda subject: [
        {"statements": [{"sql": "delete from a"}]},
        {"statements": [{"sql": "select g(1)"}]},
        {"connection": {"name": "db2", "key": "url"}},
    ],
    "container": lambda subject: [
        *other_argv(subject),
        *(
            [{"image": f"shop:{OTHER}"}, {"options": {**subject["options"], "privileged": True}}]
            if subject["action"] == "run"
            else [{"workingDir": f"{subject.get('workingDir', '')}/{OTHER}"}]
        ),
    ],
}

backends = st.sampled_from(
    [{}, {"backend": "docker", "image": "shop:v1"}, {"backend": "docker", "image": "reg.test:5000/a@sha256:0"}]
)
specs = st.tuples(operations, surroundings, backends).map(
    lambda parts: {**parts[0], **parts[1], **(parts[2] if {"command", "script"} & parts[0].keys() else {})}
)


@settings(max_examples=repetitions(20, soak=1000), deadline=None)
@given(st.lists(specs, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_was_seen_is_allowed_and_its_neighbours_are_not(
    tasks: list[dict[str, Any]], chance: random.Random
) -> None:
    runs = [Run(name=f"task {number}", request=asked(spec)) for number, spec in enumerate(tasks)]
    found = suggest(runs, "data", [])
    assert all(each.why.startswith("Invalid") for each in found.left_out), found.left_out
    refused = {each.run.name for each in found.left_out}
    for each, spec in zip(runs, tasks, strict=True):
        if each.name in refused:
            continue
        assert decided(found, each.request).allowed
        alone, elsewhere = suggest([each], "data", []), {**spec, "network": other_network(spec)}
        assert not decided(alone, asked(elsewhere)).allowed  # another task may start the same command as a process
        for neighbour in neighbours(spec):
            assert not decided(found, asked(neighbour)).allowed, neighbour
    chance.shuffle(runs)
    assert suggest(runs, "data", []).policies == found.policies, "the order in which tasks are found does not show"


TINY = {
    "argv": st.lists(st.sampled_from(["a", "b", "…", "...", "a|b", "-x"]), max_size=2).map(
        lambda rest: ["true", *rest]
    ),
    "env": st.sets(st.sampled_from("AB")),
    "network": st.sampled_from(["none", "host"]),
}


@settings(max_examples=repetitions(30, soak=2000), deadline=None)
@given(st.lists(st.tuples(TINY["argv"], TINY["env"], TINY["network"]), min_size=1, max_size=6))
def test_no_combination_is_allowed_that_was_not_seen(seen: list[tuple[list[str], set[str], str]]) -> None:
    def request(argv: list[str], env: set[str], network: str) -> PolicyRequest:
        variables = [{"name": name, "value": "/"} for name in sorted(env)]
        return asked({"command": {"argv": argv}, "env": variables, "network": network})

    found = suggest([Run(name="t", request=request(*each)) for each in seen], "data", [])
    assert not found.left_out
    policies = compiled(found)
    for argv, env, network in itertools.product(
        [argv for argv, _, _ in seen], [set(), {"A"}, {"B"}, {"A", "B"}], ["none", "host"]
    ):
        expected = any((argv, network) == (its, where) and env <= more for its, more, where in seen)
        assert decide(request(argv, env, network), policies).allowed == expected, (argv, env, network)


class TestRules:
    def test_commands_that_differ_in_one_argument_are_one_rule(self):
        found = suggested(command("a", "git clone https://x.test/a"), command("b", "git clone https://x.test/b"))
        assert rules(found) == [
            {"executable": "git", "args": ["clone", r"https://x\.test/a|https://x\.test/b"]},
        ]
        assert said(found).startswith("2 runs: task a, task b")
        assert not decided(found, asked({"command": {"line": "git clone https://x.test/c"}})).allowed

    def test_many_values_become_a_pattern_that_tells_of_itself(self):
        found = suggested(*(command(str(day), f"dump /srv/2026-01-{day:02}.sql") for day in range(1, 21)))
        assert rules(found) == [{"executable": "dump", "args": [r"/srv/2026-01-[0-9]{2}\.sql"]}]
        assert "generalized: argument 1 had 20 values" in said(found)
        for line in ("dump /srv/2026-01-1.sql", "dump /srv/../2026-01-01.sql", "dump /srv/2026-02-01.sql"):
            assert not decided(found, asked({"command": {"line": line}})).allowed, line

    def test_few_values_stay_as_they_are_unless_more_is_asked_for(self):
        runs = [command("a", "pack a/x.c"), command("b", "pack b/yz.c")]
        assert rules(suggested(*runs)) == [{"executable": "pack", "args": [r"a/x\.c|b/yz\.c"]}]
        found = suggested(*runs, generalize=True)
        assert "generalized: argument 1 had 2 values" in said(found)
        assert decided(found, asked({"command": {"line": "pack q/r.c"}})).allowed
        for other in ("pack ../x.c", "pack -x.c", "pack a/.c", "pack a/b/x.c", "pack /x.c"):
            assert not decided(found, asked({"command": {"line": other}})).allowed, other

    def test_subcommands_and_options_are_never_made_into_a_pattern(self):
        found = suggested(command("a", "git pull -q"), command("b", "git fetch -v"), generalize=True)
        assert rules(found) == [{"executable": "git", "args": ["fetch|pull", "-q|-v"]}]
        assert "any combination" in said(found)

    def test_a_program_text_is_never_generalized_and_is_warned_of(self):
        runs = [run(str(n), command={"argv": ["sh", "-c", f"echo {n}"]}) for n in range(20)]
        found = suggested(*runs, generalize=True)
        assert len(rules(found)) == 20
        assert said(found).count("warning: sh runs whatever text follows its option") == 20
        assert not decided(found, asked({"command": {"argv": ["sh", "-c", "echo 21"]}})).allowed

    @pytest.mark.parametrize(
        ("argv", "warning"),
        [
            (["python3.11", "-c", "1"], "runs whatever text"),
            (["/usr/bin/perl", "-ne", "1"], "runs whatever text"),
            (["node", "--eval=1"], "runs whatever text"),
            (["bash", "-lc", "1"], "runs whatever text"),
            (["python3", "-"], "standard input"),
            (["python3"], "standard input"),
            (["sh", "x.sh"], "no rule says what is in it"),
            (["env", "A=1", "sh"], "starts other programs"),
            (["awk", "{}"], "is a program"),
            (["psql", "-c", "1"], "runs whatever text"),
        ],
    )
    def test_what_runs_any_text_is_warned_of(self, argv, warning):
        assert warning in said(suggested(run("a", command={"argv": argv})))
        assert "warning" not in said(suggested(run("a", command={"argv": ["pythonic", *argv[1:]]})))

    def test_a_relative_path_and_long_lists_of_arguments_become_whole_lines(self):
        many = ["true", *map(str, range(70))]
        found = suggested(
            run("a", command={"argv": ["./run.sh", "a b"]}, backend="docker", image="a:1"),
            run("b", command={"argv": many}),
        )
        assert not found.left_out
        assert decided(found, asked({"command": {"argv": many}})).allowed
        assert not decided(found, asked({"command": {"argv": many[:-1]}})).allowed

    def test_what_no_rule_can_say_is_left_out(self):
        found = suggested(
            run("long", command={"argv": ["echo", "x" * 5000]}),
            run("wildcard", file={"operation": "read", "path": "/srv/a*"}),
            run("odd", http={"url": "https://a.test/a*b"}),
            run("url", http={"url": "https://a.test/../b"}),
            command("fine", "ls"),
        )
        assert [rule["executable"] for rule in rules(found)] == ["ls"]
        reasons = why(found)
        assert set(reasons) == {"task long", "task wildcard", "task odd", "task url"}
        assert "no rule can say exactly that" in reasons["task long"]
        assert "InvalidRequest" in reasons["task url"]

    def test_more_rules_than_a_policy_takes_are_refused_with_a_remedy(self):
        found = suggested(*(command(str(n), f"a{n} b") for n in range(129)))
        assert found.policies == ()
        assert "generalize" in why(found)["task 1"]


class TestSurroundings:
    def test_limits_are_the_most_that_was_asked_for_by_all(self):
        found = suggested(
            command("a", "ls a", timeoutSeconds=900, resources={"memory": "1Gi", "cpu": "1500m", "pids": 9}),
            command("b", "ls b", resources={"memory": "512Mi"}, retry={"maxRetries": 2}),
        )
        limits = {"timeoutSeconds": {"max": 900}, "retries": {"max": 2}, "memory": {"max": "1Gi"}}
        assert found.policies[0].spec["limits"] == limits
        assert not decided(found, asked({"command": {"line": "ls a"}, "timeoutSeconds": 901})).allowed

    def test_a_task_without_limits_gets_none_from_another_task(self):
        found = suggested(command("a", "ls a", resources={"memory": "1Mi"}), command("b", "ls b"))
        assert decided(found, asked({"command": {"line": "ls b"}})).limits.memory is None

    def test_the_walls_that_policies_of_today_require_are_required(self):
        team = policy("team", sandbox={"require": ["seccomp", "namespaces"]})
        found = suggested(command("a", "ls"), policies=[team])
        assert found.policies[0].spec["sandbox"] == {"require": ["namespaces", "seccomp"]}

    def test_volumes_workspaces_and_artifacts_are_as_they_were(self):
        volumes = [
            {"name": "src", "hostPath": {"path": "/srv/src"}},
            {"name": "ws", "workspace": {"name": "cache", "size": "2Gi"}},
            {"name": "in", "artifact": {"task": "earlier", "name": "build"}},
        ]
        mounts = [
            {"name": "src", "mountPath": "/src", "access": "ReadWrite"},
            {"name": "ws", "mountPath": "/ws", "access": "ReadWrite"},
            {"name": "in", "mountPath": "/in"},
        ]
        spec: dict[str, Any] = {
            "command": {"line": "make"},
            "volumes": volumes,
            "volumeMounts": mounts,
            "artifacts": [{"name": "a", "path": "out", "maxBytes": "1Gi", "retainSeconds": 60}],
        }
        found = suggested(run("a", **spec), command("b", "ls"))
        assert decided(found, asked(spec)).allowed
        for other in (
            {"volumes": [{"name": "src", "hostPath": {"path": "/srv/src2"}}, *volumes[1:]]},
            {"volumes": [volumes[0], {"name": "ws", "workspace": {"name": "cache", "size": "3Gi"}}, volumes[2]]},
            {"volumeMounts": [{**mounts[0], "access": "ReadOnly"}, *mounts[1:]]},
            {"artifacts": [{"name": "a", "path": "out", "maxBytes": "2Gi"}]},
            {"command": {"line": "ls"}},
        ):
            assert not decided(found, asked({**spec, **other})).allowed, other
        assert decided(suggested(run("a", **spec), command("b", "ls"), generalize=True), asked(spec)).allowed

    def test_a_file_for_standard_input_is_as_it_was(self):
        spec: dict[str, Any] = {
            "command": {"line": "psql"},
            "volumes": [{"name": "src", "hostPath": {"path": "/srv/src"}}],
            "stdinFrom": {"volume": {"name": "src", "path": "dump.sql"}},
        }
        writing = {"volumeMounts": [{"name": "src", "mountPath": "/src", "access": "ReadWrite"}]}
        found = suggested(run("a", **spec))
        assert decided(found, asked(spec)).allowed
        assert not decided(found, asked({**spec, **writing})).allowed
        assert decided(suggested(run("a", **spec, **writing)), asked({**spec, **writing})).allowed

    def test_an_empty_folder_may_be_larger_than_the_disk(self):
        folder = {"volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "2Gi"}}]}
        found = suggested(command("a", "ls", resources={"disk": "1Mi"}, **folder))
        assert found.policies[0].spec["limits"]["disk"] == {"max": "2Gi"}

    def test_labels_become_the_selector(self):
        found = suggested(run("a", {"team": "data", "x": "y"}, command={"line": "ls"}), labels={"team": "data"})
        assert found.policies[0].spec["selector"] == {"matchLabels": {"team": "data"}}
        assert decided(found, asked({"command": {"line": "ls"}}, {"team": "data"})).allowed
        assert not decided(found, asked({"command": {"line": "ls"}})).allowed


LS = {"commands": {"allow": [{"executable": "ls"}]}}


class TestOtherPolicies:
    def test_what_an_enforced_policy_allows_needs_nothing(self):
        found = suggested(command("a", "ls"), policies=[policy(**LS)])
        assert (found.policies, found.left_out) == ((), ())
        assert [each.name for each, _ in found.allowed] == ["task a"]

    def test_what_only_an_audit_policy_allows_is_allowed_by_the_suggestion_too(self):
        audit = policy(enforcement="Audit", **LS)
        found = suggested(command("a", "ls"), command("b", "rm x"), policies=[audit])
        for line in ("ls", "rm x"):
            assert decided(found, asked({"command": {"line": line}}), audit).reason == "Allowed"

    @pytest.mark.parametrize("enforcement", ["Enforce", "Audit"])
    def test_a_deny_rule_stands(self, enforcement):
        denying = policy(enforcement=enforcement, commands={"deny": [{"executable": "rm", "reason": "no deletions"}]})
        found = suggested(command("a", "rm x"), command("b", "ls"), policies=[denying])
        assert [rule["executable"] for rule in rules(found)] == ["ls"]
        assert "DeniedByRule" in why(found)["task a"]
        assert "no deletions" in why(found)["task a"]
        assert ("only audit" in why(found)["task a"]) == (enforcement == "Audit")

    @pytest.mark.parametrize("enforcement", ["Enforce", "Audit"])
    def test_a_ceiling_stands(self, enforcement):
        ceiling = policy("top", "remit-system", enforcement=enforcement, networks=["none"], **LS)
        runs = [command("a", "ls"), command("b", "ls", network="host"), command("c", "rm x")]
        found = suggest(runs, "data", [], [ceiling])
        assert [rule["executable"] for rule in rules(found)] == ["ls"]
        assert set(why(found)) == {"task b", "task c"}
        assert all("CeilingExceeded" in each for each in why(found).values())

    def test_under_a_policy_with_a_mistake_nothing_is_suggested(self):
        broken = policy(commands={"allow": [{"pattern": "("}]})
        found = suggested(command("a", "ls"), policies=[broken])
        assert found.policies == ()
        assert "PolicyNotReady" in why(found)["task a"]

    def test_a_policy_of_that_name_is_not_replaced_by_accident(self):
        denying = policy("suggested", commands={"deny": [{"executable": "rm"}]})
        found = suggested(command("a", "ls"), command("b", "rm x"), policies=[denying])
        assert [each.name for each in found.policies] == ["suggested-2"]
        assert "DeniedByRule" in why(found)["task b"]

    def test_to_a_policy_with_a_mistake_nothing_is_added(self):
        broken = policy("team", commands={"allow": [{"pattern": "("}]})
        found = suggested(command("a", "ls"), policies=[broken], name="team")
        assert found.policies == ()
        assert "team is not ready" in why(found)["task a"]

    def test_a_policy_that_is_named_keeps_what_it_says_and_gets_what_it_lacks(self):
        team = policy(
            "team",
            selector={"matchLabels": {"team": "data"}},
            commands={"allow": [{"executable": "ls"}], "deny": [{"executable": "rm"}]},
            limits={"timeoutSeconds": {"default": 10, "max": 60}},
            rate={"perMinute": 5},
        )
        runs = [
            run("a", {"team": "data"}, command={"line": "pg_dump app"}, timeoutSeconds=90, env=[{"name": "PGHOST"}]),
            run("b", {"team": "data"}, command={"line": "rm x"}),
            run("c", {"team": "web"}, command={"line": "ls"}),
            run("d", {"team": "data"}, command={"line": "ls"}),
        ]
        found = suggested(*runs[:2], runs[3], policies=[team], name="team")
        (only,) = found.policies
        assert only.name == "team"
        assert only.spec["commands"] == {
            "allow": [{"executable": "ls"}, {"executable": "pg_dump", "args": ["app"]}],
            "deny": [{"executable": "rm"}],
        }
        assert only.spec["limits"] == {"timeoutSeconds": {"default": 10, "max": 90}}
        assert only.spec["environment"] == {"allow": ["PGHOST"]}
        assert only.spec["rate"] == {"perMinute": 5}
        assert set(why(found)) == {"task b"}
        nothing = suggested(runs[3], policies=[team], name="team")
        assert (nothing.policies, nothing.left_out) == ((), ())
        assert set(why(suggested(runs[2], policies=[team], name="team"))) == {"task c"}


class TestSecrets:
    def masked(self, *argv: str, **spec: Any) -> Suggestion:
        redactor = Redactor(["hunter2-hunter2"])
        given = run("a", command={"argv": list(argv)}, **spec) if argv else run("a", **spec)
        return suggested(replace(given, mask=redactor.redact_cut, masked=MASK))

    def test_a_secret_among_arguments_is_any_text_there_and_reported(self):
        found = self.masked("curl", "--user=me:hunter2-hunter2", "https://a.test/")
        assert rules(found) == [{"executable": "curl", "args": ["--user=me:.+", r"https://a\.test/"]}]
        assert "holds a secret" in said(found)
        assert "hunter2" not in repr(found.policies[0].spec) + said(found)
        assert decided(found, asked({"command": {"argv": ["curl", "--user=me:x", "https://a.test/"]}})).allowed

    @pytest.mark.parametrize(
        "argv",
        [
            ["hunter2-hunter2"],
            *(
                [program, "-c", "hunter2-hunter2"]
                for program in (
                    "sh",
                    "csh",
                    "tcsh",
                    "mksh",
                    "rbash",
                    "pwsh",
                    "python3.12-dbg",
                    "vim",
                    "script",
                    "tclsh",
                )
            ),
            *(
                [program, "hunter2-hunter2", "ls"]
                for program in ("env", "ionice", "taskset", "chrt", "stdbuf", "time", "setpriv", "nsenter", "runuser")
            ),
            *([program, "hunter2-hunter2"] for program in ("systemd-run", "npx", "uvx", "/lib64/ld-linux-x86-64.so.2")),
            ["pwsh", "-Command", "hunter2-hunter2"],
        ],
    )
    def test_a_secret_that_says_what_runs_is_no_rule(self, argv):
        found = self.masked(*argv)
        assert found.policies == ()
        assert "secret" in why(found)["task a"]
        assert "hunter2" not in why(found)["task a"]

    def test_a_secret_elsewhere_in_a_rule_is_no_rule(self):
        found = self.masked(http={"url": "https://a.test/hunter2-hunter2"})
        assert found.policies == ()
        assert "secret" in why(found)["task a"]
        assert "hunter2" not in why(found)["task a"]

    def test_a_text_that_only_looks_redacted_is_itself(self):
        found = suggested(run("a", command={"argv": ["echo", MASK]}))
        assert rules(found) == [{"executable": "echo", "args": [r"\[redacted\]"]}]

    def test_a_text_that_only_looks_redacted_is_itself_beside_a_secret(self):
        found = self.masked("rm", MASK, "--token=hunter2-hunter2")
        assert rules(found) == [{"executable": "rm", "args": [r"\[redacted\]", "--token=.+"]}]

    def test_what_is_redacted_on_record_is_any_text_but_no_program(self):
        hidden = [replace(run(name, command={"argv": argv}), hidden=True) for name, argv in (
            ("a", ["login", MASK]), ("b", ["python3", "-c", MASK]),
        )]  # fmt: skip
        found = suggested(*hidden)
        assert rules(found) == [{"executable": "login", "args": [".+"]}]
        assert set(why(found)) == {"task b"}


@pytest.mark.parametrize(
    ("odd", "others", "never"),
    [
        ("b/.e/x.y", "{0}/{0}", "../../x"),
        ("..b", ".{0}", ".."),
        ("/srv/..b/c", "/srv/.{0}/c", "/srv/../c"),
        ("b/-e", "{0}/{0}", "-e"),
    ],
)
def test_generalized_values_lead_out_of_no_folder_and_become_no_option(odd: str, others: str, never: str) -> None:
    values = [odd, *(others.format(letter) for letter in "acdefghijklmnopqr")]
    found = suggested(*(run("t", command={"argv": ["cat", value]}) for value in values), generalize=True)
    assert all(decided(found, asked({"command": {"argv": ["cat", value]}})).allowed for value in values)
    assert not decided(found, asked({"command": {"argv": ["cat", never]}})).allowed


@pytest.mark.parametrize("call", ['"*"(1)', '"pg_*"(1)', '"*"."*"(1)', '"a.b"(1)'])
def test_a_function_whose_name_would_be_a_wildcard_is_no_rule(call: str) -> None:
    def select(sql: str) -> dict[str, Any]:
        return {"postgres": {"connection": {"name": "db", "key": "url"}, "statements": [{"sql": f"SELECT {sql}"}]}}

    found = suggested(run("a", **select(call)), run("b", **select("f(1)")))
    assert set(why(found)) == {"task a"}
    assert decided(found, asked(select("f(1)"))).allowed
    assert not decided(found, asked(select("pg_read_file('/etc/passwd')"))).allowed
