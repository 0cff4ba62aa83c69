"""Names a Deployment's objects in the cluster, and tells them from others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remit.api.group import GROUP, VERSION
from remit.api.slots import Slot
from remit.errors import DeploymentError

SLOT: Final = f"{GROUP}/slot"
REVISION: Final = f"{GROUP}/revision"
CONTAINER: Final = "app"
"""The name of the container in the pod of each instance."""
_NAMESPACE: Final = f"{GROUP}/namespace"
_DEPLOYMENT: Final = f"{GROUP}/deployment"
_LONGEST_NAME: Final = 63 - len("-preview")


@dataclass(frozen=True, slots=True)
class WorkloadIdentity:
    """The Deployment `name` of remit.dev in `namespace`, whose pods run in the namespace `place`.

    Raises DeploymentError for a name that no Service can have.
    """

    namespace: str
    name: str
    uid: str
    place: str

    def __post_init__(self) -> None:
        if len(self.name) > _LONGEST_NAME or "." in self.name:
            message = (
                f"metadata.name: a Service is named after it, so on Kubernetes it has at most {_LONGEST_NAME}"
                " characters and no dot; create it under another name"
            )
            raise DeploymentError(message, reason="InvalidName")

    @property
    def service(self) -> str:
        return self.name

    @property
    def preview(self) -> str:
        return f"{self.name}-preview"

    def workload(self, slot: Slot) -> str:
        return f"{self.name}-{slot}"

    def revision(self, number: int) -> str:
        """The name of a ControllerRevision, and of the Secret with its configuration."""
        return f"{self.name}-revision-{number}"

    @property
    def marks(self) -> Mapping[str, str]:
        """The labels of all that is its own."""
        return {_NAMESPACE: self.namespace, _DEPLOYMENT: self.name}

    @property
    def selector(self) -> str:
        return ",".join(f"{name}={value}" for name, value in self.marks.items())

    def owns(self, thing: Mapping[str, Any]) -> bool:
        return self.marks.items() <= (thing["metadata"].get("labels") or {}).items()

    def metadata(self, name: str, annotations: Mapping[str, str] | None = None, **labels: str) -> dict[str, Any]:
        """Metadata of an object. In the Deployment's namespace it is owned by it, so both are deleted together."""
        owner = {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "Deployment",
            "name": self.name,
            "uid": self.uid,
            "controller": True,
            "blockOwnerDeletion": False,
        }
        return {
            "name": name,
            "namespace": self.place,
            "labels": {
                "app.kubernetes.io/name": self.name,
                "app.kubernetes.io/managed-by": "remit",
                **self.marks,
                **{f"{GROUP}/{label}": value for label, value in labels.items()},
            },
            "annotations": dict(annotations or {}),
            **({"ownerReferences": [owner]} if self.place == self.namespace else {}),
        }
