"""Deployments: this version knows the kind and releases nothing. It says so, rather than let anyone wait for it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field

import structlog

from remit.api.base import Condition
from remit.api.deploymentstatus import DeploymentPhase, DeploymentStatus
from remit.errors import ApiError
from remit.reconcilers.cache import Cache
from remit.reconcilers.kube import DEPLOYMENTS, Kube, Object
from remit.reconcilers.status import Outdated, StatusWriter
from remit.telemetry import Metrics

log = structlog.get_logger(__name__)

MESSAGE = "this version of Remit releases nothing; the Deployment is kept, and nothing is done about it"


@dataclass
class DeploymentNotice:
    """Answers every generation of every Deployment once, with `Stalled`."""

    kube: Kube
    cache: Cache
    metrics: Metrics
    _writer: StatusWriter = field(init=False)

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.cache, self.metrics, DEPLOYMENTS, "Deployment")

    async def reconcile(self, key: str) -> None:
        """Write the answer unless it is there."""
        obj = self.cache.get(DEPLOYMENTS.plural, key)
        if obj is None or (obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"]:
            return
        try:
            await self._writer.write(obj, not_supported(obj))
        except (ApiError, Outdated) as error:
            # The next change or resync brings it here again.
            log.info("a Deployment's status could not be written", deployment=key, error=str(error))


def not_supported(obj: Object) -> DeploymentStatus:
    """The status that ends the wait of kubectl, Helm and GitOps tools."""
    generation = obj["metadata"]["generation"]
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return DeploymentStatus(
        observed_generation=generation,
        phase=DeploymentPhase.FAILED,
        message=MESSAGE,
        conditions=[
            Condition.model_validate(
                {
                    "type": type_,
                    "status": status,
                    "reason": "NotSupported",
                    "message": MESSAGE,
                    "lastTransitionTime": now,
                    "observedGeneration": generation,
                }
            )
            for type_, status in (("Reconciling", "False"), ("Stalled", "True"))
        ],
    )
