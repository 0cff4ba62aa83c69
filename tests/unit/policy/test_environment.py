from __future__ import annotations

import pytest

from remit.api import CommandPolicy, ExecutionTask
from remit.policy import Command, Reason, compile_policy, decide, request_for
from remit.policy.environment import steering, steering_files


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD", "LD_LIBRARY_PATH", "PATH", "IFS", "BASH_ENV", "ENV", "PYTHONPATH", "PYTHONSTARTUP", "PERL5OPT",
        "NODE_OPTIONS", "GIT_SSH_COMMAND", "GIT_EXTERNAL_DIFF",
        "HOME", "KUBECONFIG", "XDG_CONFIG_HOME", "GIT_CONFIG_COUNT", "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS", "PAGER", "EDITOR", "SSH_ASKPASS", "DOCKER_HOST", "npm_config_script_shell", "TAR_OPTIONS",
        "CORECLR_PROFILER_PATH", "COMPlus_EnableDiagnostics", "ERL_AFLAGS", "MAKEFILES", "GNUMAKEFLAGS", "CC",
        "GTK_MODULES", "GCC_EXEC_PREFIX", "JAVA_HOME", "SBT_OPTS", "HELM_PLUGINS", "CLOUDSDK_PYTHON",
        "KUBECTL_EXTERNAL_DIFF", "ZIPOPT", "PIP_INDEX_URL", "CMAKE_TOOLCHAIN_FILE", "MAGICK_CONFIGURE_PATH", "HGEDITOR",
        "CVS_RSH", "KRB5_CONFIG",
    ],
)  # fmt: skip
def test_names_that_make_programs_run_something_else(name: str) -> None:
    assert steering([name], []) == [name]
    assert steering([name], [name]) == []


@pytest.mark.parametrize(
    "name",
    [
        "PGPASSWORD",
        "APP_ENV",
        "TZ",
        "LANG",
        "HTTP_PROXY",
        "environment",
        "MYPATH",
        "OPTIONS",
        "PGHOST",
        "AWS_REGION",
        "AZURE_CLIENT_SECRET",
        "VIMEO_TOKEN",
        "HELM_NAMESPACE",
        "CREDITOR",
        "MANAGER",
        "GOOGLE_PROJECT",
        "TF_VAR_region",
        "USER",
        "COLUMNS",
        "CI",
        "VERSION",
        "HOST",
        "COUNT",
    ],
)
def test_ordinary_names_are_free(name: str) -> None:
    assert steering([name], []) == []


def reason(allow: list[str], env: list[str], from_secret: list[str]) -> Reason:
    policy = CommandPolicy.parse(
        {
            "metadata": {"name": "p", "uid": "1"},
            "spec": {"commands": {"allow": [{"pattern": "git .*"}]}, "environment": {"allow": allow}},
        }
    )
    task = ExecutionTask.parse(
        {
            "metadata": {"name": "t"},
            "spec": {"command": {"argv": ["git", "clone"]}, "env": [{"name": name, "value": "x"} for name in env]},
        }
    )
    request = request_for(task, Command(("git", "clone"), "/usr/bin/git", "/usr/bin/git"), from_secret)
    return decide(request, [compile_policy(policy)]).reason


def test_a_policy_has_to_name_them_wherever_they_come_from() -> None:
    assert reason([], ["APP_ENV"], ["TOKEN"]) is Reason.ALLOWED
    assert reason([], ["GIT_SSH_COMMAND"], []) is Reason.ENVIRONMENT_NOT_ALLOWED
    assert reason([], [], ["GIT_SSH_COMMAND"]) is Reason.ENVIRONMENT_NOT_ALLOWED
    assert reason(["GIT_AUTHOR_*"], ["GIT_SSH_COMMAND"], []) is Reason.ENVIRONMENT_NOT_ALLOWED
    assert reason(["GIT_SSH_*"], ["GIT_SSH_COMMAND"], []) is Reason.ALLOWED


def test_files_where_a_program_looks_unasked_need_a_policy() -> None:
    assert steering_files(["/run/a", "/run/a/b", "/workspace/.npmrc", "/tmp/x"], []) == ["/tmp/x", "/workspace/.npmrc"]
    assert steering_files(["/workspace/in/a/b", "/workspace/in"], ["/workspace/in/*"]) == ["/workspace/in"]
