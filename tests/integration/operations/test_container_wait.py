"""Tests `run` with `wait` on a real Docker engine: the container's output and exit code are those of the task."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from dockers import docker
from remit.backends.base import Handle
from remit.backends.docker.engine import Engine
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import PolicyDenied
from remit.execution.operations import attend
from remit.operations.base import OperationRequest
from remit.operations.container.executor import ContainerExecutor
from remit.policy.limits import Limits

from .conftest import Desk

POLICY: dict[str, Any] = {
    "containers": {"operations": ["run", "stop"]},
    "images": {"allow": ["remit-test:*"]},
    "commands": {"allow": [{"executable": "sh"}, {"executable": "nosuch"}]},
}
RELEASED = "while ! test -e /tmp/go; do sleep 0.05; done"


@dataclass
class Ward:
    """Runs operations on containers with one name that are waited for."""

    desk: Desk
    image: str
    name: str = field(default_factory=lambda: f"remit-test-{uuid.uuid4().hex[:12]}")
    started: list[Handle] = field(default_factory=list)
    seconds: float = 120

    @property
    def executor(self) -> ContainerExecutor:
        assert isinstance(self.desk.executor, ContainerExecutor)
        return self.desk.executor

    def work(self, script: str, attempt: int = 1, **rest: Any) -> OperationRequest:
        operation = {
            "action": "run",
            "wait": True,
            "name": self.name,
            "image": self.image,
            "argv": ["sh", "-c", script],
            **rest,
        }
        work = self.desk.work(container=operation)
        return replace(work, id=f"{self.name}-uid-{attempt}", timeout_seconds=self.seconds)

    async def run(self, work: OperationRequest, cancel: asyncio.Event | None = None) -> Outcome:
        return await attend(
            self.executor, work, self.desk.output, cancel or asyncio.Event(), on_started=self.started.append
        )

    async def adopt(
        self, work: OperationRequest, cancel: asyncio.Event | None = None, recorded: Handle | None = None
    ) -> Outcome | None:
        return await self.executor.adopt(
            work,
            self.desk.output,
            cancel=cancel or asyncio.Event(),
            on_found=self.started.append,
            recorded=recorded,
        )

    @asynccontextmanager
    async def going(self, work: OperationRequest) -> AsyncIterator[asyncio.Task[Outcome]]:
        """Starts a container that prints `begun`, and releases the attempt at the end."""
        task = asyncio.create_task(self.run(work))
        try:
            async with asyncio.timeout(60):
                while b"begun" not in self.desk.output.stdout and not task.done():
                    await asyncio.sleep(0.02)
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def is_there(self) -> bool:
        return docker("inspect", self.name).returncode == 0

    def is_running(self) -> bool:
        return docker("inspect", "-f", "{{.State.Running}}", self.name).stdout == b"true\n"


@pytest.fixture
async def ward(image: str) -> AsyncIterator[Ward]:
    executor = ContainerExecutor(Engine())
    ward = Ward(Desk(executor, [POLICY], limits=Limits(termination_grace_period_seconds=1)), image)
    yield ward
    await executor.close()
    docker("rm", "-fv", ward.name)


async def test_output_and_exit_code_are_the_tasks(ward: Ward) -> None:
    ended = await ward.run(ward.work("echo out; echo err >&2; exit 3"))
    assert (ended.reason, ended.exit_code, ended.retryable) == (ExitReason.EXIT_CODE, 3, True)
    assert (ward.desk.output.stdout, ward.desk.output.stderr) == (b"out\n", b"err\n")
    assert ward.name in ended.message
    assert ended.usage is not None
    assert not ward.is_running()
    assert ward.is_there(), "it is kept to be looked at, without remove"


async def test_one_that_succeeds_is_removed(ward: Ward) -> None:
    ended = await ward.run(ward.work("echo out", remove=True))
    assert (ended.reason, ended.exit_code) == (ExitReason.COMPLETED, 0)
    assert not ward.is_there()
    (handle,) = ward.started
    assert handle.operation == "container"
    assert handle.container


async def test_one_that_fails_is_removed(ward: Ward) -> None:
    assert (await ward.run(ward.work("exit 7", remove=True))).exit_code == 7
    assert not ward.is_there()


async def test_a_program_that_does_not_exist_leaves_nothing(ward: Ward) -> None:
    ended = await ward.run(ward.work("", argv=["nosuch"], remove=True))
    assert (ended.reason, "nosuch" in ended.message) == ("EngineRefused", True)
    assert not ward.is_there()


@pytest.mark.parametrize("remove", [True, False])
async def test_a_timeout_kills_it(ward: Ward, remove: bool) -> None:
    """The program ignores SIGTERM, as the first process of a container does by default."""
    ward.seconds = 2
    ended = await ward.run(ward.work("echo begun; sleep 600", remove=remove))
    assert (ended.reason, ended.retryable) == (ExitReason.TIMED_OUT, True), "it is dead for sure"
    assert ward.desk.output.stdout == b"begun\n"
    assert (ward.is_there(), ward.is_running()) == (not remove, False)


async def test_a_cancel_ends_it_as_it_asks_for(ward: Ward) -> None:
    cancel = asyncio.Event()
    work = ward.work("trap 'echo cleaned; exit 0' TERM; echo begun; while :; do sleep 0.05; done", remove=True)
    work = replace(work, limits=Limits(termination_grace_period_seconds=60))
    doing = asyncio.create_task(ward.run(work, cancel))
    async with asyncio.timeout(60):
        while b"begun" not in ward.desk.output.stdout:
            await asyncio.sleep(0.02)
    cancel.set()
    ended = await doing
    assert ended.reason == ExitReason.CANCELLED
    assert ward.desk.output.stdout == b"begun\ncleaned\n"
    assert not ward.is_there()


async def test_memory_that_is_exceeded(ward: Ward) -> None:
    ward.desk.limits = Limits(memory=16 << 20)
    ended = await ward.run(ward.work("tail /dev/zero; sleep 1; exit 137", remove=True))
    assert (ended.reason, ended.exceeded) == (ExitReason.OOM_KILLED, ("Memory",))


async def test_a_released_attempt_is_adopted(ward: Ward) -> None:
    work = ward.work(f"echo begun; {RELEASED}; echo done; exit 5", remove=True)
    async with ward.going(work):
        pass
    assert ward.is_running()
    ward.desk.output.stdout = b""
    adopting = asyncio.create_task(ward.adopt(work))
    docker("exec", ward.name, "touch", "/tmp/go")
    ended = await adopting
    assert ended is not None
    assert (ended.exit_code, ward.desk.output.stdout) == (5, b"begun\ndone\n")
    assert not ward.is_there()


async def test_one_that_ended_meanwhile_is_adopted(ward: Ward) -> None:
    work = ward.work(f"echo begun; {RELEASED}; echo done", remove=True)
    async with ward.going(work):
        pass
    docker("exec", ward.name, "touch", "/tmp/go")
    await asyncio.to_thread(docker, "wait", ward.name)
    ward.desk.output.stdout = b""
    ended = await ward.adopt(work)
    assert ended is not None
    assert (ended.reason, ward.desk.output.stdout) == (ExitReason.COMPLETED, b"begun\ndone\n")
    assert not ward.is_there()


async def test_the_time_that_it_had_counts(ward: Ward) -> None:
    work = ward.work("echo begun; sleep 600", remove=True)
    async with ward.going(work):
        pass
    ended = await ward.adopt(replace(work, timeout_seconds=0.01))
    assert ended is not None
    assert ended.reason == ExitReason.TIMED_OUT
    assert not ward.is_there()


async def test_the_elapsed_time_is_measured_by_the_monotonic_clock(ward: Ward) -> None:
    work = ward.work("echo begun; sleep 600", remove=True)
    async with ward.going(work):
        pass
    (recorded,) = ward.started
    ended = await ward.adopt(work, recorded=replace(recorded, begun=recorded.begun - ward.seconds))
    assert ended is not None
    assert ended.reason == ExitReason.TIMED_OUT
    assert ward.started[-1].begun < recorded.begun


async def test_what_another_made_is_not_taken_up(ward: Ward) -> None:
    """Neither a container that a user created under that name, nor one of an earlier attempt, is adopted."""
    work = ward.work("echo begun; sleep 600", remove=True)
    docker("run", "-d", "--network=none", "--name", ward.name, ward.image, "/bin/sleep", "600")
    assert await ward.adopt(work) is None
    assert ward.is_running()
    ended = await ward.run(work)
    assert (ended.reason, ended.retryable) == ("AlreadyExists", False)
    assert ward.is_running()


async def test_a_retry_uses_a_new_container(ward: Ward) -> None:
    """The second attempt does not see files that the first one left in its container."""
    script = "test -e /tmp/was && echo again; touch /tmp/was; exit 1"
    for attempt in (1, 2):
        assert (await ward.run(ward.work(script, attempt))).exit_code == 1
    assert ward.desk.output.stdout == b""
    assert await ward.adopt(ward.work(script, 1)) is None, "that of the first attempt is gone"


async def test_one_whose_task_is_gone_is_ended(ward: Ward) -> None:
    for remove in (True, False):
        work = ward.work("echo begun; sleep 600", remove=remove)
        ward.desk.output.stdout = b""
        async with ward.going(work):
            pass
        assert await ward.executor.recover(ward.started[-1])
        assert (ward.is_there(), ward.is_running()) == (not remove, False)
        docker("rm", "-fv", ward.name)


async def test_a_handle_never_ends_another_container(ward: Ward) -> None:
    """A user may have removed the container and created another one with the same name."""
    async with ward.going(ward.work("echo begun; sleep 600", remove=True)):
        pass
    docker("rm", "-fv", ward.name)
    docker("run", "-d", "--network=none", "--name", ward.name, ward.image, "/bin/sleep", "600")
    assert not await ward.executor.recover(ward.started[-1])
    assert ward.is_running()


async def test_one_that_others_stop(ward: Ward) -> None:
    async with ward.going(ward.work(f"echo begun; {RELEASED}", remove=True)) as doing:
        await asyncio.to_thread(docker, "kill", ward.name)
        ended = await doing
    assert (ended.reason, ended.exit_code) == (ExitReason.SIGNALED, 137)
    assert not ward.is_there()


async def test_policy_is_asked_as_for_run(ward: Ward) -> None:
    ward.desk.policies = [{**POLICY, "containers": {"operations": ["stop"]}}]
    operation = {"action": "run", "image": ward.image, "argv": ["sh"], "wait": True}
    assert not ward.desk.decision(container=operation).allowed
    with pytest.raises(PolicyDenied):
        await ward.desk.do(container=operation)
