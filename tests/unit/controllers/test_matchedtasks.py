"""Tests that matched tasks are counted incrementally, with the same result as counting all of them."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remit.api.commandpolicy import CommandPolicy
from remit.controllers.matchedtasks import MatchedTasks
from remit.kube.client import TASKS
from remit.kube.reflector import Reflector
from remit.policy.compile import CompiledPolicy, compile_policy

NAMESPACES = ("remit-system", "red", "blue")
LABELS = st.sampled_from([None, {}, {"team": "data"}, {"team": "web", "tier": "1"}])
SELECTORS = st.sampled_from([{}, {"matchLabels": {"team": "data"}}, {"matchLabels": {"tier": "1"}}])
CHANGES = st.one_of(
    st.tuples(st.just("task"), st.sampled_from(NAMESPACES), st.integers(0, 3), LABELS),
    st.tuples(st.just("no task"), st.sampled_from(NAMESPACES), st.integers(0, 3), st.none()),
    st.tuples(st.just("policy"), st.sampled_from(NAMESPACES), st.integers(0, 1), SELECTORS),
    st.tuples(st.just("no policy"), st.sampled_from(NAMESPACES), st.integers(0, 1), st.none()),
)


def policy_of(namespace: str, number: int, selector: dict[str, Any]) -> CompiledPolicy:
    metadata = {"name": f"p{number}", "namespace": namespace, "uid": f"{namespace}-{number}", "generation": 1}
    return compile_policy(CommandPolicy.parse({"metadata": metadata, "spec": {"selector": selector}}))


@given(st.lists(CHANGES, max_size=40))
def test_the_count_is_what_counting_all_gives(changes: list[tuple[str, str, int, Any]]) -> None:
    tasks, changed, policies = Reflector(TASKS), set[str](), dict[str, CompiledPolicy]()
    matched = MatchedTasks(tasks, "remit-system", changed.add)
    for version, (what, namespace, number, value) in enumerate(changes, 1):
        uid = f"{namespace}-{number}"
        before = {each: matched.count(policy) for each, policy in policies.items()} if version % 2 else {}
        changed.clear()
        metadata = {"namespace": namespace, "name": f"t{number}", "uid": f"{uid}-{version}", "labels": value}
        known = tasks.objects.get(f"{namespace}/t{number}")
        if known is not None:
            metadata["uid"] = known["metadata"]["uid"]
        task = {"metadata": {**metadata, "resourceVersion": str(version)}}
        match what:
            case "task":
                tasks.observe(task)
            case "no task":
                tasks.observe_deletion(task)
            case "policy":
                policies[uid] = policy_of(namespace, number, value)
                matched.put(policies[uid])
            case "no policy" if uid in policies:
                matched.remove(policies.pop(uid))
        for each, policy in policies.items():
            scope = None if policy.namespace == "remit-system" else policy.namespace
            found = [task["metadata"] for task in tasks.objects.list(scope)]
            if each in before and what in {"task", "no task"}:
                assert (each in changed) == (before[each] != matched.count(policy))
            if each in before or version % 3 == 0:
                assert matched.count(policy) == sum(
                    policy.selects(each["namespace"], each["labels"] or {}) for each in found
                )
    for policy in policies.values():
        matched.remove(policy)
    assert not matched._counts and not matched._policies
