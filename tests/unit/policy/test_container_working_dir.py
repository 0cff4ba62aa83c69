"""Tests the working directory of a program in a container: the container's own, or one that a policy lists."""

from __future__ import annotations

from typing import Any

import pytest

from policies import policy
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.request import request_for
from remit.policy.verdict import Reason


def exec_in(folder: str | None) -> dict[str, Any]:
    return {"action": "exec", "name": "web", "argv": ["git", "pull"], **({"workingDir": folder} if folder else {})}


def allowing(*folders: str, namespace: str = "default", **more: Any) -> CompiledPolicy:
    containers = {"operations": ["exec"], **({"workingDirs": list(folders)} if folders else {})}
    return policy(namespace=namespace, containers=containers, commands={"allow": [{"executable": "git"}]}, **more)


def decided(folder: str | None, *policies: CompiledPolicy, ceilings: tuple[CompiledPolicy, ...] = ()) -> Decision:
    task = ExecutionTask.parse({"metadata": {"name": "t"}, "spec": {"container": exec_in(folder)}})
    return decide(request_for(task, None), policies, ceilings)


def test_nothing_but_the_containers_own_where_a_policy_lists_none() -> None:
    assert decided(None, allowing()).allowed
    for folder in ("/", "/srv", "/workspace"):
        decision = decided(folder, allowing())
        assert (decision.reason, decision.rule) == (Reason.NOT_ALLOWED, "containers.workingDirs")
        assert f'`containers: {{workingDirs: ["{folder}"]}}`' in decision.message
        assert "spec.container.workingDir" in decision.message


@pytest.mark.parametrize(
    ("glob", "inside", "outside"),
    [
        ("/srv/app", ["/srv/app"], ["/srv", "/srv/app/x", "/srv/apple", "/srv/App", "/"]),
        ("/srv/*", ["/srv/a", "/srv/..."], ["/srv", "/srv/a/b"]),
        ("/srv/**", ["/srv", "/srv/a", "/srv/a/b"], ["/srvx", "/", "/etc"]),
        ("/srv/**/log", ["/srv/log", "/srv/a/b/log"], ["/srv/a", "/srv/log/x"]),
        ("/", ["/"], ["/srv"]),
        ("/**", ["/", "/srv", "/a/b"], []),
    ],
)
def test_the_folders_of_a_glob_and_no_other(glob: str, inside: list[str], outside: list[str]) -> None:
    assert all(decided(folder, allowing(glob)).allowed for folder in inside)
    assert not any(decided(folder, allowing(glob)).allowed for folder in outside)


@pytest.mark.parametrize(
    "folder",
    ["/srv/..", "/srv/../etc", "/srv/.", "/./srv", "/srv//a", "//srv", "//", "/srv/", "/.", "/srv/a/../../etc"],
)
def test_another_way_to_write_a_folder_is_refused_under_any_policy(folder: str) -> None:
    for enforcement in ("Enforce", "Audit"):
        decision = decided(folder, allowing("/**", enforcement=enforcement))
        assert (decision.allowed, decision.reason) == (False, Reason.INVALID_REQUEST)
        assert decision.message.startswith("spec.container.workingDir: ")
        assert "detour" in decision.message


@pytest.mark.parametrize("character", ["\N{ZERO WIDTH SPACE}", "\N{NO-BREAK SPACE}", "\x85", "\u2028", "\ufe0f"])
def test_what_is_not_seen_is_refused_under_any_policy(character: str) -> None:
    decision = decided(f"/srv/a{character}", allowing("/**"))
    assert (decision.reason, "column 7" in decision.message) == (Reason.INVALID_REQUEST, True)


@pytest.mark.parametrize("folder", ["/proc", "/proc/self/fd/7", "/proc/1/root", "/dev/fd", "/dev/fd/8"])
def test_a_folder_that_a_runtime_has_open_is_refused_under_any_policy(folder: str) -> None:
    """Runtimes have leaked descriptors of the host's folders into containers."""
    decision = decided(folder, allowing("/**"))
    assert (decision.reason, folder in decision.message) == (Reason.INVALID_REQUEST, True)
    assert decided("/process", allowing("/**")).allowed


def test_a_ceiling_holds_as_for_all_else() -> None:
    own, ceiling = allowing("/srv/**"), allowing("/srv/app", namespace="remit-system")
    assert decided("/srv/app", own, ceilings=(ceiling,)).allowed
    assert decided(None, own, ceilings=(allowing(namespace="remit-system"),)).allowed
    for stricter in (ceiling, allowing(namespace="remit-system")):
        decision = decided("/srv/other", own, ceilings=(stricter,))
        assert (decision.reason, decision.policy) == (Reason.CEILING_EXCEEDED, stricter.key)
    assert not decided("/srv/app", allowing(), ceilings=(ceiling,)).allowed


def test_a_folder_that_is_allowed_allows_no_command() -> None:
    other = policy(namespace="default", containers={"operations": ["exec"], "workingDirs": ["/srv"]})
    assert "spec.commands.allow" in decided("/srv", other).message


@pytest.mark.parametrize("glob", ["/srv/../etc", "/srv/", "//srv", "/srv/./a"])
def test_a_glob_that_no_folder_can_match_makes_a_policy_not_ready(glob: str) -> None:
    spec = {"containers": {"workingDirs": ["/ok", glob]}}
    (problem,) = compile_policy(CommandPolicy.parse({"metadata": {"name": "p"}, "spec": spec})).problems
    assert (problem.field, "detour" in problem.message) == ("spec.containers.workingDirs[1]", True)


@pytest.mark.parametrize("folder", ["/srv/*", "/srv/a?", "/**"])
def test_no_rule_is_offered_for_a_folder_that_would_be_a_wildcard(folder: str) -> None:
    decision = decided(folder, allowing())
    assert not decision.allowed
    assert "workingDirs: [" not in decision.message
    assert "no rule can be about it alone" in decision.message
