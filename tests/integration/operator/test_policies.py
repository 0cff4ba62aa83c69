"""Tests CommandPolicies from their authors' view: whether they are ready, and what they decided how often."""

from __future__ import annotations

import asyncio
import json

from remit.api.executiontaskstatus import PolicyStatus
from remit.kube.client import EVENTS, NAMESPACES, POLICIES, TASKS

from .conftest import PATIENCE, World, truth


async def test_a_bad_pattern_is_reported_with_its_column_and_nothing_runs(world: World) -> None:
    async with world.operator():
        name = await world.policy({"pattern": "echo (.*"})
        status = await world.until(name, lambda status: truth(status, "Ready") == "False", POLICIES)
        condition = status["conditions"][0]
        assert "commands.allow[0].pattern" in condition["message"]
        assert "column 6" in condition["message"]
        denied = await world.finished(await world.task("echo", "hello"))
        assert (denied["phase"], denied["conditions"][0]["reason"]) == ("Denied", "PolicyNotReady")
        (event,) = await world.events(name, 1)
        assert event["reason"] == "Invalid"
        await world.kube.patch(POLICIES, "default", name, {"spec": {"commands": {"allow": [{"pattern": "echo .*"}]}}})
        await world.until(name, lambda status: truth(status, "Ready") == "True", POLICIES)
        assert (await world.finished(await world.task("echo", "hello")))["phase"] == "Succeeded"


async def test_what_a_policy_decided_is_counted(world: World) -> None:
    async with world.operator():
        name = await world.policy("echo")
        await world.finished(await world.task("echo"))
        denied = await world.task("rm", "x")
        await world.finished(denied)
        status = await world.until(name, lambda status: status.get("denied"), POLICIES)
    assert (status["allowed"], status["denied"], status["matchedTasks"]) == (1, 1, 2)
    assert status["lastDenied"]["task"] == denied
    assert status["observedGeneration"] == 1


async def test_a_policy_that_selects_nothing_reports_it(world: World) -> None:
    async with world.operator():
        name = await world.policy("echo", selector={"matchLabels": {"team": "nobody"}})
        status = await world.until(name, lambda status: truth(status, "Ready") == "True", POLICIES)
        assert "selects no task" in status["conditions"][0]["message"]
        denied = await world.finished(await world.task("echo"))
    assert "wants team=nobody" in denied["message"]


async def test_the_operators_own_namespace_is_the_ceiling_of_all_others(world: World) -> None:
    async with world.operator():
        await world.policy("sh", "echo")
        await world.ceiling("echo")
        assert (await world.finished(await world.task("echo")))["phase"] == "Succeeded"
        denied = await world.finished(await world.task("sh", "-c", "true"))
    assert (denied["phase"], denied["conditions"][0]["reason"]) == ("Denied", "CeilingExceeded")


async def test_a_ceiling_that_selects_by_labels_says_how_it_is_evaded(world: World) -> None:
    namespace = world.settings.operator_namespace
    async with world.operator():
        await world.policy("sh", "echo", selector={"matchLabels": {"team": "data"}})
        plain = await world.ceiling("sh", "echo")
        name = await world.ceiling("echo", selector={"matchLabels": {"team": "data"}})
        status = await world.until(name, lambda status: truth(status, "Ready"), POLICIES, namespace)
        assert truth(status, "Ready") == "True"
        assert "whoever creates a task chooses its labels" in status["conditions"][0]["message"]
        by_label = await world.finished(await world.task("sh", "-c", "true", labels={"team": "data"}))
        assert by_label["conditions"][0]["reason"] == "CeilingExceeded"
        await world.policy("sh")
        assert (await world.finished(await world.task("sh", "-c", "true")))["phase"] == "Succeeded"
    events = {event["involvedObject"]["name"]: event for event in await world.kube.list(EVENTS, namespace)}
    assert events[name]["reason"] == "CeilingWithSelector"
    assert "leave the selector out" in events[name]["message"]
    assert plain not in events


async def test_in_a_namespace_of_its_own_a_selector_is_not_warned_of(world: World) -> None:
    async with world.operator(namespaces=("default",), operator_namespace="default"):
        name = await world.policy("echo", selector={"matchLabels": {"team": "data"}})
        status = await world.until(name, lambda status: truth(status, "Ready"), POLICIES)
        assert "chooses its labels" not in status["conditions"][0]["message"]


async def test_audit_records_and_lets_run(world: World) -> None:
    async with world.operator():
        name = await world.policy("echo", enforcement="Audit")
        status = await world.finished(await world.task("true"))
    assert status["phase"] == "Succeeded"
    (would_be,) = status["policy"]["audited"]
    assert "`true`" in would_be
    trail = await asyncio.to_thread((world.settings.state_dir / "audit" / "audit.jsonl").read_text)
    decisions = [record for record in map(json.loads, trail.splitlines()) if record["kind"] == "decision"]
    assert [record["audited"] for record in decisions] == [
        [{"policy": name, "reason": "NotAllowed", "message": would_be}]
    ]


async def test_limits_are_filled_in_and_held(world: World) -> None:
    async with world.operator():
        await world.policy("sleep", limits={"timeoutSeconds": {"default": 1, "max": 5}})
        assert (await world.finished(await world.task("sleep", "1000")))["phase"] == "TimedOut"
        denied = await world.finished(await world.task("sleep", "1", timeoutSeconds=6))
    assert denied["conditions"][0]["reason"] == "LimitExceeded"
    assert "timeoutSeconds" in denied["message"]


async def test_policies_of_other_namespaces_say_nothing(world: World) -> None:
    async with world.operator():
        await world.kube.create(
            NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "elsewhere"}}
        )
        await world.policy("echo", namespace="elsewhere")
        assert (await world.finished(await world.task("echo")))["phase"] == "Denied"
        there = await world.task("echo", namespace="elsewhere")
        assert (await world.finished(there, namespace="elsewhere"))["phase"] == "Succeeded"


async def test_a_policys_deadline_applies_to_tasks_that_ask_for_none(world: World) -> None:
    async with world.operator():
        await world.policy("sleep", environment={"allow": ["X"]}, limits={"deadlineSeconds": {"default": 2, "max": 3}})
        running = await world.task("sleep", "1000")
        status = await world.finished(running)
        assert (status["phase"], status["error"]["category"]) == ("TimedOut", "Deadline")
        assert "2 s after its creation" in status["message"]
        missing = {"valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}
        waiting = await world.finished(await world.task("sleep", "0", env=[{"name": "X", **missing}]))
        assert (waiting["phase"], waiting.get("attemptCount", 0)) == ("TimedOut", 0)


async def test_matched_tasks_follow_their_labels(world: World) -> None:
    async with world.operator():
        name = await world.policy("echo", selector={"matchLabels": {"team": "data"}})
        tasks = [await world.task("echo", labels={"team": "data"}) for _ in range(2)]
        for task in tasks:
            await world.finished(task)
        await world.until(name, lambda status: status.get("matchedTasks") == 2, POLICIES)
        await world.kube.patch(TASKS, "default", tasks[0], {"metadata": {"labels": {"team": "web"}}})
        await world.until(name, lambda status: status.get("matchedTasks") == 1, POLICIES)
        await world.kube.delete(TASKS, "default", tasks[1])
        await world.until(name, lambda status: not status.get("matchedTasks"), POLICIES)
        await world.kube.patch(POLICIES, "default", name, {"spec": {"selector": None}})
        await world.until(name, lambda status: status.get("matchedTasks") == 1, POLICIES)


async def test_nothing_is_kept_of_a_policy_that_is_gone(world: World) -> None:
    async with world.operator() as operator:
        name, policies = await world.policy("echo"), operator.tasks.policies
        await world.finished(await world.task("echo"))
        await world.until(name, lambda status: status.get("allowed") == 1, POLICIES)
        policies.count("default", "t", PolicyStatus(name=name, decision="Allowed"))
        assert policies._counted
        await world.kube.delete(POLICIES, "default", name)
        async with asyncio.timeout(PATIENCE):
            while policies.current().by_namespace:
                await asyncio.sleep(0.02)
        policies.count("default", "t", PolicyStatus(name=name, decision="Allowed"))
        async with asyncio.timeout(PATIENCE):
            await policies.queue.drain()
        assert not policies._counted and not policies._compiled and name not in repr(policies.queue)
