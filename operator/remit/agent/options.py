"""How a command may be run, by keyword. What each means, `ExecutionAgent.execute_command` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from remit.api.executiontask import Network, Retry
from remit.api.result import ResourceLimits
from remit.execution.output import Listener


class RunOptions(TypedDict, total=False):
    """Options of every call that runs a command."""

    timeout: float | None
    resource_limits: ResourceLimits | None
    env: Mapping[str, str] | None
    secrets: Mapping[str, str] | None
    stdin: str | bytes | None
    cwd: str | None
    retry: int | Retry
    deadline: int | None
    network: Network | None
    mounts: Sequence[str]
    workspaces: Sequence[str]
    artifacts: Sequence[str]


class CommandOptions(RunOptions, total=False):
    """And who listens. (`cancel` belongs to who waits.)"""

    on_output: Listener | None
