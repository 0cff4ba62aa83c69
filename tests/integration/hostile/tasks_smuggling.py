"""Tasks that bring configuration for an allowed program, or ask for more than their policy allows."""

from __future__ import annotations

from typing import Any

from .case import ECHO_AND_LIST, Task

GREETING: dict[str, Any] = {"command": {"argv": ["echo", "hello"]}}
GREETINGS_ONLY = {**ECHO_AND_LIST, "environment": {"allow": ["GREETING", "AUDIT", "APP_AUDIT"]}}


def variable(name: str, value: str, wants: str) -> Task:
    return Task(
        name=f"{name} in the environment",
        wants=wants,
        control="a policy lists the variables that a task may set",
        spec={**GREETING, "env": [{"name": name, "value": value}]},
        honest={**GREETING, "env": [{"name": "GREETING", "value": value}]},
        reason="EnvironmentNotAllowed",
        policy=GREETINGS_ONLY,
    )


def file(path: str, wants: str) -> Task:
    return Task(
        name=f"a private file at {path}",
        wants=wants,
        control="private files outside of /run/private have to be named in the policy",
        spec={**GREETING, "privateFiles": [{"path": path, "value": "x"}]},
        honest={**GREETING, "privateFiles": [{"path": f"/run/private{path}", "value": "x"}]},
        reason="PrivateFileNotAllowed",
    )


CASES = [
    variable("LD_PRELOAD", "/run/evil.so", "to have a library of its own loaded into every program"),
    variable("PYTHONPATH", "/run", "to have Python import a module of its own"),
    variable("PATH", "/run", "to have a program start another of the same name"),
    variable("GIT_SSH_COMMAND", "id", "to have git run a program"),
    variable("GIT_CONFIG_GLOBAL", "/run/gitconfig", "to have git read a configuration that runs a program"),
    variable("GIT_CONFIG_COUNT", "1", "the same without a file"),
    variable("HOME", "/run", "to have programs read their configuration from private files"),
    variable("BASH_ENV", "/run/rc", "to have a shell run a file before its script"),
    variable("NODE_OPTIONS", "--require=/run/x.js", "to have node run a file"),
    variable("Npm_Config_Script_Shell", "/run/sh", "to have npm run its scripts by another shell, in mixed case"),
    variable("RIPGREP_CONFIG_PATH", "/run/rc", "to have a program that nobody thought of read its options from a file"),
    variable("KUBECONFIG", "/run/config", "to have kubectl run a credential plugin"),
    file("/workspace/.gitconfig", "to have git run a program by its aliases, pager or ssh command"),
    file("/workspace/.npmrc", "to have npm run its scripts by another shell"),
    file("/tmp/ls", "to put a program where something may find it"),
    file("/run/package.json", "to have node read a script that a policy knows by its digest in another way"),
    file("/run/user/1000/x", "to have programs find it in the usual place of their session"),
    Task(
        name="a steering variable from a ConfigMap",
        wants="to hide LD_PRELOAD in an envFrom, which does not say what it brings",
        control="policy is asked again once envFrom is resolved",
        spec={**GREETING, "envFrom": [{"configMapRef": {"name": "steering"}}]},
        honest={**GREETING, "envFrom": [{"configMapRef": {"name": "harmless"}}]},
        reason="EnvironmentNotAllowed",
        policy=GREETINGS_ONLY,
    ),
    Task(
        name="a steering variable put together by a prefix",
        wants="to hide PATH in a prefix and a key",
        control="policy is asked about whole names",
        spec={**GREETING, "envFrom": [{"prefix": "LD_", "configMapRef": {"name": "harmless"}}]},
        honest={**GREETING, "envFrom": [{"prefix": "APP_", "configMapRef": {"name": "harmless"}}]},
        reason="EnvironmentNotAllowed",
        policy=GREETINGS_ONLY,
    ),
    Task(
        name="the host's network",
        wants="to reach what the host reaches",
        control="networks of the policy, `none` unless it says more",
        spec={**GREETING, "network": "host"},
        honest={**GREETING, "network": "none"},
        reason="NetworkNotAllowed",
    ),
    Task(
        name="more than the maximum",
        wants="to have more memory than the policy gives",
        control="limits of the policy",
        spec={**GREETING, "resources": {"memory": "2Gi"}},
        honest={**GREETING, "resources": {"memory": "512Mi"}},
        reason="LimitExceeded",
        policy={**ECHO_AND_LIST, "limits": {"memory": {"default": "256Mi", "max": "1Gi"}}},
    ),
    Task(
        name="a path as the language",
        wants="to have gettext read its messages, and so the formats of printf, from a private file",
        control="the few variables that need no policy have plain values only",
        spec={**GREETING, "env": [{"name": "LANGUAGE", "value": "../../../run/private"}]},
        honest={**GREETING, "env": [{"name": "LANGUAGE", "value": "de:en"}]},
        reason="EnvironmentNotAllowed",
    ),
    Task(
        name="a line that a shell would read differently",
        wants="to run a second command by an operator that is not quoted",
        control="operators in `line` are refused",
        spec={"command": {"line": "echo hello; id"}},
        honest={"command": {"line": "echo 'hello; id'"}},
        reason="Invalid",
    ),
]
