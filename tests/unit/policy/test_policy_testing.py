import re
from pathlib import Path

import pytest

from remit.errors import InvalidInput
from remit.policy.testing import parse_policies, parse_suite, run_cases
from remit.policy.verdict import Reason

POLICIES = """
kind: CommandPolicy
metadata: {name: team, namespace: data}
spec:
  selector: {matchLabels: {team: data}}
  backends: [process, docker]
  images: {allow: [alpine]}
  commands: {allow: [{executable: git, args: [clone, '…']}]}
  limits: {memory: {max: 1Gi}}
---
kind: Secret
metadata: {name: passed-over}
---
kind: CommandPolicy
metadata: {name: ceiling, namespace: ops}
spec:
  backends: [process, docker]
  images: {allow: ['*']}
  commands: {allow: [{pattern: '.*'}], deny: [{pattern: '.*evil.*'}]}
---
kind: CommandPolicy
metadata: {name: audit, namespace: watched}
spec: {enforcement: Audit}
"""
HEAD = "operatorNamespace: ops\npolicies: [p.yaml]\ncases:\n"
TASK = "namespace: data, labels: {team: data}"


def run(case):
    (result,) = run_cases(parse_suite(HEAD + "- {" + case + "}"), parse_policies(POLICIES))
    return result


@pytest.mark.parametrize(
    "case",
    [
        f"argv: [git, clone, x], {TASK}, expect: {{decision: Allowed, policy: team, rule: 'commands.allow[0]'}}",
        f"line: git clone 'x', {TASK}, expect: {{decision: Allowed, audited: false}}",
        f"line: git push, {TASK}, expect: {{decision: Denied, reason: NotAllowed, policy: team}}",
        f"line: git clone evil, {TASK}, expect: {{decision: Denied, reason: DeniedByRule, policy: ops/ceiling}}",
        f"line: git clone x, resolved: /opt/other, {TASK}, expect: {{decision: Denied}}",
        f"line: git clone x, resources: {{memory: 2Gi}}, {TASK}, expect: {{decision: Denied, reason: LimitExceeded}}",
        f"line: git clone x, backend: docker, image: alpine, {TASK}, expect: {{decision: Allowed}}",
        f"line: git clone x, backend: docker, image: busybox, {TASK}, expect: {{decision: Denied, rule: images.allow}}",
        f"line: git clone x, network: host, {TASK}, expect: {{decision: Denied, reason: NetworkNotAllowed}}",
        "line: git clone x, namespace: data, expect: {decision: Denied, reason: NoPolicy}",
        "line: git clone x, namespace: watched, expect: {decision: Allowed, reason: Audited, audited: true}",
        "line: ./git clone x, expect: {decision: Denied}",
    ],
)
def test_a_case_that_holds(case):
    result = run(case)
    assert result.passed, result


OPERATIONS = """
kind: CommandPolicy
metadata: {name: all}
spec:
  scripts: {interpreters: [/usr/bin/python3], patterns: ['print\\(1\\)']}
  files: {allow: [{paths: ['/srv/**'], operations: [read]}]}
  http: {allow: [{hosts: [example.com]}]}
  databases: {postgres: {secrets: [db], statements: [select]}, redis: {secrets: [cache], commands: [GET]}}
  containers: {operations: [logs, run, exec], workingDirs: ['/srv/**']}
  images: {allow: ['alpine:*']}
  commands: {allow: [{executable: echo}]}
"""


@pytest.mark.parametrize(
    ("case", "command", "expect"),
    [
        ("script: {interpreter: python3, source: print(1)}", "the python3", "Allowed, rule: 'scripts.patterns[0]'"),
        ("script: {interpreter: python3, source: print(2)}", "the python3 script", "Denied, reason: NotAllowed"),
        ("file: {operation: read, path: /srv/a}", "read of /srv/a", "Allowed, rule: 'files.allow[0]'"),
        ("file: {operation: read, path: /etc/a}", "read of /etc/a", "Denied, reason: NotAllowed"),
        ("http: {url: 'https://example.com/'}", "GET https://example.com/", "Allowed, rule: 'http.allow[0]'"),
        ("http: {url: 'http://example.com/'}", "GET http://example.com/", "Denied, reason: NotAllowed"),
        ("http: {url: 'https://EXAMPLE.com:443/%7Ea'}", "GET https://example.com/~a", "Allowed, rule: 'http.allow[0]'"),
        ("http: {url: 'https://example.com/a/../b'}", "GET https://example.com/a", "Denied, reason: InvalidRequest"),
        ("postgres: {connection: {name: db, key: url}, statements: [{sql: SELECT 1}]}", "1 statements", "Allowed"),
        ("postgres: {connection: {name: db, key: url}, statements: [{sql: DROP TABLE t}]}", "1 stat", "Denied"),
        ("redis: {connection: {name: cache, key: url}, commands: [[GET, a]]}", "GET on cache", "Allowed"),
        ("redis: {connection: {name: other, key: url}, commands: [[GET, a]]}", "GET on other", "Denied"),
        ("container: {action: logs, name: web}", "the container operation logs web", "Allowed"),
        ("container: {action: run, image: 'alpine:3', argv: [echo]}", "the container", "Allowed"),
        ("container: {action: run, image: 'alpine:3', argv: [sh]}", "the container", "Denied, reason: NotAllowed"),
        ("container: {action: exec, name: web, argv: [echo], workingDir: /srv/a}", "the container operation exec web in"
         " /srv/a", "Allowed"),
        ("container: {action: exec, name: web, argv: [echo], workingDir: /etc}", "the container operation exec web in"
         " /etc", "Denied, reason: NotAllowed, rule: containers.workingDirs"),
        ("container: {action: exec, name: web, argv: [echo], workingDir: /srv/..}", "the container operation exec web",
         "Denied, reason: InvalidRequest"),
        ("container: {action: run, image: evil}", "the container", "Denied, reason: ImageNotAllowed"),
    ],
)  # fmt: skip
def test_a_case_of_any_operation(case, command, expect):
    suite = parse_suite(HEAD + "- {" + case + f", expect: {{decision: {expect}}}}}")
    (result,) = run_cases(suite, parse_policies(OPERATIONS))
    assert result.passed, result
    assert result.command.startswith(command)


def test_a_case_that_does_not_hold_says_what_differs():
    result = run(f"name: pushing, line: git push, {TASK}, expect: {{decision: Allowed, rule: 'commands.allow[0]'}}")
    assert (result.passed, result.title, result.command) == (False, "pushing", "git push")
    assert result.mismatches == (
        "decision should be Allowed, is Denied",
        "rule should be commands.allow[0], is none",
    )
    assert result.decision.reason == Reason.NOT_ALLOWED
    assert "argument 1 is 'push'" in result.decision.message


def test_an_argument_list_is_shown_quoted():
    assert run(f"argv: [git, 'a b'], {TASK}, expect: {{decision: Denied}}").command == "git 'a b'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the policy test file is empty"),
        ("a: [", "not valid YAML: line 2, column 1: did not find"),
        ("- x", "valid dictionary"),
        ("policies: [p]\ncases: []", r"cases: must have at least 1 item"),
        (HEAD + "- {line: x}", r"cases\[0\].expect: is required"),
        (
            HEAD + "- {expect: {decision: Allowed}}",
            r"cases\[0\]: set exactly one of argv, line, script, .* or container; none given",
        ),
        (HEAD + "- {line: x, expect: {decision: Maybe}}", r"cases\[0\].expect.decision: must be 'Allowed'"),
        (
            HEAD + "- {line: x, expects: {}, expect: {decision: Allowed}}",
            r"cases\[0\].expects: is not a known field; did you mean expect",
        ),
    ],
)
def test_an_invalid_file_is_reported_with_its_place(text, message):
    with pytest.raises(InvalidInput, match=message):
        parse_suite(text)


def test_a_line_that_cannot_be_split_says_which():
    with pytest.raises(InvalidInput, match="odd: line: column 3: no shell reads the line"):
        run("name: odd, line: a | b, expect: {decision: Denied}")


def test_an_invalid_policy_is_reported_with_the_place():
    with pytest.raises(InvalidInput, match=r"spec\.comands: is not a known field"):
        parse_policies("kind: CommandPolicy\nmetadata: {name: x}\nspec: {comands: {}}")


def test_the_example_of_the_documentation_holds():
    page = (Path(__file__).parents[3] / "docs" / "policy.md").read_text()
    files = {
        block.split("\n", 1)[0].removeprefix("# "): block for block in re.findall(r"```yaml\n(.*?)```", page, re.S)
    }
    suite = parse_suite(files["team.test.yaml"])
    policies = [policy for name in suite.policies for policy in parse_policies(files[name])]
    results = run_cases(suite, policies)
    assert len(results) == 3
    assert [result for result in results if not result.passed] == []


def test_every_reason_is_documented():
    docs = Path(__file__).parents[3] / "docs"
    page = "".join((docs / name).read_text() for name in ("errors.md", "policy.md"))
    assert [reason for reason in Reason if f"`{reason}`" not in page] == []
