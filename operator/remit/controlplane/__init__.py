"""Floor 6: the embedded Kubernetes API server. Knows Kubernetes, knows nothing of tasks or releases."""

from remit.controlplane.http.reviews import ADMIN
from remit.controlplane.server import ControlPlane

__all__ = ["ADMIN", "ControlPlane"]
