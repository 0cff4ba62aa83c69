"""Tests the Python API with real programs in the real sandbox."""

from __future__ import annotations

import asyncio
import builtins
import inspect
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

import remit
from parts import require
from remit import (
    CommandRunner,
    ExecutionAgent,
    ExecutionError,
    ExecutionMonitor,
    ResourceError,
    ResourceLimiter,
    ResourceLimits,
    SecurityError,
)
from remit.api.executiontask import ExecutionTask
from remit.client import RemitClient
from remit.errors import AuditUnavailable, ExecutionCancelled, InvalidInput
from remit.sandbox import Layer, probe_host
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent

OPERATOR = Path(__file__).parents[3] / "operator"


@pytest.fixture(scope="module", autouse=True)
def _sandbox() -> None:
    ability = probe_host().abilities[Layer.NAMESPACES]
    require("bwrap", ability.available, ability.remedy)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[ExecutionAgent]:
    async with ExecutionAgent(state_dir=tmp_path) as agent:
        yield agent


OPTIONS_PASSED_ON = {
    "ExecutionAgent.execute_command_sync": lambda agent: agent.execute_command_sync("true", time_out=1),
    "ExecutionAgent.run": lambda agent: agent.run("true", time_out=1),
    "ExecutionAgent.submit": lambda agent: agent.submit("true", time_out=1),
    "ExecutionAgent.stream_command": lambda agent: anext(agent.stream_command("true", time_out=1)),
    "CommandRunner.__init__": lambda agent: CommandRunner([], time_out=1),
    "CommandRunner.run": lambda agent: CommandRunner([], state_dir=agent.state_dir).run("true", time_out=1),
}
"""For each method that passes options on, a call with an option that does not exist."""


@pytest.mark.parametrize("method", OPTIONS_PASSED_ON)
async def test_an_option_that_does_not_exist_is_refused(agent: ExecutionAgent, method: str) -> None:
    with pytest.raises(TypeError, match="time_out"):
        answer = OPTIONS_PASSED_ON[method](agent)
        if inspect.isawaitable(answer):
            await answer
    assert agent.history() == []


def test_every_method_that_passes_options_on_is_tested() -> None:
    found = [
        f"{kind}.{name}"
        for kind in (*remit.__all__, "RemitClient")
        for name, method in vars(getattr(remit, kind, RemitClient)).items()
        if inspect.isfunction(method)
        and any(given.kind is given.VAR_KEYWORD for given in inspect.signature(method).parameters.values())
    ]
    assert sorted(found) == sorted(OPTIONS_PASSED_ON)


async def test_what_ran_and_could_not_be_recorded_is_not_to_be_repeated(
    agent: ExecutionAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = AuditLog.append_async

    async def without_ends(self: AuditLog, event: AuditEvent) -> None:
        if event.kind == "execution":
            raise AuditUnavailable("the disk is full")
        await append(self, event)

    monkeypatch.setattr(AuditLog, "append_async", without_ends)
    with pytest.raises(AuditUnavailable) as caught:
        await agent.execute_command("echo done")
    assert (caught.value.retryable, caught.value.result.stdout) == (False, "done\n")


async def test_the_examples_of_the_design(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    agent = ExecutionAgent()
    result = await agent.execute_command("echo 'test'")
    assert (result.exit_code, result.stdout, result.success) == (0, "test\n", True)
    with pytest.raises(SecurityError) as denied:
        await agent.execute_command("rm -rf /")
    assert denied.value.reason == "NotAllowed"
    with pytest.raises(remit.TimeoutError) as late:
        await agent.execute_command("sleep 1000", timeout=1)
    assert isinstance(late.value, builtins.TimeoutError)
    result = await agent.execute_command("python -c 'a = [0] * 10**9'", resource_limits=ResourceLimits(memory_mb=100))
    assert result.exit_code != 0
    agent.close()


async def test_a_timeout_keeps_the_output_so_far(agent: ExecutionAgent) -> None:
    code = "import time; print('so far', flush=True); time.sleep(1000)"
    with pytest.raises(remit.TimeoutException) as late:
        await agent.execute_command(["python3", "-c", code], timeout=1.5)
    assert late.value.result is not None
    assert late.value.result.stdout == "so far\n"


async def test_both_streams_stdin_secrets_and_the_trail(agent: ExecutionAgent) -> None:
    code = "import os, sys; print(sys.stdin.read(), os.environ['APP_TOKEN']); print('e', file=sys.stderr); sys.exit(3)"
    result = await agent.execute_command(["python3", "-c", code], stdin=b"in", secrets={"APP_TOKEN": "hunter2-hunter2"})
    assert (result.exit_code, result.stdout, result.stderr) == (3, "in [redacted]\n", "e\n")
    assert not result.success
    assert "namespaces" in result.layers
    assert agent.state_dir is not None
    trail = (agent.state_dir / "audit" / "audit.jsonl").read_text()
    kinds = [json.loads(line)["kind"] for line in trail.splitlines()]
    assert kinds == ["decision", "execution"]
    assert "hunter2" not in trail
    assert agent.state_dir.stat().st_mode & 0o777 == 0o700


async def test_what_a_program_tells_of_a_secret_is_redacted_as_for_tasks(agent: ExecutionAgent) -> None:
    code = "import os; print(os.environ['APP_KEY'].strip(), os.environ['APP_URL'][10:16])"
    secrets = {"APP_KEY": "k3y\u00fc1\n", "APP_URL": "pg://shop:hunter@db/shop"}
    result = await agent.execute_command(["python3", "-c", code], secrets=secrets)
    assert result.stdout == "[redacted] [redacted]\n"


async def test_more_than_policy_gives_is_a_resource_error(agent: ExecutionAgent) -> None:
    with pytest.raises(ResourceError, match="memory"):
        await agent.execute_command("echo hi", resource_limits=ResourceLimits(memory_mb=1024 * 1024))


async def test_retries(agent: ExecutionAgent) -> None:
    retry = {"maxRetries": 2, "backoff": {"initialSeconds": 0}}
    task = {"spec": {"command": {"argv": ["python3", "-c", "raise SystemExit(7)"]}, "retry": retry}}
    result = await agent.execute_task(task)
    assert isinstance(result, remit.ExecutionResult)
    assert (result.exit_code, result.attempts) == (7, 3)


async def test_streaming_labels_its_chunks(agent: ExecutionAgent) -> None:
    code = "import sys; print('out'); print('err', file=sys.stderr)"
    said = {"stdout": b"", "stderr": b""}
    async for chunk in agent.stream_command(["python3", "-c", code]):
        said[chunk.stream] += chunk.data
    assert said == {"stdout": b"out\n", "stderr": b"err\n"}


async def _begun(agent: ExecutionAgent) -> None:
    async with asyncio.timeout(60):
        while not any(result.attempts for result in agent.running()):
            await asyncio.sleep(0.01)


def _alive(marker: str) -> list[int]:
    """Returns the processes of this host, in any namespace, with `marker` among their arguments."""
    return [process.pid for process in psutil.process_iter(["cmdline"]) if marker in (process.info["cmdline"] or ())]


async def _seen(marker: str) -> None:
    async with asyncio.timeout(60):
        while not _alive(marker):
            await asyncio.sleep(0.05)


async def test_a_cancelled_await_leaves_nothing_alive(agent: ExecutionAgent) -> None:
    marker = f"86399.{os.getpid()}"
    waiting = asyncio.create_task(agent.execute_command(["sleep", marker]))
    await _seen(marker)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert _alive(marker) == []
    assert agent.running() == []
    assert agent.history()[-1].reason == "Cancelled"


async def test_a_submission_is_cancelled_by_its_id(agent: ExecutionAgent) -> None:
    submitted = agent.submit("sleep 86399")
    await _begun(agent)
    assert agent.cancel(submitted.id)
    with pytest.raises(ExecutionCancelled):
        await submitted.result()
    assert not agent.cancel(submitted.id)


async def test_a_submission_may_be_cancelled_at_once(agent: ExecutionAgent) -> None:
    submitted = agent.submit("sleep 86399")
    assert agent.cancel(submitted.id)
    with pytest.raises(ExecutionCancelled):
        await submitted.result()
    assert agent.running() == []


@pytest.mark.parametrize("code", ["import time; print('out', flush=True); time.sleep(86399)", "print('out')"])
async def test_what_a_listener_raises_ends_the_run_and_is_raised(agent: ExecutionAgent, code: str) -> None:
    heard: list[bytes] = []

    def listen(_stream: str, data: bytes) -> None:
        heard.append(data)
        raise LookupError("not what I wanted")

    with pytest.raises(LookupError, match="not what I wanted"):
        await agent.execute_command(["python3", "-c", code], on_output=listen, retry=3)
    assert heard == [b"out\n"]
    assert agent.running() == []


async def test_a_listener_that_waits_for_another_execution_gets_an_error(agent: ExecutionAgent) -> None:
    with pytest.raises(RuntimeError, match="submit it instead"):
        await agent.execute_command("echo hi", on_output=lambda *_: agent.run("echo ho") and None)
    assert (await agent.execute_command("echo hi")).stdout == "hi\n"


def test_a_child_made_by_fork_needs_an_agent_of_its_own(tmp_path: Path) -> None:
    code = """
import os
from remit import ExecutionAgent, ExecutionError
agent = ExecutionAgent()
print(agent.run("echo parent").stdout, end="", flush=True)
if (child := os.fork()) == 0:
    for use in (agent.run, agent.submit):
        try:
            use("echo hi")
        except ExecutionError as error:
            print(error, flush=True)
    print(ExecutionAgent().run("echo child").stdout, end="", flush=True)
else:
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), agent.run("echo again").stdout, end="")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(OPERATOR), "XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
    )
    said = "this agent was made before the process forked; make another one in the child\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, f"parent\n{said}{said}child\n0 again\n", "")


async def test_sync_inside_a_running_loop(agent: ExecutionAgent) -> None:
    assert agent.run("echo hi").stdout == "hi\n"


async def test_agents_share_a_state_dir_and_not_a_trail(tmp_path: Path) -> None:
    async with ExecutionAgent(state_dir=tmp_path) as one, ExecutionAgent(state_dir=tmp_path) as two:
        await asyncio.gather(one.execute_command("echo 1"), two.execute_command("echo 2"))
        assert one.state_dir != two.state_dir


async def test_what_cannot_be_right(agent: ExecutionAgent, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        await agent.execute_command("echo 'unclosed")
    with pytest.raises(InvalidInput):
        ResourceLimits(memory_mb=-1)
    reference = {"name": "A", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    with pytest.raises(InvalidInput, match="API server"):
        await agent.execute_task(
            ExecutionTask.parse(
                {"metadata": {"name": "t"}, "spec": {"command": {"argv": ["echo"]}, "env": [reference]}}
            )
        )
    closed = ExecutionAgent(state_dir=tmp_path / "closed")
    closed.close()
    with pytest.raises(ExecutionError, match="closed"):
        await closed.execute_command("echo")


def test_importing_remit_is_cheap() -> None:
    code = "import sys, remit; print(sorted({'pydantic', 'asyncio', 'yaml'} & set(sys.modules)))"
    environment = {"PYTHONPATH": str(OPERATOR)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "[]\n", done.stderr


def test_a_program_that_closes_nothing_ends_clean(tmp_path: Path) -> None:
    code = """
import asyncio
from remit import ExecutionAgent
agent = ExecutionAgent()
pending = agent.submit("sleep 86397")
print(asyncio.run(agent.execute_command("echo done")).stdout, end="")
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(OPERATOR), "XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


def test_a_mistake_of_ours_tells_a_program_no_secret(tmp_path: Path) -> None:
    code = """
import asyncio
from remit import ExecutionAgent
from remit.execution.store import Run
def ended(run, outcome): raise OSError(28, "No space left on device")
Run.ended = ended
agent = ExecutionAgent()
print(asyncio.run(agent.execute_command("echo done", secrets={"APP_TOKEN": "hunter" + "-2222"})).stdout, end="")
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(OPERATOR), "XDG_STATE_HOME": str(tmp_path)},
        timeout=60,
    )
    assert done.stdout == "done\n"
    assert "could not be stored" in done.stderr
    assert "OSError" in done.stderr
    assert "hunter-2222" not in done.stderr


async def test_a_rate_and_a_bound_hold_here_too(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "apiVersion: remit.dev/v1alpha1\nkind: CommandPolicy\nmetadata: {name: slow}\n"
        "spec: {commands: {allow: [{executable: echo}]}, rate: {perMinute: 120, burst: 2, maxConcurrent: 1}}\n"
    )
    async with ExecutionAgent(policies=[policy], state_dir=tmp_path / "state") as agent:
        begun = asyncio.get_running_loop().time()
        results = await asyncio.gather(*(agent.execute_command("echo hi") for _ in range(4)))
        took = asyncio.get_running_loop().time() - begun
    assert [result.stdout for result in results] == ["hi\n"] * 4
    assert took > 0.8  # two executions start in the burst, then one every half second


async def test_a_monitor_shows_what_runs_and_what_it_uses(agent: ExecutionAgent) -> None:
    monitor = ExecutionMonitor(agent)
    marker = f"86398.{os.getpid()}"
    code = f"import time; held = bytearray(64 * 1024 * 1024); time.sleep({marker})"
    submitted = agent.submit(["python3", "-c", code])
    async with asyncio.timeout(60):
        while monitor.usage().get(submitted.id, {}).get("memory_bytes", 0) < 64 * 1024 * 1024:
            await asyncio.sleep(0.05)
    used = monitor.usage()[submitted.id]
    assert used["processes"] >= 1
    assert used["cpu_seconds"] > 0
    assert monitor.snapshot() == {"running": 1, "finished": 0}
    submitted.cancel()
    with pytest.raises(ExecutionCancelled):
        await submitted.result()
    assert (monitor.usage(), monitor.snapshot()) == ({}, {"running": 0, "finished": 1, "Cancelled": 1})


def test_a_limiter_tells_what_an_execution_gets() -> None:
    limiter = ResourceLimiter()
    given = limiter.effective("echo hi", ResourceLimits(memory_mb=100))
    assert (given.memory_mb, given.pids, given.cpu_cores, given.disk_mb) == (100, 64, 0.5, 256)
    with pytest.raises(ResourceError, match="memory"):
        limiter.effective("echo hi", ResourceLimits(memory_mb=1024 * 1024))
    with pytest.raises(SecurityError):
        limiter.effective("rm -rf /")
    with pytest.raises(ExecutionError, match="no-such-program"):
        limiter.effective("no-such-program")


async def test_a_denial_names_the_policy_that_made_it(agent: ExecutionAgent) -> None:
    with pytest.raises(SecurityError) as refused:
        await agent.execute_command("rm -rf /")
    assert refused.value.result.policy == refused.value.policy == "starter"
    assert refused.value.result.status.policy.decision == "Denied"


async def test_a_secret_among_the_arguments_is_recorded_nowhere(tmp_path: Path) -> None:
    secret, options = "kestrel-Plumage-77", {"secrets": {"APP_TOKEN": "kestrel-Plumage-77"}}
    async with ExecutionAgent(state_dir=tmp_path) as agent:
        assert (await agent.execute_command(["echo", "told", secret], **options)).stdout == "told [redacted]\n"
        with pytest.raises(SecurityError) as refused:
            await agent.execute_command(["rm", "told", secret], **options)
        assert secret not in str(refused.value)
        assert secret not in refused.value.result.message
    trails = [path.read_text() for path in tmp_path.rglob("audit.jsonl")]
    assert any("told" in text for text in trails)
    assert not any(secret in text for text in trails)


async def test_what_an_execution_left_can_be_saved(tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text(
        "kind: CommandPolicy\nmetadata: {name: p}\n"
        "spec: {commands: {allow: [{executable: sh}]}, volumes: {artifacts: {}}}\n"
    )
    script = "mkdir dist; echo one > dist/a.whl; echo two > dist/b.whl; echo hi > report.html"
    async with ExecutionAgent(state_dir=tmp_path / "state", policies=[policy]) as agent:
        result = await agent.execute_command(["sh", "-c", script], artifacts=["dist/*", "report=report.html"])
        assert result.artifacts["dist"].files == ("a.whl", "b.whl")
        assert result.artifacts["report"].save(tmp_path) == [tmp_path / "report.html"]
        result.artifacts["dist"].save(tmp_path / "wheels")
        assert (tmp_path / "wheels" / "b.whl").read_text() == "two\n"
        with pytest.raises(ExecutionError, match="artifact none"):
            await agent.execute_command(["sh", "-c", "true"], artifacts=["none"])


async def test_a_starter_agent_leaves_nothing(agent: ExecutionAgent) -> None:
    with pytest.raises(SecurityError, match=r"volumes: \{artifacts: \{\}\}"):
        await agent.execute_command("echo", artifacts=["a"])
