"""Tests commands against an API server in this process: names that do not exist, no operator, schedules, completion."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from remit.cli import cancel, logs, observe, run, tasks
from remit.cli.logsources import LogRequest
from remit.cli.terminal import Screen
from remit.errors import RemitError
from remit.kube.client import DEPLOYMENTS, TASKS

from .conftest import World


@pytest.fixture
def kubeconfig(world: World) -> Path:
    return Path(world.control_plane.kubeconfig)


async def created(world: World, name: str, **spec: Any) -> None:
    await world.kube.create(TASKS, "default", {**tasks.for_command(["echo", "hello"], name=name), **spec})


async def test_a_name_that_does_not_exist_keeps_no_other_from_being_cancelled(
    world: World, kubeconfig: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("nightly-dump", "weekly-dump"):
        await created(world, name)
    done = await cancel._cancel(["nigthly-dump", "weekly-dump", "gone", "weekly-dump"], False, None, kubeconfig, None)
    assert not done
    said = capsys.readouterr()
    assert said.out == "task default/weekly-dump is being cancelled\n"
    missing, gone = said.err.splitlines()
    assert missing == (
        "error: there is no ExecutionTask nigthly-dump in namespace default; did you mean nightly-dump?"
        " 'remit get -A' lists all"
    )
    assert gone == "error: there is no ExecutionTask gone in namespace default; 'remit get -A' lists all"
    assert (await world.kube.get(TASKS, "default", "weekly-dump"))["spec"]["cancel"] is True
    assert (await world.kube.get(TASKS, "default", "nightly-dump"))["spec"]["cancel"] is False


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observe, "TELL_SECONDS", 0)
    monkeypatch.setattr(observe, "TAKE_UP_SECONDS", 0.01)
    monkeypatch.setattr(cancel, "_MORE_SECONDS", -4)


async def test_without_an_operator_a_run_says_what_it_waits_for_and_is_given_up(
    world: World, kubeconfig: Path, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    task = tasks.for_command(["echo", "hello"], name="untaken")
    with pytest.raises(RemitError, match=r"no operator has taken task default/untaken up .*; the task is cancelled$"):
        await run.run_task(task, None, kubeconfig, None, None, True, False, False, False)
    assert "waiting for an operator, which 'remit up' or 'remit operator' runs\n" in capsys.readouterr().err
    assert (await world.kube.get(TASKS, "default", "untaken"))["spec"]["cancel"] is True


async def test_without_an_operator_cancel_and_logs_come_to_an_end(
    world: World, kubeconfig: Path, impatient: None, capsys: pytest.CaptureFixture[str]
) -> None:
    await created(world, "left-alone")
    assert not await cancel._cancel(["left-alone"], True, None, kubeconfig, None)
    assert "task default/left-alone has not ended within 1 s; it does as soon as an" in capsys.readouterr().err
    with pytest.raises(RemitError, match="no operator has taken task default/left-alone up"):
        await logs._logs(LogRequest("task", "left-alone", follow=True), Screen(), None, kubeconfig)


async def test_logs_of_a_schedule_are_those_of_its_newest_run(
    world: World, kubeconfig: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def show(name: str, *, follow: bool) -> Any:
        request = LogRequest("task", name, follow=follow)
        return logs._logs(request, Screen(), None, kubeconfig, None, world.settings.state_dir)

    task = tasks.for_command(["sh", "-c", "echo from a run"], name="yearly")
    task["spec"]["schedule"] = {"cron": "0 0 1 1 *"}
    await world.policy({"executable": "sh", "args": ["-c", ".*"]})
    async with world.operator():
        await world.kube.create(TASKS, "default", task)
        following = asyncio.create_task(show("yearly", follow=True))
        told = b""
        async with asyncio.timeout(60):
            while b"yearly has no runs; the next is due" not in told:
                await asyncio.sleep(0.01)
                told += capsysbinary.readouterr().err
        code = await run.run_task(
            tasks.Scheduled("yearly", "by-hand"), None, kubeconfig, None, None, True, False, False, True
        )
        assert code == 0
        # A change of its own status makes a schedule be reconciled again; a manual run changes it.
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        capsysbinary.readouterr()
        await show("yearly", follow=True)
        followed = capsysbinary.readouterr()
        await show("yearly", follow=False)
        once = capsysbinary.readouterr()
    for shown in (followed, once):
        assert shown.out.endswith(b"from a run\n")
        assert b"task default/by-hand\n" in shown.err


async def test_kubectl_completes_names_of_every_kind(
    world: World, kubeconfig: Path, kubectl: str, tmp_path: Path
) -> None:
    await created(world, "nightly-dump")
    shop = {"artifact": {"path": "/srv/a"}, "target": {"process": {"command": ["a"]}}}
    deployment = {"apiVersion": "remit.dev/v1alpha1", "kind": "Deployment", "metadata": {"name": "shop"}, "spec": shop}
    await world.kube.create(DEPLOYMENTS, "default", deployment)
    history = [{"revision": revision, "artifact": "/srv/a", "outcome": "Promoted"} for revision in (12, 11, 2)]
    await world.kube.patch(DEPLOYMENTS, "default", "shop", {"status": {"history": history}}, subresource="status")

    patient = "import remit.cli.completion as c\nc._SECONDS = 60\nc.for_kubectl()"
    scripts = {"kubectl-remit": "", "kubectl_complete-remit": patient}
    for name, text in scripts.items():
        (tmp_path / name).write_text(f"#!{sys.executable}\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "KUBECONFIG": str(kubeconfig), "PYTHONPATH": os.pathsep.join(sys.path)}

    async def offered(*words: str) -> list[str]:
        command = [kubectl, "__complete", "remit", *words]
        done = await asyncio.to_thread(subprocess.run, command, env=env, capture_output=True, text=True, timeout=60)
        *lines, directive = done.stdout.splitlines()
        assert directive == (":4" if lines else ":0"), done
        return [line.partition("\t")[0] for line in lines]

    assert await offered("get", "") == ["tasks", "policies", "deployments"]
    assert await offered("get", "et", "") == ["nightly-dump"]
    assert "remit-system" in await offered("promote", "-n", "remit-")
    assert await offered("rollback", "shop", "--to", "1") == ["12", "11"]
    assert await offered("get", "tasks", "--phase", "Failed,Den") == ["Failed,Denied"]
    assert await offered("get", "deploy", "--phase", "Aw") == ["AwaitingPromotion"]
    assert await offered("get", "--sort-by", "c") == ["created", "changed"]
    assert await offered("run", "-f", "") == []
