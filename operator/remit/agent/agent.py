"""`ExecutionAgent`: commands and tasks from a Python program, through the operator's own engine."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import datetime
import getpass
import weakref
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from remit.agent.background import Background, background
from remit.agent.engine import Engine, new_uid
from remit.agent.executions import Execution
from remit.agent.folder import default_root
from remit.agent.inputs import compiled_policies, resolved_of, task_of, task_of_command
from remit.agent.options import CommandOptions, RunOptions
from remit.agent.outcome import concluded, result_of, without_output
from remit.agent.releases import DeploymentState, Releases
from remit.agent.streaming import Buffer, Chunk
from remit.agent.targets import TargetManifest, release_targets
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask, Network, Retry
from remit.api.manifest import TaskManifest
from remit.api.result import ExecutionResult, ResourceLimits
from remit.backends.base import Backend
from remit.errors import AuditUnavailable, ExecutionError, NotSupported
from remit.execution.output import Listener

T = TypeVar("T")
HISTORY = 256
NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Submission:
    """An execution that was started and not waited for."""

    id: str
    agent: ExecutionAgent
    future: concurrent.futures.Future[ExecutionResult]

    @property
    def done(self) -> bool:
        return self.future.done()

    def cancel(self) -> bool:
        """Ask it to end; `result` then raises `ExecutionCancelled`. False when it is over already."""
        return self.agent.cancel(self.id)

    async def result(self) -> ExecutionResult:
        """Return the same as `execute_command`. To stop waiting does not stop the execution."""
        return await asyncio.shield(asyncio.wrap_future(self.future))


class ExecutionAgent:
    """Runs commands under policy, in the sandbox, on this host, with an audit trail; no API server is needed.

        async with ExecutionAgent() as agent:
            result = await agent.execute_command("echo 'test'")
            print(result.exit_code, result.stdout)

    It may be used from any thread and any event loop, with or without closing it: what is open when the process ends is
    ended then. A bare `python` means `python3` where the host has only that; policy and the audit trail see the name
    that runs.

    Args:
        policies: CommandPolicies, or paths of YAML files with some. Without any, the starter policy: see
            `remit.agent.starter`.
        state_dir: where each agent at work has a folder of its own; by default `$XDG_STATE_HOME/remit/agents`.
        backend: what runs commands, instead of this host's sandbox.
        labels: what policies select by.
        namespace: whose policies and tasks these are.
        timeout: seconds for each attempt, where a call names none.
        resource_limits: of each attempt, where a call names none.
        output_cap: how many bytes of each stream are in a result.
        max_concurrent: how many attempts run at once; the others wait for their turn.
        targets: the Deployments that `deploy` may release to, by name: see `remit.agent.targets`. Where no
            `policies` are given, each allows itself.
    """

    def __init__(
        self,
        *,
        policies: Sequence[CommandPolicy | Path | str] | None = None,
        state_dir: Path | str | None = None,
        backend: Backend | None = None,
        labels: Mapping[str, str] | None = None,
        namespace: str = NAMESPACE,
        timeout: float | None = None,
        resource_limits: ResourceLimits | None = None,
        output_cap: int = 1024 * 1024,
        max_concurrent: int = 32,
        targets: Mapping[str, TargetManifest] | None = None,
    ) -> None:
        """Raises `InvalidInput` for a policy that cannot be in force, and for a target that cannot be one."""
        self.namespace = namespace
        self._labels = own_labels = dict(labels or {})
        self._timeout, self._limits = timeout, resource_limits
        self._background: Background = background()
        root = Path(state_dir) if state_dir is not None else default_root()
        self._engine = Engine(
            root=root,
            policies=compiled_policies(policies, namespace),
            who=f"python:{_user()}",
            output_cap=output_cap,
            max_concurrent=max_concurrent,
            backend=backend,
        )
        self._history: collections.deque[ExecutionResult] = collections.deque(maxlen=HISTORY)
        engine, history = self._engine, self._history

        async def run_hook(task: ExecutionTask) -> ExecutionResult:
            """Knows nothing of the agent itself, which may be gone before its engine."""
            execution = _execution_of(task, namespace, own_labels)
            engine.executions[execution.task.key] = execution
            result = result_of(await engine.run(execution))
            history.append(without_output(result))
            return result

        self._releases = Releases(
            root=root / "releases",
            namespace=namespace,
            labels=self._labels,
            targets=release_targets(targets or {}),
            engine=engine,
            own_policies=policies is not None,
            run_task=run_hook,
        )
        engine.before_close.append(self._releases.close)
        self._background.closing.add(self._engine.close)
        weakref.finalize(self, _abandon, self._background, self._engine).atexit = False

    async def execute_command(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,  # noqa: ASYNC109 (the sandbox holds it, not the loop)
        resource_limits: ResourceLimits | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        cwd: str | None = None,
        retry: int | Retry = 0,
        deadline: int | None = None,
        network: Network | None = None,
        mounts: Sequence[str] = (),
        workspaces: Sequence[str] = (),
        artifacts: Sequence[str] = (),
        on_output: Listener | None = None,
        cancel: asyncio.Event | None = None,
    ) -> ExecutionResult:
        """Run a command line (split as a POSIX shell would; no shell runs) or an argument list, to its end.

        `timeout` is in seconds, for each attempt; `deadline` in seconds, for all of it. Values of `secrets` are given
        as variables and redacted everywhere. `cwd` is absolute, inside the sandbox. `retry` is a number of retries, or
        a `Retry`. `mounts` are such as `./shop:/src` or `./shop:/src:rw`, `workspaces` such as `cache:/cache`, and
        `artifacts` such as `dist/*.whl` or `wheel=dist/*.whl`: see docs/files.md. `on_output` is called with (stream,
        bytes) in the agent's thread; what it raises ends the execution,
        and is raised here. `cancel` ends it when it is set; cancelling the awaiting task does too, and waits until
        nothing of it is alive.

        Raises:
            SecurityError: policy does not allow it, or the sandbox that it requires is not to be had.
            TimeoutError: it was killed; `error.result` has its output so far.
            ResourceError: it asks for more than policy gives.
            ExecutionCancelled: `cancel` was called or set.
            ExecutionError: anything else that kept it from a result.
            InvalidInput: what was given cannot be right.
        """
        execution = self._execution(
            command,
            timeout=timeout,
            resource_limits=resource_limits,
            env=env,
            secrets=secrets,
            stdin=stdin,
            cwd=cwd,
            retry=retry,
            deadline=deadline,
            network=network,
            mounts=mounts,
            workspaces=workspaces,
            artifacts=artifacts,
            on_output=on_output,
        )
        return await self._wait(execution, cancel)

    def execute_command_sync(self, command: str | Sequence[str], **options: Unpack[CommandOptions]) -> ExecutionResult:
        """`execute_command` for programs without an event loop, or in one whose thread may block."""
        self._background.check(waiting=True)
        return self._start(self._execution(command, **options)).result()

    run = execute_command_sync

    def submit(self, command: str | Sequence[str], **options: Unpack[CommandOptions]) -> Submission:
        """Start a command and come back at once."""
        return self._submit(self._execution(command, **options))

    async def execute_task(self, task: TaskManifest, *, wait: bool = True) -> ExecutionResult | Submission:
        """Run an ExecutionTask, with its retries and deadline: a model, a dict, YAML text or the `Path` of a file.

        Without `wait` a `Submission` comes back at once. Raises as `execute_command` does, and `NotSupported` for a
        task with a schedule.
        """
        execution = self._of_task(task_of(task))
        return await self._wait(execution, None) if wait else self._submit(execution)

    async def stream_command(
        self, command: str | Sequence[str], *, cancel: asyncio.Event | None = None, **options: Unpack[RunOptions]
    ) -> AsyncIterator[Chunk]:
        """Its output as it comes. Ends as `execute_command` does, by its exceptions too; to stop reading ends it.

        async for chunk in agent.stream_command(["python3", "-c", "print(1)"]):
            print(chunk.stream, chunk.text)
        """
        buffer = Buffer(asyncio.get_running_loop())
        execution = self._execution(command, on_output=buffer.put, **options)
        running = asyncio.ensure_future(self._wait(execution, cancel))
        running.add_done_callback(lambda _: buffer.ready.set())
        try:
            while True:
                over = running.done()
                buffer.ready.clear()
                for chunk in buffer.take():
                    yield chunk
                if over:
                    break
                await buffer.ready.wait()
            running.result()
        finally:
            running.cancel()
            await asyncio.wait({running})

    def cancel(self, task_id: str) -> bool:
        """End an execution by the id that its `Submission` or its result has. False when it is not going on here."""
        execution = next((found for found in self._running() if found.uid == task_id), None)
        if execution is not None:
            self._background.soon(execution.cancel)
        return execution is not None

    def running(self) -> list[ExecutionResult]:
        """What goes on now, as far as it is."""
        return [result_of(execution) for execution in self._running()]

    def pids(self) -> dict[str, int]:
        """The process of each running id, the one on this host from which all of its processes descend."""
        return self._engine.pids()

    def history(self) -> list[ExecutionResult]:
        """The latest executions that ended, oldest first, without their output."""
        return list(self._history)

    @property
    def state_dir(self) -> Path | None:
        """The folder that is this agent's while it is open; None before its first execution."""
        return self._engine.folder.path if self._engine.folder else None

    async def deploy(self, artifact: str, target: str) -> str:
        """Release an artifact, such as `app:v2`, to one of the agent's targets, and come back when it is live.

        Gives the id of this deployment. What was live goes on until the new side is healthy, and after a failure. What
        is live goes on when the agent is closed; the next agent with this state folder and target finds it. To stop
        waiting does not stop the release.

        Raises:
            SecurityError: policy does not let it run.
            DeploymentError: it did not come to be live; `error.reason` is one of those in docs/releases.md.
            ResourceError: another agent releases to this target.
            InvalidInput: it is no name of an artifact.
        """
        return await self._on_background(self._releases.deploy(artifact, target))

    async def rollback(self, deployment_id: str) -> None:
        """Return to what was live before this deployment, with its whole state, and come back when that is live.

        Raises `DeploymentError`: where it is not live any more (`NotLive`), or nothing was live before.
        """
        await self._on_background(self._releases.rollback(deployment_id))

    async def get_deployment_status(self, target: str) -> DeploymentState:
        """The state of a target, as it was last observed. Raises `DeploymentError` for an unknown target."""
        return await self._on_background(self._releases.state(target))

    async def health_check(self, target: str) -> DeploymentState:
        """Look at a target now; what comes back is true where all instances of what is live are healthy. Raises as
        `get_deployment_status` does."""
        return await self._on_background(self._releases.look(target))

    async def remove_deployment(self, target: str) -> None:
        """Stop what is live on a target, once its requests are answered, and leave nothing of it, nor its history."""
        await self._on_background(self._releases.remove(target))

    def deploy_sync(self, artifact: str, target: str) -> str:
        """`deploy` for programs without an event loop."""
        return self._background.wait(self._releases.deploy(artifact, target))

    def rollback_sync(self, deployment_id: str) -> None:
        """`rollback` for programs without an event loop."""
        self._background.wait(self._releases.rollback(deployment_id))

    def get_deployment_status_sync(self, target: str) -> DeploymentState:
        """`get_deployment_status` for programs without an event loop."""
        return self._background.wait(self._releases.state(target))

    def health_check_sync(self, target: str) -> DeploymentState:
        """`health_check` for programs without an event loop."""
        return self._background.wait(self._releases.look(target))

    async def aclose(self) -> None:
        """End what goes on and let go of the state folder."""
        await asyncio.wrap_future(self._background.submit(self._engine.close()))
        self._background.closing.discard(self._engine.close)

    def close(self) -> None:
        """`aclose` for programs without an event loop."""
        self._background.wait(self._engine.close())
        self._background.closing.discard(self._engine.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _on_background(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(self._background.submit(work))

    def _running(self) -> list[Execution]:
        return list(self._engine.executions.values())

    async def _run(self, execution: Execution) -> ExecutionResult:
        try:
            ended = await self._engine.run(execution)
        except AuditUnavailable as error:
            if execution.task.status.attempts:  # the execution ran, and only its end could not be recorded
                error.retryable, error.result = False, result_of(execution)
            raise
        self._history.append(without_output(result_of(ended)))
        return concluded(ended)

    def _start(self, execution: Execution) -> concurrent.futures.Future[ExecutionResult]:
        """Known from now on, so that whoever has its id can cancel it."""
        self._background.check()
        self._engine.executions[execution.task.key] = execution
        try:
            return self._background.submit(self._run(execution))
        except BaseException:
            del self._engine.executions[execution.task.key]
            raise

    def _submit(self, execution: Execution) -> Submission:
        return Submission(execution.uid, self, self._start(execution))

    async def _wait(self, execution: Execution, cancel: asyncio.Event | None) -> ExecutionResult:
        ending = asyncio.wrap_future(self._start(execution))
        asked = asyncio.ensure_future(cancel.wait()) if cancel else None
        if asked:
            asked.add_done_callback(lambda done: None if done.cancelled() else self._background.soon(execution.cancel))
        given_up = False
        try:
            while not ending.done():
                try:
                    await asyncio.wait({ending})
                except asyncio.CancelledError:
                    given_up = True
                    self._background.soon(execution.cancel)
        finally:
            if asked:
                asked.cancel()
        if given_up:
            ending.exception()  # read the exception, so that asyncio does not warn that it was never retrieved
            raise asyncio.CancelledError
        return ending.result()

    def _execution(
        self,
        command: str | Sequence[str],
        *,
        timeout: float | None = None,
        resource_limits: ResourceLimits | None = None,
        env: Mapping[str, str] | None = None,
        secrets: Mapping[str, str] | None = None,
        stdin: str | bytes | None = None,
        cwd: str | None = None,
        retry: int | Retry = 0,
        deadline: int | None = None,
        network: Network | None = None,
        mounts: Sequence[str] = (),
        workspaces: Sequence[str] = (),
        artifacts: Sequence[str] = (),
        on_output: Listener | None = None,
    ) -> Execution:
        """Spelled out, so that an option that nobody knows is a TypeError in every method that takes `**options`."""
        timeout = timeout if timeout is not None else self._timeout
        task = task_of_command(
            command,
            timeout=timeout,
            limits=resource_limits or self._limits,
            env=env,
            cwd=cwd,
            retry=retry,
            deadline=deadline,
            network=network,
            mounts=mounts,
            workspaces=workspaces,
            artifacts=artifacts,
        )
        execution = self._of_task(task, secrets or {})
        execution.timeout, execution.listener = timeout, on_output
        execution.stdin = stdin.encode() if isinstance(stdin, str) else stdin
        return execution

    def _of_task(self, task: ExecutionTask, secrets: Mapping[str, str] | None = None) -> Execution:
        return _execution_of(task, self.namespace, self._labels, secrets)


def _execution_of(
    task: ExecutionTask, namespace: str, labels: Mapping[str, str], secrets: Mapping[str, str] | None = None
) -> Execution:
    if task.spec.schedule is not None:
        raise NotSupported("an agent runs tasks once; leave spec.schedule out, or give it to an operator")
    uid = new_uid()
    metadata = task.metadata.model_copy(
        update={
            "name": f"{task.metadata.name}-{uid[:13]}",
            "namespace": namespace,
            "uid": uid,
            "labels": {**labels, **task.metadata.labels},
            "creation_timestamp": datetime.datetime.now(datetime.UTC),
        }
    )
    task = task.model_copy(update={"metadata": metadata, "status": type(task.status)()})
    return Execution(task, resolved_of(task, secrets or {}))


def _abandon(where: Background, engine: Engine) -> None:
    """The agent is no more: nobody waits, for this may be called in any thread. Only the end of the process does."""
    try:
        closed = where.submit(engine.close())
    except (RuntimeError, ExecutionError):  # the loop ended with the process, or it belongs to the parent process
        return
    closed.add_done_callback(lambda _: where.closing.discard(engine.close))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
