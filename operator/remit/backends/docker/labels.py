"""How Remit marks what it makes on a Docker engine."""

from __future__ import annotations

from collections.abc import Mapping

NAMESPACE = "remit.dev/namespace"
TASK = "remit.dev/task"
UID = "remit.dev/task-uid"
ATTEMPT = "remit.dev/attempt"
"""Only on the container in which the backend runs an attempt: none but the operator may touch it."""


def is_own(labels: Mapping[str, str] | None, namespace: str) -> bool:
    """Whether a container operation of `namespace` made it."""
    found = labels or {}
    return found.get(NAMESPACE) == namespace and UID in found and ATTEMPT not in found
