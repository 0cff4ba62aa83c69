"""How Remit marks what it makes on a Docker engine."""

from __future__ import annotations

from collections.abc import Mapping

NAMESPACE = "remit.dev/namespace"
TASK = "remit.dev/task"
UID = "remit.dev/task-uid"
ATTEMPT = "remit.dev/attempt"
"""Only on the container in which the backend runs an attempt: none but the operator may touch it."""
DEPLOYMENT = "remit.dev/deployment"
DEPLOYMENT_UID = "remit.dev/deployment-uid"
REVISION = "remit.dev/revision"
SLOT = "remit.dev/slot"
INDEX = "remit.dev/index"
"""Label of a Deployment's container with its index."""
LEASE_TRANSITIONS = "remit.dev/lease-transitions"
"""Label with the transition of the Lease under which the container was created, if there is leader election."""
NETWORK_OF = "remit.dev/network-of"
"""Label of the network of a namespace's replicas with that namespace."""


def is_own(labels: Mapping[str, str] | None, namespace: str) -> bool:
    """Whether a container operation of `namespace` made it."""
    found = labels or {}
    return found.get(NAMESPACE) == namespace and UID in found and not {ATTEMPT, DEPLOYMENT_UID} & found.keys()
