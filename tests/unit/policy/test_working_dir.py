"""Tests that a program may start only in its own private workspace."""

from __future__ import annotations

import pytest

from policies import allowing, policy
from remit.api.executiontask import ExecutionTask
from remit.policy.deciding import decide
from remit.policy.match import Command
from remit.policy.request import request_for
from remit.policy.verdict import Reason

COMMAND = {"command": {"argv": ["git", "status"]}}
ANYTHING = allowing(".*", namespace="default", privateFiles={"allow": ["*"]})


def decided(operation, working_dir, given=ANYTHING):
    task = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {**operation, "workingDir": working_dir}})
    return decide(request_for(task, Command(("git", "status"), "/usr/bin/git")), [given])


@pytest.mark.parametrize("path", ["/workspace", "/workspace/", "/workspace/a/b", "/workspace/..."])
def test_the_workspace_and_folders_below_it(path):
    assert decided(COMMAND, path).allowed


@pytest.mark.parametrize(
    "path",
    ["/", "/run/p", "/run/private", "/run/remit", "/etc", "/tmp", "/tmp/x", "/usr/lib", "/proc/self", "/dev/shm",
     "/workspacex", "//workspace", "/./workspace", "/opt/app"],
)  # fmt: skip
def test_nothing_else_under_any_policy(path):
    for enforcement in ("Enforce", "Audit"):
        decision = decided(COMMAND, path, allowing(".*", namespace="default", enforcement=enforcement))
        assert decision.reason is Reason.WORKING_DIR_NOT_ALLOWED
        assert path in decision.message
        assert "/workspace" in decision.message


@pytest.mark.parametrize(
    "operation",
    [
        {"container": {"action": "exec", "name": "web", "argv": ["npm", "test"]}},
        {"container": {"action": "run", "image": "a", "argv": ["npm", "test"]}},
        {"file": {"operation": "read", "path": "/srv/x"}},
        {"http": {"url": "https://example.com"}},
        {"process": {"action": "stop", "name": "web"}},
    ],
)
def test_what_starts_no_program_of_its_own_takes_none(operation):
    given = policy(
        namespace="default",
        containers={"operations": ["exec", "run"]}, images={"allow": ["*"]}, commands={"allow": [{"pattern": ".*"}]},
        files={"allow": [{"paths": ["/**"], "operations": ["read"]}]}, http={"allow": [{"hosts": ["*"]}]},
        processes={"operations": ["stop"]},
    )  # fmt: skip
    assert decided(operation, "/workspace", given).allowed
    decision = decided(operation, "/workspace/a", given)
    assert decision.reason is Reason.WORKING_DIR_NOT_ALLOWED
    assert "leave it out" in decision.message


def test_a_started_process_has_one():
    start = {"process": {"action": "start", "name": "web", "argv": ["git", "status"]}}
    given = policy(namespace="default", processes={"operations": ["start"]}, commands={"allow": [{"pattern": ".*"}]})
    assert decided(start, "/workspace/a", given).allowed
    assert not decided(start, "/tmp/a", given).allowed
