"""The Python API: the operator's engine for programs, without an API server."""

from remit.agent.agent import ExecutionAgent, Submission
from remit.agent.releases import DeploymentState
from remit.agent.rooms import (
    CommandRunner,
    DeploymentManager,
    ExecutionMonitor,
    ResourceLimiter,
    SandboxEnvironment,
    SystemOperations,
)
from remit.agent.streaming import Chunk
from remit.agent.targets import TargetManifest

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
