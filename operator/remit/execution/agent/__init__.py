"""The Python API: the operator's engine for programs, without an API server."""

from remit.execution.agent.agent import ExecutionAgent, Submission
from remit.execution.agent.releases import DeploymentState
from remit.execution.agent.rooms import (
    CommandRunner,
    DeploymentManager,
    ExecutionMonitor,
    ResourceLimiter,
    SandboxEnvironment,
    SystemOperations,
)
from remit.execution.agent.streaming import Chunk
from remit.execution.agent.targets import TargetManifest

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
