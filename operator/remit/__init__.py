"""Remit turns YAML into governed work: tasks run in a sandbox, releases are blue-green, policy alone says yes.

The names below are the Python API (docs/python-api.md). Each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from remit.agent import (
        CommandRunner,
        DeploymentManager,
        ExecutionAgent,
        ExecutionMonitor,
        ResourceLimiter,
        SandboxEnvironment,
        SystemOperations,
    )
    from remit.api.result import ExecutionResult, ResourceLimits
    from remit.errors import (
        DeploymentError,
        ExecutionError,
        ResourceError,
        SecurityError,
        TimeoutError,
    )
    from remit.errors import (
        SecurityError as SecurityException,
    )
    from remit.errors import (
        TimeoutError as TimeoutException,
    )

__version__ = "0.1.0"

__all__ = [
    "CommandRunner",
    "DeploymentError",
    "DeploymentManager",
    "ExecutionAgent",
    "ExecutionError",
    "ExecutionMonitor",
    "ExecutionResult",
    "ResourceError",
    "ResourceLimiter",
    "ResourceLimits",
    "SandboxEnvironment",
    "SecurityError",
    "SecurityException",
    "SystemOperations",
    "TimeoutError",
    "TimeoutException",
]

_ALIASES: Final = {"SecurityException": "SecurityError", "TimeoutException": "TimeoutError"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'remit' has no attribute {name!r}")
    actual = _ALIASES.get(name, name)
    if actual.endswith("Error"):
        module = "remit.errors"
    elif actual in {"ExecutionResult", "ResourceLimits"}:
        module = "remit.api.result"
    else:
        module = "remit.agent"
    found = globals()[name] = getattr(import_module(module), actual)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
