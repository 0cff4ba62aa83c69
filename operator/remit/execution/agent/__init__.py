"""The Python API: the operator's engine for programs, without an API server."""

from remit.execution.agent.agent import ExecutionAgent, Submission
from remit.execution.agent.rooms import (
    CommandRunner,
    DeploymentManager,
    ExecutionMonitor,
    ResourceLimiter,
    SandboxEnvironment,
    SystemOperations,
)
from remit.execution.agent.streaming import Chunk

__all__ = [
    "Chunk",
    "CommandRunner",
    "DeploymentManager",
    "ExecutionAgent",
    "ExecutionMonitor",
    "ResourceLimiter",
    "SandboxEnvironment",
    "Submission",
    "SystemOperations",
]
