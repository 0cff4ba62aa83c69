"""Turns what callers give an agent into what the engine takes. Reads the files that are named, and looks programs
up."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from remit.agent.starter import STARTER
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask, Network, Retry
from remit.api.manifest import TaskManifest, documents, task_object
from remit.api.references import references
from remit.api.result import ResourceLimits
from remit.errors import InvalidInput
from remit.execution import mountwords
from remit.execution.resolved import Resolved
from remit.operations.command import look_up
from remit.policy.argv import split_line
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.telemetry.encodings import excess, told_as


def task_of_command(
    command: str | Sequence[str],
    *,
    timeout: float | None = None,
    limits: ResourceLimits | None = None,
    env: Mapping[str, str] | None = None,
    cwd: str | None = None,
    retry: int | Retry = 0,
    deadline: int | None = None,
    network: Network | None = None,
    mounts: Sequence[str] = (),
    workspaces: Sequence[str] = (),
    artifacts: Sequence[str] = (),
) -> ExecutionTask:
    """Raises `InvalidInput`."""
    argv = split_line(command) if isinstance(command, str) else [str(word) for word in command]
    if timeout is not None and not (math.isfinite(timeout) and timeout > 0):
        raise InvalidInput(f"must be a number of seconds above 0, not {timeout!r}", field="timeout")
    retry = Retry(max_retries=retry) if isinstance(retry, int) else retry
    spec: dict[str, Any] = {
        "command": {"argv": present(argv)},
        "env": [{"name": name, "value": value} for name, value in (env or {}).items()],
        "retry": retry.model_dump(by_alias=True),
        "timeoutSeconds": None if timeout is None else max(1, math.ceil(timeout)),
        "deadlineSeconds": deadline,
        "resources": limits.as_resources().model_dump(by_alias=True) if limits else None,
        "workingDir": cwd,
        "network": network,
        "artifacts": mountwords.artifacts(artifacts),
        **mountwords.volumes(mounts, workspaces),
    }
    spec = {name: value for name, value in spec.items() if value is not None}
    return ExecutionTask.parse({"metadata": {"name": "command"}, "spec": spec})


def present(argv: list[str]) -> list[str]:
    """`python` is `python3` on a host that has only that."""
    if argv[:1] == ["python"] and look_up(argv).resolved is None and look_up(["python3"]).resolved is not None:
        return ["python3", *argv[1:]]
    return argv


def resolved_of(task: ExecutionTask, secrets: Mapping[str, str]) -> Resolved:
    spec = task.spec
    mounted = (f"volumes[{volume.name}]" for volume in spec.volumes if volume.config_map or volume.secret)
    wanted = next((path for path, _ in references(spec)), next(mounted, "envFrom" if spec.env_from else None))
    if wanted is not None:
        raise InvalidInput("refers to an object of an API server, and an agent has none; give secrets=", field=wanted)
    resolved = Resolved(env={variable.name: variable.value or "" for variable in spec.env} | dict(secrets))
    resolved.files = {file.path: (file.value or "").encode() for file in spec.private_files}
    resolved.secrets = {form for value in secrets.values() if value.strip() for form in told_as(value)}
    if too_much := excess(resolved.secrets):
        raise InvalidInput(too_much, field="secrets")
    return resolved


def task_of(given: TaskManifest) -> ExecutionTask:
    """Raises `InvalidInput`."""
    written = task_object(given)
    return ExecutionTask.parse({**written, "metadata": {"name": "task", **written["metadata"]}})


def compiled_policies(policies: Sequence[CommandPolicy | Path | str] | None, namespace: str) -> list[CompiledPolicy]:
    objects: list[CommandPolicy] = []
    for given in policies if policies is not None else [starter()]:
        if isinstance(given, CommandPolicy):
            objects.append(given)
        else:
            objects += [CommandPolicy.parse(document) for document in documents(Path(given))]
    compiled = []
    for policy in objects:
        metadata = policy.metadata.model_copy(update={"namespace": namespace})
        found = compile_policy(policy.model_copy(update={"metadata": metadata}))
        if not found.ready:
            raise InvalidInput("; ".join(map(str, found.problems)), field=f"policy {metadata.name}")
        compiled.append(found)
    return compiled


def starter() -> CommandPolicy:
    return CommandPolicy.parse({"metadata": {"name": "starter"}, "spec": STARTER})
