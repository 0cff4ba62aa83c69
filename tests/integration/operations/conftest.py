"""Executes operations without an API server: policy, executor, output."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.backends.outcome import Outcome
from remit.errors import PolicyDenied
from remit.execution.operations import execute
from remit.operations.base import OperationExecutor, OperationRequest
from remit.policy.compile import compile_policy
from remit.policy.deciding import Decision, decide
from remit.policy.grant import Grant
from remit.policy.limits import Limits
from remit.policy.request import request_for
from servers import Server, valkey


@dataclass
class Kept:
    """The output of an operation."""

    stdout: bytes = b""
    stderr: bytes = b""

    def write(self, stream: str, chunk: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + chunk)


@dataclass
class Desk:
    """One policy, and an executor for operations that must be allowed by it."""

    executor: OperationExecutor
    policies: list[dict[str, Any]] = field(default_factory=list)
    ceilings: list[dict[str, Any]] = field(default_factory=list)
    output: Kept = field(default_factory=Kept)
    limits: Limits = field(default_factory=Limits)
    namespace: str = "ns"

    def decision(self, **operation: Any) -> Decision:
        grant = self._grant(operation)
        return decide(grant.request, grant.policies, grant.ceilings)

    def work(self, values: dict[str, bytes] | None = None, **operation: Any) -> OperationRequest:
        grant = self._grant(operation)
        assert grant.request.subject is not None
        return OperationRequest(
            "uid-1",
            self.namespace,
            "t",
            grant,
            timeout_seconds=30,
            limits=self.limits,
            values=values or {},
        )

    async def do(self, values: dict[str, bytes] | None = None, **operation: Any) -> str:
        """Decides on an operation and performs it. Raises `PolicyDenied` if a task with it would end as Denied."""
        work, self.output = self.work(values, **operation), Kept()
        decision = decide(work.grant.request, work.grant.policies, work.grant.ceilings)
        if not decision.allowed:
            raise PolicyDenied(decision.message)
        return await self.executor.execute(work, self.output)

    async def attempt(
        self, values: dict[str, bytes] | None = None, *, seconds: float = 30, **operation: Any
    ) -> Outcome:
        """Returns the outcome of an attempt, as the state machine receives it."""
        work = replace(self.work(values, **operation), timeout_seconds=seconds)
        return await execute(self.executor, work, self.output, asyncio.Event())

    def _grant(self, operation: dict[str, Any]) -> Grant:
        task = ExecutionTask.parse({"metadata": {"name": "t", "namespace": self.namespace}, "spec": operation})
        compiled = [_compiled(spec, self.namespace, index) for index, spec in enumerate(self.policies)]
        ceilings = [_compiled(spec, "remit-system", index) for index, spec in enumerate(self.ceilings)]
        return Grant(request_for(task, None), compiled, ceilings)


def _compiled(spec: dict[str, Any], namespace: str, index: int) -> Any:
    return compile_policy(
        CommandPolicy.parse({"metadata": {"name": f"p{index}", "namespace": namespace}, "spec": spec})
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Provides a folder in which file operations are allowed. Files beside it are not."""
    place = tmp_path / "allowed"
    place.mkdir()
    return place


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    server, url = valkey(tmp_path_factory.mktemp("valkey"))
    server.start()
    yield server, url
    server.stop()
