"""Tests runs under failures of the environment: full disks, failing backends, deleted tasks."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.api.executiontaskstatus import AttemptStatus
from remit.api.operations import FileOperation, HttpOperation
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.errors import BackendError, SandboxUnavailable
from remit.execution import runner
from remit.execution.runner import Attempt, Runner
from remit.execution.store import Run, RunStore
from remit.operations.base import OperationRequest
from remit.operations.file.report import Report
from remit.policy.grant import Grant
from remit.policy.request import PolicyRequest
from remit.sandbox import Confinement, Limits
from remit.telemetry.redact import Redactor
from simulatedtime import simulate

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


class Scripted:
    """A backend with the behaviour that a test defines."""

    name = "process"

    def __init__(self, act: Callable[[asyncio.Event], Any]) -> None:
        self.act = act
        self.recovered: list[Handle] = []

    async def run(
        self, request: AttemptRequest, sink: Any, *, cancel: asyncio.Event, on_started: Any = None
    ) -> Outcome:
        on_started(Handle(pid=1, start_time=2, boot_id="b", cgroups=("/c",)))
        sink.write("stdout", b"some output\n")
        await self.act(cancel)
        reason = ExitReason.CANCELLED if cancel.is_set() else ExitReason.COMPLETED
        return Outcome(reason, "", 0, usage=Usage())

    async def recover(self, handle: Handle) -> bool:
        self.recovered.append(handle)
        return True


async def at_once(cancel: asyncio.Event) -> None:
    pass


async def until_cancelled(cancel: asyncio.Event) -> None:
    await cancel.wait()


def attempt(number: int = 1) -> Attempt:
    request = AttemptRequest(
        id=f"u-{number}",
        command=Command(("true",), "/bin/true"),
        confinement=Confinement(limits=Limits(), network="none", require=frozenset()),
        timeout_seconds=1,
    )
    return Attempt("ns/t", "ns", "u", "process", request, max_output_bytes=1000, tail_bytes=100)


def recorded(number: int = 1) -> AttemptStatus:
    return AttemptStatus(number=number, id=f"u-{number}", started_at=NOW)


class Bench:
    def __init__(self, root: Path, act: Callable[[asyncio.Event], Any], backend: type[Scripted] = Scripted) -> None:
        self.ended = asyncio.Event()
        self.backend = backend(act)
        self.store = RunStore(root)
        self.runner = Runner({"process": self.backend}, self.store, Redactor(), lambda key: self.ended.set())

    async def reason(self) -> str:
        await asyncio.wait_for(self.ended.wait(), 10)
        assert not self.runner.running("u")
        return (await self.runner.collect("ns", "u", recorded(), 100)).reason


async def test_a_result_outlives_the_runner(tmp_path: Path) -> None:
    bench = Bench(tmp_path, at_once)
    bench.runner.start(attempt())
    assert await bench.reason() == "Completed"
    later = await Bench(tmp_path, at_once).runner.collect("ns", "u", recorded(), 100)
    assert later.reason == "Completed"
    assert later.output is not None
    assert later.output.stdout_tail == "some output\n"


async def test_a_run_that_nobody_saw_end_is_looked_for_and_interrupted(tmp_path: Path) -> None:
    run = RunStore(tmp_path).open("ns", "u", "u-1")
    run.started({"pid": 7, "start_time": 8, "boot_id": "b", "cgroups": ["/c"]})
    bench = Bench(tmp_path, at_once)
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert result.reason == "Interrupted"
    assert bench.backend.recovered == [Handle(7, 8, "b", ("/c",))]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (SandboxUnavailable("no namespaces"), "SandboxUnavailable"),
        (BackendError("engine away"), "BackendError"),
        (ZeroDivisionError(), "InternalError"),
    ],
)
async def test_a_backend_that_breaks_gives_a_reason_and_never_a_task_that_hangs(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    async def act(cancel: asyncio.Event) -> None:
        raise error

    bench = Bench(tmp_path, act)
    bench.runner.start(attempt())
    assert await bench.reason() == reason


class Unstarted(Scripted):
    """A backend that fails before the command could run."""

    async def run(self, *_: Any, **__: Any) -> Outcome:
        raise ZeroDivisionError


@pytest.mark.parametrize(("backend", "retryable"), [(Scripted, False), (Unstarted, True)])
async def test_a_mistake_of_ours_is_retried_only_where_the_command_never_ran(
    tmp_path: Path, backend: type[Scripted], retryable: bool
) -> None:
    async def act(cancel: asyncio.Event) -> None:
        raise ZeroDivisionError

    bench = Bench(tmp_path, act, backend)
    bench.runner.start(attempt())
    assert await bench.reason() == "InternalError"
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert result.retryable is retryable
    assert ("it may have run" in result.message) is not retryable


class Reporting(Scripted):
    """The Job of a file operation, which writes its report to standard error."""

    async def run(self, request: AttemptRequest, sink: Any, **how: Any) -> Outcome:
        sink.write("stderr", Report("wrote 1 bytes to /data/a").encode())
        return await super().run(request, sink, **how)


def file_attempt(operation: str) -> Attempt:
    content = {"content": "x"} if operation == "write" else {}
    return replace(attempt(), operation="file", file=FileOperation(operation=operation, path="/data/a", **content))


async def test_a_report_is_how_a_file_operation_ended_and_no_output(tmp_path: Path) -> None:
    bench = Bench(tmp_path, at_once, Reporting)
    bench.runner.start(file_attempt("write"))
    assert await bench.reason() == "Completed"
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert (result.message, result.exit_code) == ("wrote 1 bytes to /data/a", None)
    assert result.output is not None
    assert (result.output.stdout_tail, result.output.stderr_tail) == ("some output\n", "")


@pytest.mark.parametrize(("operation", "retryable"), [("write", False), ("read", True)])
async def test_a_backend_that_breaks_leaves_a_change_of_files_in_doubt(
    tmp_path: Path, operation: str, retryable: bool
) -> None:
    async def act(cancel: asyncio.Event) -> None:
        raise BackendError("nobody can tell how it fares")

    bench = Bench(tmp_path, act)
    bench.runner.start(file_attempt(operation))
    assert await bench.reason() == "BackendError"
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert result.retryable is retryable
    assert ("it may have run" in result.message) is not retryable


async def test_a_disk_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Any:
        raise OSError(28, "No space left on device")

    bench = Bench(tmp_path, at_once)
    with monkeypatch.context() as patch:
        patch.setattr(RunStore, "open", full)
        bench.runner.start(attempt())
        result = await bench.reason()
    assert result == "BackendError"

    bench = Bench(tmp_path, at_once)
    with monkeypatch.context() as patch:
        patch.setattr(Run, "ended", full)
        bench.runner.start(attempt(2))
        await asyncio.wait_for(bench.ended.wait(), 60)
    assert (await bench.runner.collect("ns", "u", recorded(2), 100)).reason == "Completed"


async def test_what_was_cancelled_by_a_shutdown_was_interrupted(tmp_path: Path) -> None:
    bench = Bench(tmp_path, until_cancelled)
    bench.runner.start(attempt())
    await bench.runner.shutdown()
    assert await bench.reason() == "Interrupted"


def test_a_shutdown_does_not_wait_for_ever_for_what_does_not_die(tmp_path: Path) -> None:
    async def never(cancel: asyncio.Event) -> None:
        await asyncio.get_running_loop().create_future()

    async def scenario() -> float:
        bench = Bench(tmp_path, never)
        bench.runner.start(replace(attempt(), request=replace(attempt().request, grace_seconds=600)))
        await asyncio.sleep(0)
        async with asyncio.timeout(86400):
            await bench.runner.shutdown()
        return asyncio.get_running_loop().time()

    assert 600 < simulate(scenario()) < 900
    (run,) = RunStore(tmp_path).runs("ns", "u")
    assert run.outcome is None, "the next start finds out"


async def test_a_shutdown_during_an_effect_tells_what_may_have_taken_place_and_leaves_the_retry_to_the_task(
    tmp_path: Path,
) -> None:
    class Posting:
        breaker = None

        async def execute(self, work: OperationRequest, output: Any) -> str:
            work.effect.begin("the request may have arrived")
            began.set()
            await asyncio.Event().wait()
            return "never"

        async def close(self) -> None:
            pass

    began, bench = asyncio.Event(), Bench(tmp_path, at_once)
    bench.runner.executors = {"http": Posting()}
    http = HttpOperation(url="http://api.test/", method="POST")
    work = OperationRequest(
        "u-1", "ns", "t", Grant(PolicyRequest(namespace="ns", subject=http), (), ()), timeout_seconds=60
    )
    bench.runner.start(replace(attempt(), operation="http", request=work))
    await asyncio.wait_for(began.wait(), 10)
    await bench.runner.shutdown()
    assert await bench.reason() == "Interrupted"
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert "the request may have arrived" in result.message
    assert result.retryable, "spec.retry.onInterruption decides, as for an operator that was killed"


async def test_the_user_s_cancel_comes_before_a_shutdown_s(tmp_path: Path) -> None:
    bench = Bench(tmp_path, until_cancelled)
    bench.runner.start(attempt())
    bench.runner.stop("u")
    await bench.runner.shutdown()
    assert await bench.reason() == "Cancelled"


class Lasting(Scripted):
    """A backend whose attempts outlive the process, on a system that is temporarily unavailable."""

    async def adopt(self, *_: Any, **__: Any) -> Outcome | None:
        return None

    keeps_secret_versions = False

    def __init__(self, act: Callable[[asyncio.Event], Any]) -> None:
        super().__init__(act)
        self.forgotten: list[str] = []

    def handle_of(self, namespace: str, attempt_id: str) -> Handle:
        return Handle(pid=0, start_time=0, boot_id="", container=f"{namespace}/{attempt_id}")

    async def forget(self, request: AttemptRequest) -> None:
        self.forgotten.append(request.id)

    async def recover(self, handle: Handle) -> bool:
        await super().recover(handle)
        if len(self.recovered) < 3:
            raise BackendError("the place does not answer")
        return True


async def test_a_shutdown_lets_go_of_what_is_slow_to_be_cancelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def for_ever(cancel: asyncio.Event) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(runner, "_LET_GO_SECONDS", 0.01)
    bench = Bench(tmp_path, for_ever, Lasting)
    bench.runner.start(attempt())
    bench.runner.stop("u")
    await asyncio.wait_for(bench.runner.shutdown(), 10)
    assert bench.runner.adoptable("ns", "u", recorded())  # by the next operator


async def test_what_is_not_on_record_is_looked_for_by_its_name(tmp_path: Path) -> None:
    """The record may be lost with the operator's disk while the attempt continues elsewhere."""
    bench = Bench(tmp_path, at_once, Lasting)
    with pytest.raises(BackendError):  # no end is reported while the system does not answer
        await bench.runner.collect("ns", "u", recorded(), 100)
    bench.backend.recovered += bench.backend.recovered * 2
    assert (await bench.runner.collect("ns", "u", recorded(), 100)).reason == "Interrupted"
    assert {handle.container for handle in bench.backend.recovered} == {"ns/u-1"}


class Maker(Lasting):
    """A backend that reports the Job of an attempt, and remembers which one it was asked to adopt."""

    def __init__(self, act: Callable[[asyncio.Event], Any]) -> None:
        super().__init__(act)
        self.asked: list[Handle | None] = []

    async def run(
        self, request: AttemptRequest, sink: Any, *, cancel: asyncio.Event, on_started: Any = None
    ) -> Outcome:
        handle = self.handle_of("ns", request.id)
        on_started(handle)
        on_started(replace(handle, uid="of-the-job"))
        await self.act(cancel)
        return Outcome(ExitReason.COMPLETED, "", 0, usage=Usage())

    async def adopt(self, *_: Any, recorded: Handle | None, **__: Any) -> Outcome | None:
        self.asked.append(recorded)
        return None


async def test_which_job_an_attempt_is_is_told_while_it_runs(tmp_path: Path) -> None:
    bench, made = Bench(tmp_path, until_cancelled, Maker), list[str]()
    bench.runner.on_made = made.append
    bench.runner.start(attempt())
    async with asyncio.timeout(60):
        while not made:
            await asyncio.sleep(0.001)
    assert (made, bench.runner.job_uid("u")) == (["ns/t"], "of-the-job")
    bench.runner.stop("u")
    assert await bench.reason() == "Completed"
    assert bench.runner.job_uid("u") == ""


@pytest.mark.parametrize("uid", ["of-the-job", ""])
async def test_without_a_record_the_job_that_status_tells_of_is_taken_up(tmp_path: Path, uid: str) -> None:
    bench = Bench(tmp_path, at_once, Maker)
    bench.runner.start(replace(attempt(), job_uid=uid), adopt=True)
    assert await bench.reason() == "Interrupted"
    assert isinstance(bench.backend, Maker)
    (asked,) = bench.backend.asked
    assert (asked.uid if asked else "") == uid
    assert asked is None or (asked.container, asked.begun) == ("ns/u-1", 0.0)


@pytest.mark.parametrize("ended_first", [False, True])
async def test_nothing_elsewhere_is_kept_of_a_task_that_is_no_more(tmp_path: Path, ended_first: bool) -> None:
    """It may contain secrets, in both places."""
    bench = Bench(tmp_path, at_once if ended_first else until_cancelled, Lasting)
    bench.runner.start(attempt())
    if ended_first:
        await asyncio.wait_for(bench.ended.wait(), 60)
    bench.runner.abandon("ns", "u")
    await asyncio.wait_for(bench.ended.wait(), 60)
    async with asyncio.timeout(60):
        while bench.runner._clearing or list(bench.store.tasks()):
            await asyncio.sleep(0.001)
    assert isinstance(bench.backend, Lasting)
    assert bench.backend.forgotten == ["u-1"]
    assert not bench.runner._ended_elsewhere


async def test_what_is_left_of_a_task_is_forgotten_once_it_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_CLEAR_SECONDS", 0.01)
    bench = Bench(tmp_path, at_once, Lasting)
    handle = {"pid": 0, "start_time": 0, "boot_id": "", "cgroups": [], "container": "c"}
    bench.store.open("ns", "u", "u-1").started(handle)
    bench.runner.abandon("ns", "u")
    assert list(bench.store.tasks()) == [("ns", "u")]
    async with asyncio.timeout(60):
        while list(bench.store.tasks()):
            await asyncio.sleep(0.001)
    assert [handle.container for handle in bench.backend.recovered] == ["c", "c", "c"]


async def test_of_a_task_that_is_gone_the_processes_of_an_earlier_operator_are_ended(tmp_path: Path) -> None:
    """This includes an operator of a version that records more than this one knows."""
    bench = Bench(tmp_path, at_once)
    process = {"pid": 7, "start_time": 8, "boot_id": "b", "cgroups": ["/c"], "added_later": 1}
    bench.store.open("ns", "u", "u-1").started(process)
    await bench.runner.end_lost("ns", "u")
    await asyncio.gather(*bench.runner._clearing)
    assert bench.backend.recovered == [Handle(7, 8, "b", ("/c",))]
    assert list(bench.store.tasks()) == [("ns", "u")]


async def test_of_a_task_that_is_no_more_nothing_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, until_cancelled)
    bench.runner.start(attempt())
    bench.runner.abandon("ns", "u")
    await asyncio.wait_for(bench.ended.wait(), 60)
    assert list(bench.store.tasks()) == []
    assert len(bench.runner) == 0


async def test_of_a_task_that_is_deleted_before_its_end_is_in_status_no_result_is_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path, at_once)
    bench.runner.start(attempt())
    assert await bench.reason() == "Completed"
    await bench.runner.clear("ns", "u")
    assert not bench.runner._results
    assert list(bench.store.tasks()) == []


@pytest.mark.parametrize(("most", "met"), [(1000, ()), (4, ("Output",))])
async def test_output_past_its_limit_is_told_and_is_no_failure(tmp_path: Path, most: int, met: tuple[str, ...]) -> None:
    bench = Bench(tmp_path, at_once)
    bench.runner.start(replace(attempt(), max_output_bytes=most))
    assert await bench.reason() == "Completed"
    result = await bench.runner.collect("ns", "u", recorded(), 100)
    assert result.output is not None
    assert (result.exceeded, result.output.truncated) == (met, bool(met))
