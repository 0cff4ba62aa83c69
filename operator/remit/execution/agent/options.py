"""How a command may be run, by keyword. What each means, `ExecutionAgent.execute_command` says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from remit.api.executiontask import Network, Retry
from remit.api.result import ResourceLimits
from remit.execution.output import Listener


class SpecOptions(TypedDict, total=False):
    """Those that are written in the task as they are."""

    env: Mapping[str, str] | None
    cwd: str | None
    retry: int | Retry
    deadline: int | None
    network: Network | None


class RunOptions(SpecOptions, total=False):
    """And those that stand beside the task."""

    timeout: float | None
    resource_limits: ResourceLimits | None
    secrets: Mapping[str, str] | None
    stdin: str | bytes | None


class CommandOptions(RunOptions, total=False):
    """And who listens. (`cancel` belongs to who waits.)"""

    on_output: Listener | None
