"""Reads the end of a release from status, for callers that wait for it. Pure."""

from __future__ import annotations

from remit.api.deployment import Deployment
from remit.api.phases import DeploymentPhase
from remit.errors import DeploymentError


def over(deployment: Deployment) -> bool:
    """Returns whether the release of the current spec has ended, successfully or not."""
    status = deployment.status
    return (
        status.observed_generation == deployment.metadata.generation
        and status.phase is not None
        and any(each.type == "Reconciling" and each.status == "False" for each in status.conditions)
    )


def failure(deployment: Deployment) -> DeploymentError | None:
    """Why that end is a bad one; None where it is good, or where a rollback by request holds on purpose."""
    stalled = next((each for each in deployment.status.conditions if each.type == "Stalled"), None)
    if stalled is None or stalled.status != "True" or deployment.status.phase is DeploymentPhase.PINNED:
        return None
    return DeploymentError(f"deployment {deployment.key}: {stalled.message}", reason=stalled.reason)
