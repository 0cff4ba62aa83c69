"""The Python API: the operator's engine for programs, without an API server, and the client of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.agent.agent import ExecutionAgent, Submission
    from remit.agent.components import (
        CommandRunner,
        DeploymentManager,
        ExecutionMonitor,
        ResourceLimiter,
        SandboxEnvironment,
        SystemOperations,
    )
    from remit.agent.releases import DeploymentState
    from remit.agent.streaming import Chunk
    from remit.agent.targets import TargetManifest
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "Chunk",
    "CommandRunner",
    "DeploymentManager",
    "DeploymentState",
    "ExecutionAgent",
    "ExecutionMonitor",
    "ResourceLimiter",
    "SandboxEnvironment",
    "Submission",
    "SystemOperations",
    "TargetManifest",
]
