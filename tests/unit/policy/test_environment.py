"""Tests that a task may set only environment variables that a policy lists, and a few harmless ones."""

from __future__ import annotations

import pytest
import yaml

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.policy.compile import compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.environment import HARMLESS, needing_permission, unlisted_files
from remit.policy.match import Command
from remit.policy.request import request_for
from remit.policy.verdict import Reason

pytestmark = pytest.mark.no_cover

STEERING = [
    "LD_PRELOAD", "PATH", "HOME", "BASH_ENV", "PYTHONPATH", "GIT_SSH_COMMAND", "NODE_OPTIONS", "KUBECONFIG",
    "Npm_Config_Script_Shell", "npm_config_script_shell", "APT_CONFIG", "CFLAGS", "PYTEST_PLUGINS", "TERMINFO",
    "GUNICORN_CMD_ARGS", "LIBRARY_PATH", "PGSERVICEFILE", "RIPGREP_CONFIG_PATH", "TZDIR", "LOCPATH", "NLSPATH",
]  # fmt: skip


def decided(
    allow: list[str],
    env: dict[str, str],
    env_from: dict[str, str] | None = None,
    ceiling: list[str] | None = None,
    enforcement: str = "Enforce",
) -> Decision:
    """Returns the decision of a policy with `environment.allow: allow` on `git clone` with these variables."""

    def policy(namespace: str, names: list[str]) -> CommandPolicy:
        return CommandPolicy.parse(
            {
                "metadata": {"name": "p", "uid": namespace, "namespace": namespace},
                "spec": {
                    "commands": {"allow": [{"pattern": "git .*"}]},
                    "environment": {"allow": names},
                    "enforcement": enforcement,
                },
            }
        )

    variables = [{"name": name, "value": value} for name, value in env.items()]
    task = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {"command": {"argv": ["git"]}, "env": variables}})
    request = request_for(task, Command(("git", "clone"), "/usr/bin/git", "/usr/bin/git"), {**(env_from or {}), **env})
    ceilings = [compile_policy(policy("remit-system", ceiling))] if ceiling is not None else []
    return decide(request, [compile_policy(policy("default", allow))], ceilings)


@pytest.mark.parametrize("name", [*STEERING, "PGPASSWORD", "APP_MODE", "CI", "lang", "Lang", "TERM_PROGRAM", "LC_X"])
def test_what_no_policy_lists_is_denied_wherever_it_comes_from(name: str) -> None:
    assert decided([], {name: "x"}).reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert decided([], {}, {name: "x"}).reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert decided([name], {name: "x"}).allowed
    assert decided([name], {}, {name: "x"}).allowed


def test_patterns_match_whole_names_in_their_case() -> None:
    assert decided(["GIT_AUTHOR_*"], {"GIT_AUTHOR_NAME": "x"}).allowed
    assert not decided(["GIT_AUTHOR_*"], {"GIT_SSH_COMMAND": "x"}).allowed
    assert not decided(["GIT_AUTHOR_*"], {"MY_GIT_AUTHOR_NAME": "x"}).allowed
    assert not decided(["PGPASSWORD"], {"pgpassword": "x"}).allowed
    assert decided(["PG?OST"], {"PGHOST": "x"}).allowed
    assert decided(["*"], dict.fromkeys(STEERING, "x")).allowed


def test_every_ceiling_has_to_list_it_too() -> None:
    assert decided(["TOKEN"], {"TOKEN": "x"}, ceiling=[]).reason is Reason.CEILING_EXCEEDED
    assert decided([], {"TOKEN": "x"}, ceiling=["TOKEN"]).reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert decided(["TOKEN"], {"TOKEN": "x"}, ceiling=["*"]).allowed


def test_the_denial_has_the_line_that_the_policy_lacks() -> None:
    decision = decided(["GIT_*", "NO"], {"TOKEN": "x", "GIT_DIR": "x"}, {"ON": "x", "GREETING": "x"})
    assert decision.rule == "environment.allow"
    assert "GREETING, ON and TOKEN" in decision.message
    line = decision.message.partition("environment: ")[2]
    added = yaml.safe_load(f"environment: {line[: line.index('}') + 1]}")
    assert added == {"environment": {"allow": ["GIT_*", "NO", "GREETING", "ON", "TOKEN"]}}


def test_there_are_only_so_many() -> None:
    decision = decided(["*"], {}, dict.fromkeys((f"A{number}" for number in range(100_000)), "x"))
    assert decision.reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert "100000" in decision.message


def test_a_denial_of_many_names_stays_short() -> None:
    decision = decided([], {}, {f"KEY_{number}_{'X' * 200}": "x" for number in range(900)})
    assert decision.reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert "900" in decision.message
    assert len(decision.message) <= 1000


@pytest.mark.parametrize(
    "name", ["app.properties", "A-B", "A B", "A\n", "1A", "", "BASH_FUNC_ls%%", "É", "A\0", "A=B", "A\u3164"]
)
@pytest.mark.parametrize("enforcement", ["Enforce", "Audit"])
def test_a_name_with_other_characters_is_refused_under_any_policy(name: str, enforcement: str) -> None:
    decision = decided(["*"], {}, {name: "x"}, enforcement=enforcement)
    assert decision.reason is Reason.ENVIRONMENT_NOT_ALLOWED
    assert "letters, digits and underscores" in decision.message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("LANG", "C.UTF-8"), ("LC_ALL", "en_US.UTF-8@euro"), ("LANGUAGE", "de:en"), ("TZ", "Europe/Paris"),
        ("TZ", "Etc/GMT+1"), ("TERM", "xterm-256color"), ("NO_COLOR", "1"), ("COLUMNS", "80"), ("LINES", ""),
    ],
)  # fmt: skip
def test_names_that_steer_nothing_need_no_policy(name: str, value: str) -> None:
    assert name in HARMLESS
    assert decided([], {name: value}, ceiling=[]).allowed


@pytest.mark.parametrize(
    "value",
    [
        "/workspace/x", ":/workspace/x", "../x", "a/../../x", "a/.x", "./x", "a//b", "a/", "a b", "a\n", "%s", "$HOME",
        "~/x", "ä", "a:", ":a",
    ],
)  # fmt: skip
def test_their_values_are_plain_words_that_lead_nowhere(value: str) -> None:
    for name in HARMLESS:
        assert not decided([], {name: value}).allowed, name
        assert decided([name], {name: value}).allowed, name


def test_a_value_that_is_not_known_is_not_plain() -> None:
    assert needing_permission({"LANG": None, "TZ": "UTC"}) == {"LANG"}


def test_files_where_a_program_looks_unasked_need_a_policy() -> None:
    free = ["/run/private/a", "/run/private/a/b"]
    elsewhere = ["/run/a", "/run/package.json", "/run/node_modules/x/index.js", "/run/user/1000/x", "/run/privatex/a",
                 "/tmp/x", "/workspace/.npmrc", "/workspace/package.json", "/workspace/.git/config"]  # fmt: skip
    assert unlisted_files([*free, *elsewhere], []) == sorted(elsewhere)
    assert unlisted_files(["/workspace/in/a/b", "/workspace/in"], ["/workspace/in/*"]) == ["/workspace/in"]
