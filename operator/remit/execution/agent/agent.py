"""`ExecutionAgent`: commands and tasks from a Python program, through the operator's own engine."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import datetime
import getpass
import math
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import yaml

from remit.api import CommandPolicy, ExecutionTask
from remit.api.executiontask import Retry
from remit.api.references import references
from remit.api.result import ExecutionResult, ResourceLimits
from remit.backends import Backend, Stream
from remit.errors import DeploymentError, InvalidInput, NotSupported
from remit.execution.agent.background import Background, background
from remit.execution.agent.engine import Engine, Execution, new_uid
from remit.execution.agent.folder import default_root
from remit.execution.agent.outcome import concluded, result_of, without_output
from remit.execution.agent.starter import STARTER
from remit.execution.output import Listener
from remit.execution.resolved import Resolved
from remit.operations.command import look_up
from remit.policy import CompiledPolicy, compile_policy, split_line

HISTORY = 256


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
        """As `execute_command`. To stop waiting does not stop the execution."""
        return await asyncio.shield(asyncio.wrap_future(self.future))


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output. `missed` bytes before it were dropped, because they were not read in time."""

    stream: Stream
    data: bytes
    missed: int = 0

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


class ExecutionAgent:
    """Runs commands under policy, in the sandbox, on this host, with an audit trail; no API server is needed.

        async with ExecutionAgent() as agent:
            result = await agent.execute_command("echo 'test'")
            print(result.exit_code, result.stdout)

    It may be used from any thread and any event loop, with or without closing it: what is open when the process ends is
    ended then. `policies` are CommandPolicies or paths of YAML files with some; without any, the starter policy: see
    `remit.execution.agent.starter`. `state_dir` holds one folder for each agent at work below it; `labels` are what
    policies select by. Of each stream up to `output_cap` bytes are in a result. A bare `python` means `python3` where
    the host has only that; policy and the audit trail see the name that runs.
    """

    def __init__(
        self,
        *,
        policies: Sequence[CommandPolicy | Path | str] | None = None,
        state_dir: Path | str | None = None,
        backend: Backend | None = None,
        labels: Mapping[str, str] | None = None,
        namespace: str = "default",
        timeout: float | None = None,
        resource_limits: ResourceLimits | None = None,
        output_cap: int = 1024 * 1024,
        max_concurrent: int = 32,
    ) -> None:
        """Raises `InvalidInput` for a policy that cannot be in force."""
        self.namespace = namespace
        self._labels = dict(labels or {})
        self._timeout, self._limits = timeout, resource_limits
        self._background: Background = background()
        self._engine = Engine(
            root=Path(state_dir) if state_dir is not None else default_root(),
            policies=_compiled(policies, namespace),
            who=f"python:{_user()}",
            output_cap=output_cap,
            max_concurrent=max_concurrent,
            backend=backend,
        )
        self._history: collections.deque[ExecutionResult] = collections.deque(maxlen=HISTORY)
        self._background.closing.add(self._engine.close)
        weakref.finalize(self, _abandon, self._background, self._engine).atexit = False

    async def execute_command(self, command: str | Sequence[str], **options: Any) -> ExecutionResult:
        """Run a command line (split as a POSIX shell would; no shell runs) or an argument list, to its end.

        Options: `timeout` in seconds for each attempt; `resource_limits`; `env`; `secrets`, variables whose values are
        redacted everywhere; `stdin`, text or bytes; `cwd`, absolute, inside the sandbox; `retry`, a number of retries
        or a `Retry`; `deadline` in seconds for all of it; `network`; `on_output`, called with (stream, bytes) in the
        agent's thread; `cancel`, an `asyncio.Event` that ends it. Cancelling the awaiting task ends it too, and waits
        until nothing of it is alive.

        Raises:
            SecurityError: policy does not allow it, or the sandbox that it requires is not to be had.
            TimeoutError: it was killed; `error.result` has its output so far.
            ResourceError: it asks for more than policy gives.
            ExecutionCancelled: `cancel` was called or set.
            ExecutionError: anything else that kept it from a result.
            InvalidInput: what was given cannot be right.
        """
        cancel: asyncio.Event | None = options.pop("cancel", None)
        return await self._wait(self._execution(command, **options), cancel)

    def execute_command_sync(self, command: str | Sequence[str], **options: Any) -> ExecutionResult:
        """`execute_command` for programs without an event loop, or in one whose thread may block."""
        return self._background.wait(self._run(self._execution(command, **options)))

    run = execute_command_sync

    def submit(self, command: str | Sequence[str], **options: Any) -> Submission:
        """Start a command and come back at once."""
        return self._submit(self._execution(command, **options))

    async def execute_task(
        self, task: ExecutionTask | Mapping[str, Any] | str | Path, *, wait: bool = True
    ) -> ExecutionResult | Submission:
        """Run an ExecutionTask: a model, a dict, YAML text or a file's path. Without `wait`, a `Submission`."""
        execution = self._of_task(_task(task))
        return await self._wait(execution, None) if wait else self._submit(execution)

    async def stream_command(self, command: str | Sequence[str], **options: Any) -> AsyncIterator[Chunk]:
        """Its output as it comes. Ends as `execute_command` does, by its exceptions too; to stop reading ends it.

        async for chunk in agent.stream_command(["python3", "-c", "print(1)"]):
            print(chunk.stream, chunk.text)
        """
        buffer = _Buffer(asyncio.get_running_loop())
        running = asyncio.ensure_future(self.execute_command(command, on_output=buffer.put, **options))
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
        """End an execution by its id. False when it is not going on here."""
        execution = next((found for found in self._running() if found.uid == task_id), None)
        if execution is not None:
            self._background.soon(execution.cancel)
        return execution is not None

    def running(self) -> list[ExecutionResult]:
        """What goes on now, as far as it is."""
        return [result_of(execution) for execution in self._running()]

    def history(self) -> list[ExecutionResult]:
        """The latest executions that ended, oldest first, without their output."""
        return list(self._history)

    @property
    def state_dir(self) -> Path | None:
        """The folder that is this agent's while it is open; None before its first execution."""
        return self._engine.folder.path if self._engine.folder else None

    async def deploy(self, artifact: str, target: str) -> NoReturn:
        """Releases come in a later version. Raises `DeploymentError`."""
        _no_releases()

    async def rollback(self, deployment_id: str) -> NoReturn:
        """Releases come in a later version. Raises `DeploymentError`."""
        _no_releases()

    async def get_deployment_status(self, target: str) -> NoReturn:
        """Releases come in a later version. Raises `DeploymentError`."""
        _no_releases()

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

    def _running(self) -> list[Execution]:
        return list(self._engine.executions.values())

    async def _run(self, execution: Execution) -> ExecutionResult:
        ended = await self._engine.run(execution)
        self._history.append(without_output(result_of(ended)))
        return concluded(ended)

    def _submit(self, execution: Execution) -> Submission:
        return Submission(execution.uid, self, self._background.submit(self._run(execution)))

    async def _wait(self, execution: Execution, cancel: asyncio.Event | None) -> ExecutionResult:
        ending = asyncio.wrap_future(self._background.submit(self._run(execution)))
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
            ending.exception()  # looked at, so that nobody warns of it
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
        network: str | None = None,
        on_output: Listener | None = None,
    ) -> Execution:
        argv = split_line(command) if isinstance(command, str) else [str(word) for word in command]
        timeout = timeout if timeout is not None else self._timeout
        if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
            raise InvalidInput(f"must be a number of seconds above 0, not {timeout!r}", field="timeout")
        limits = resource_limits or self._limits
        retry = Retry(max_retries=retry) if isinstance(retry, int) else retry
        spec: dict[str, Any] = {
            "command": {"argv": _present(argv)},
            "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
            "retry": retry.model_dump(by_alias=True),
            "timeoutSeconds": None if timeout is None else max(1, math.ceil(timeout)),
            "deadlineSeconds": deadline,
            "resources": limits.as_resources().model_dump(by_alias=True) if limits else None,
            "workingDir": cwd,
            "network": network,
        }
        spec = {name: value for name, value in spec.items() if value is not None}
        execution = self._of_task(ExecutionTask.parse({"metadata": {"name": "command"}, "spec": spec}), secrets or {})
        execution.timeout, execution.listener = timeout, on_output
        execution.stdin = stdin.encode() if isinstance(stdin, str) else stdin
        return execution

    def _of_task(self, task: ExecutionTask, secrets: Mapping[str, str] | None = None) -> Execution:
        if task.spec.schedule is not None:
            raise NotSupported("an agent runs tasks once; leave spec.schedule out, or give it to an operator")
        uid = new_uid()
        metadata = task.metadata.model_copy(
            update={
                "name": f"{task.metadata.name}-{uid[:13]}",
                "namespace": self.namespace,
                "uid": uid,
                "labels": {**self._labels, **task.metadata.labels},
                "creation_timestamp": datetime.datetime.now(datetime.UTC),
            }
        )
        task = task.model_copy(update={"metadata": metadata, "status": type(task.status)()})
        return Execution(task, _resolved(task, secrets or {}))


class _Buffer:
    """Output between the agent's thread and a reader's loop: the oldest is dropped when the reader is far behind."""

    MOST = 8 * 1024 * 1024

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready = asyncio.Event()
        self._loop = loop
        self._chunks: collections.deque[Chunk] = collections.deque()
        self._size = 0
        self._missed = 0

    def put(self, stream: Stream, data: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._add, stream, data)
        except RuntimeError:  # the reader's loop is closed
            return

    def take(self) -> list[Chunk]:
        chunks = list(self._chunks)
        if chunks and self._missed:
            chunks[0] = Chunk(chunks[0].stream, chunks[0].data, self._missed)
        self._chunks.clear()
        self._size = self._missed = 0
        return chunks

    def _add(self, stream: Stream, data: bytes) -> None:
        self._chunks.append(Chunk(stream, data))
        self._size += len(data)
        while self._size > self.MOST:
            dropped = self._chunks.popleft()
            self._size -= len(dropped.data)
            self._missed += len(dropped.data)
        self.ready.set()


def _present(argv: list[str]) -> list[str]:
    """`python` is `python3` on a host that has only that."""
    if argv[:1] == ["python"] and look_up(argv).resolved is None and look_up(["python3"]).resolved is not None:
        return ["python3", *argv[1:]]
    return argv


def _resolved(task: ExecutionTask, secrets: Mapping[str, str]) -> Resolved:
    spec = task.spec
    wanted = next((path for path, _ in references(spec)), None) or ("envFrom" if spec.env_from else None)
    if wanted is not None:
        raise InvalidInput("refers to an object of an API server, and an agent has none; give secrets=", field=wanted)
    resolved = Resolved(env={variable.name: variable.value or "" for variable in spec.env} | dict(secrets))
    resolved.files = {file.path: (file.value or "").encode() for file in spec.private_files}
    resolved.secrets = {value for value in secrets.values() if value.strip()}
    return resolved


def _task(given: ExecutionTask | Mapping[str, Any] | str | Path) -> ExecutionTask:
    if isinstance(given, ExecutionTask):
        return given
    if isinstance(given, Mapping):
        return ExecutionTask.parse({"metadata": {"name": "task"}, **given})
    documents = _documents(given)
    if len(documents) != 1:
        raise InvalidInput(f"holds {len(documents)} documents; give one ExecutionTask")
    return ExecutionTask.parse({"metadata": {"name": "task"}, **documents[0]})


def _documents(given: str | Path) -> list[dict[str, Any]]:
    try:
        text = given.read_text() if isinstance(given, Path) else given
        documents = [document for document in yaml.safe_load_all(text) if document is not None]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidInput(f"cannot be read as YAML: {error}") from None
    if not all(isinstance(document, dict) for document in documents):
        raise InvalidInput("is YAML, but not an object")
    return documents


def _compiled(policies: Sequence[CommandPolicy | Path | str] | None, namespace: str) -> list[CompiledPolicy]:
    objects: list[CommandPolicy] = []
    for given in policies if policies is not None else [_starter()]:
        if isinstance(given, CommandPolicy):
            objects.append(given)
        else:
            objects += [CommandPolicy.parse(document) for document in _documents(Path(given))]
    compiled = []
    for policy in objects:
        metadata = policy.metadata.model_copy(update={"namespace": namespace})
        found = compile_policy(policy.model_copy(update={"metadata": metadata}))
        if not found.ready:
            raise InvalidInput("; ".join(map(str, found.problems)), field=f"policy {metadata.name}")
        compiled.append(found)
    return compiled


def _starter() -> CommandPolicy:
    return CommandPolicy.parse({"metadata": {"name": "starter"}, "spec": STARTER})


def _abandon(where: Background, engine: Engine) -> None:
    """The agent is no more: nobody waits, for this may be called in any thread."""
    where.closing.discard(engine.close)
    try:
        where.submit(engine.close())
    except RuntimeError:  # the loop has gone with the process
        return


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def _no_releases() -> NoReturn:
    raise DeploymentError("this version of Remit makes no releases; use `docker` or `kubectl` until one does")
