"""Tests how tasks end: each phase with its conditions, Events and audit records."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest

from remit.errors import ApiError
from remit.kube.client import POLICIES, TASKS
from remit.sandbox import Ability, Layer, probe_host
from remit.telemetry.verifying import verify

from .conftest import World, truth

pytestmark = pytest.mark.no_cover


def audit(world: World) -> list[dict[str, Any]]:
    lines = (world.settings.state_dir / "audit" / "audit.jsonl").read_bytes().splitlines()
    return [orjson.loads(line) for line in lines]


def processes(marker: str) -> list[psutil.Process]:
    """Returns live processes with `marker` in their command line."""
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(
            marker in part for part in process.info["cmdline"] or ()
        ):
            found.append(process)
    return found


async def test_a_task_succeeds_in_three_writes(world: World) -> None:
    async with world.operator() as operator:
        await world.policy("echo")
        name = await world.task("echo", "hello", "world")
        status = await world.finished(name)
        events = await world.events(name, 1)
        await operator.events.drain()
        writes = {
            tuple(sample.labels.values()): sample.value
            for metric in operator.metrics.registry.collect()
            if metric.name == "remit_api_writes"
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
    assert status["phase"] == "Succeeded"
    assert (truth(status, "Succeeded"), truth(status, "Stalled")) == ("True", "False")
    assert status["output"]["stdoutTail"] == "hello world\n"
    assert status["exitCode"] == 0
    assert status["policy"]["rule"] == "commands.allow[0]"
    assert "namespaces" in status["sandbox"]["layers"]
    (attempt,) = status["attempts"]
    assert attempt["finishedAt"] > attempt["startedAt"]
    if "cgroup" in status["sandbox"]["layers"]:  # without cgroups, so short a run is over before it is sampled
        assert attempt["usage"]["maxMemoryBytes"] > 0
    assert {kind: count for (verb, kind), count in writes.items() if kind != "CommandPolicy"} == {
        "ExecutionTask": 2,
        "Event": 1,
    }
    assert [(event["reason"], event["type"]) for event in events] == [("Completed", "Normal")]
    decision, execution = audit(world)
    assert (decision["verdict"], decision["argv"]) == ("Allowed", ["echo", "hello", "world"])
    assert decision["resolved"].endswith("/bin/echo")
    assert (execution["verdict"], execution["exit_code"]) == ("Completed", 0)
    assert verify(world.settings.state_dir / "audit" / "audit.jsonl").ok


async def test_nothing_runs_without_a_policy(world: World) -> None:
    async with world.operator():
        name = await world.task("echo", "hello")
        status = await world.finished(name)
        (event,) = await world.events(name, 1)
    assert (status["phase"], status["error"]["category"]) == ("Denied", "Denied")
    assert "there is no CommandPolicy" in status["message"]
    assert (truth(status, "Stalled"), truth(status, "Succeeded")) == ("True", "False")
    assert "attempts" not in status
    assert (event["type"], event["reason"]) == ("Warning", "NoPolicy")
    (decision,) = audit(world)
    assert (decision["verdict"], decision["reason"]) == ("Denied", "NoPolicy")


async def test_a_policy_applied_together_with_its_task_is_not_overlooked(world: World) -> None:
    """Policies and tasks have separate watches, so the task may be observed first."""
    async with world.operator():
        for _ in range(10):
            policy = await world.policy("echo")
            name = await world.task("echo", "hello")
            assert (await world.finished(name))["phase"] == "Succeeded"
            await world.kube.delete(POLICIES, "default", policy)


async def test_a_failing_task_is_retried_with_growing_waits_until_it_succeeds(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        backoff = {"initialSeconds": 0.2, "factor": 2, "jitter": 0}
        name = await world.sh("test $REMIT_ATTEMPT -ge 3", retry={"maxRetries": 5, "backoff": backoff})
        waiting = await world.phase(name, "Backoff")
        status = await world.finished(name)
        reasons = [event["reason"] for event in await world.events(name, 3)]
    assert waiting["nextRetryTime"] > waiting["attempts"][0]["finishedAt"]
    assert (status["phase"], status["attemptCount"]) == ("Succeeded", 3)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["ExitCode", "ExitCode", "Completed"]
    ended, started = (
        [datetime.datetime.fromisoformat(attempt[field]) for attempt in status["attempts"]]
        for field in ("finishedAt", "startedAt")
    )
    assert (started[1] - ended[0]).total_seconds() >= 0.2
    assert (started[2] - ended[1]).total_seconds() >= 0.4
    assert sorted(reasons) == ["BackOff", "BackOff", "Completed"]
    assert "nextRetryTime" not in status


async def test_retries_end(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        name = await world.sh("exit 7", retry={"maxRetries": 1, "backoff": {"initialSeconds": 0}})
        status = await world.finished(name)
    assert (status["phase"], status["attemptCount"], status["exitCode"]) == ("Failed", 2, 7)
    told = {"reason": "ExitCode", "category": "ExitCode", "message": "exited with code 7", "retryable": True}
    assert status["error"] == told


async def test_a_timeout_kills_the_whole_tree_and_keeps_the_output(world: World) -> None:
    marker = "98765.4321"
    async with world.operator():
        await world.policy("sh")
        script = f"trap '' TERM; (setsid sleep {marker} &) ; sleep {marker} & echo started; sleep {marker}"
        name = await world.sh(script, timeoutSeconds=1, terminationGracePeriodSeconds=1)
        await world.until(name, lambda status: status.get("phase") == "Running")
        status = await world.finished(name)
        assert processes(marker) == []
    assert (status["phase"], status["error"]["category"]) == ("TimedOut", "Timeout")
    assert status["output"]["stdoutTail"] == "started\n"


async def test_a_running_task_is_cancelled(world: World) -> None:
    marker = "87654.3210"
    async with world.operator():
        await world.policy("sh")
        name = await world.sh(f"echo so far; sleep {marker} & sleep {marker}")
        await world.phase(name, "Running")
        await world.edit(name, {"cancel": True})
        status = await world.finished(name)
        assert processes(marker) == []
    assert status["phase"] == "Cancelled"
    assert truth(status, "Succeeded") == "False"


async def test_a_task_in_backoff_is_cancelled_at_once(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        name = await world.sh(
            "exit 1", retry={"maxRetries": 5, "backoff": {"initialSeconds": 3600, "maxSeconds": 3600}}
        )
        await world.phase(name, "Backoff")
        await world.edit(name, {"cancel": True})
        status = await world.finished(name)
    assert (status["phase"], status["attemptCount"]) == ("Cancelled", 1)


async def test_the_deadline_covers_retries(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        retry = {"maxRetries": 100, "backoff": {"initialSeconds": 0.1, "factor": 1}}
        name = await world.sh("exit 1", deadlineSeconds=5, retry=retry)
        status = await world.finished(name)
    assert (status["phase"], status["error"]["category"]) == ("TimedOut", "Deadline")
    assert status["attemptCount"] > 1


async def test_the_deadline_cuts_a_run_short(world: World) -> None:
    async with world.operator():
        await world.policy("sleep")
        name = await world.task("sleep", "1000", deadlineSeconds=2)
        status = await world.finished(name)
    assert (status["phase"], status["conditions"][0]["reason"]) == ("TimedOut", "DeadlineExceeded")


async def test_too_much_memory_is_distinguished(world: World) -> None:
    async with world.operator():
        await world.policy("dd")
        name = await world.task(
            "dd", "if=/dev/zero", "of=/dev/null", "bs=512M", "count=1", resources={"memory": "32Mi"}
        )
        status = await world.finished(name)
    if "cgroup" not in status["sandbox"]["layers"]:
        pytest.skip("memory is counted by a cgroup, which this host does not let us write")
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Resources")
    assert status["conditions"][0]["reason"] == "OOMKilled"


async def test_status_says_which_limit_was_met_and_what_holds_it(world: World) -> None:
    async with world.operator():
        await world.policy("dd", limits={"disk": {"max": "4Mi"}})
        name = await world.task("dd", "if=/dev/zero", "of=/workspace/x", "bs=1M", "count=8")
        status = await world.finished(name)
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Resources")
    assert status["conditions"][0]["reason"] == "DiskExceeded"
    assert "set spec.resources.disk higher" in status["message"]
    (attempt,) = status["attempts"]
    assert (attempt["reason"], attempt["exceeded"]) == ("DiskExceeded", ["Disk"])
    assert status["sandbox"]["limits"]["disk"] == "tmpfs size"


async def test_a_program_that_does_not_exist_reports_it_and_is_not_retried(world: World) -> None:
    async with world.operator():
        await world.policy("no-such-program")
        name = await world.task("no-such-program", retry={"maxRetries": 3})
        status = await world.finished(name)
    assert (status["phase"], status["conditions"][0]["reason"]) == ("Failed", "ExecutableNotFound")
    assert "install it" in status["message"]


async def test_a_program_that_sandboxes_do_not_see_is_reported_with_its_path(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program is given by its name, which is looked up, and by its path, which does not exist in the sandbox."""
    monkeypatch.setenv("HOME", str(tmp_path))
    program = tmp_path / ".nvm/versions/node/v20/bin/nod3"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\necho it runs\n")
    program.chmod(0o755)
    option = f"--read-only-path {tmp_path}/.nvm/versions/node/v20"
    await world.policy("nod3", str(program))
    async with world.operator():
        named = await world.finished(await world.task("nod3"))
        written = await world.finished(await world.task(str(program)))
    assert named["conditions"][0]["reason"] == "ExecutableNotFound"
    assert f"{option}, and write that path" in named["message"]
    assert written["conditions"][0]["reason"] == "StartFailed"
    assert written["message"].endswith(option)
    async with world.operator(read_only_paths=(tmp_path / ".nvm",)):
        assert f"it is {program}: write that path" in (await world.finished(await world.task("nod3")))["message"]
        assert (await world.finished(await world.task(str(program))))["output"]["stdoutTail"] == "it runs\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"command": {"argv": ["echo"]}, "backend": "kubernetes", "image": "x"}, "no backend kubernetes"),
        ({"command": {"line": "echo a | rm -rf /"}}, "no shell reads the line"),
    ],
)
async def test_what_cannot_be_done_is_refused_in_words(world: World, spec: dict[str, Any], words: str) -> None:
    async with world.operator():
        await world.policy("echo")
        status = await world.finished(await world.task(**spec))
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Invalid")
    assert words in status["message"]


async def test_a_required_layer_that_is_missing_refuses_the_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    host = probe_host()
    lacking = Ability(Layer.LANDLOCK, False, "the kernel does not offer it", "Use a newer one")
    without = replace(host, abilities={**host.abilities, Layer.LANDLOCK: lacking})
    monkeypatch.setattr("remit.controllers.operator.probe_host", lambda: without)
    async with world.operator():
        await world.policy("echo", sandbox={"require": ["landlock"]})
        status = await world.finished(await world.task("echo", "hello"))
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Sandbox")
    assert "landlock: the kernel does not offer it. Use a newer one" in status["message"]
    assert "output" not in status or "stdoutTail" not in status["output"]


async def test_only_a_few_fields_may_change_later(world: World) -> None:
    await world.policy("echo")
    name = await world.task("echo", "hello")
    with pytest.raises(ApiError, match="command cannot be changed after the task is created"):
        await world.edit(name, {"command": {"argv": ["echo", "else"]}})
    with pytest.raises(ApiError, match="timeoutSeconds cannot be changed"):
        await world.edit(name, {"timeoutSeconds": 5})
    await world.edit(name, {"ttlSecondsAfterFinished": 5})
    await world.edit(name, {"cancel": True})
    with pytest.raises(ApiError, match="cancel cannot be taken back"):
        await world.edit(name, {"cancel": False})


async def test_a_task_and_its_output_are_deleted_when_their_time_is_over(world: World) -> None:
    async with world.operator() as operator:
        await world.policy("echo")
        name = await world.task("echo", "hello", ttlSecondsAfterFinished=1)
        uid = (await world.get(name))["metadata"]["uid"]
        await world.finished(name)
        assert ("default", uid) in list(operator.runner.store.tasks())
        await world.gone(name)
        await world.until(await world.task("echo"), lambda status: status.get("phase") == "Succeeded")
        assert ("default", uid) not in list(operator.runner.store.tasks())


async def test_deleting_a_running_task_kills_it(world: World) -> None:
    marker = "76543.2109"
    async with world.operator() as operator:
        await world.policy("sleep")
        name = await world.task("sleep", marker)
        await world.phase(name, "Running")
        uid = (await world.get(name))["metadata"]["uid"]
        await world.kube.delete(TASKS, "default", name)
        await world.until(await world.task("sleep", "0"), lambda status: status.get("phase") == "Succeeded")
        while operator.runner.running(uid):
            await world.get((await world.kube.list(TASKS))[0]["metadata"]["name"])
        assert processes(marker) == []


async def test_a_finished_task_with_a_generated_name_is_deleted_unless_it_would_be_recreated(
    world: World,
) -> None:
    await world.policy("echo")
    spec = {"command": {"argv": ["echo", "hello"]}}
    synced = {"argocd.argoproj.io/tracking-id": "x"}
    created = {}
    async with world.operator(finished_task_ttl=1):
        for which, metadata in (
            ("disposable", {"generateName": "once-"}),
            ("named", {"name": "named"}),
            ("synced", {"generateName": "synced-", "annotations": synced}),
            ("longer", {"generateName": "longer-"}),
        ):
            own = spec | ({"ttlSecondsAfterFinished": 3600} if which == "longer" else {})
            body = {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask", "metadata": metadata, "spec": own}
            created[which] = (await world.kube.create(TASKS, "default", body))["metadata"]["name"]
        for which in ("named", "synced", "longer"):
            await world.finished(created[which])
        await world.gone(created["disposable"])
        left = {obj["metadata"]["name"] for obj in await world.kube.list(TASKS, "default")}
        assert left >= {created[which] for which in ("named", "synced", "longer")}
        for which, expires in (("named", False), ("synced", False), ("longer", True)):
            status = (await world.kube.get(TASKS, "default", created[which]))["status"]
            assert ("expirationTime" in status) is expires
