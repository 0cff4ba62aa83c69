"""The embedded Kubernetes API server. Knows Kubernetes, knows nothing of tasks or releases."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.controlplane.http.reviews import ADMIN
    from remit.controlplane.server import ControlPlane
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["ADMIN", "ControlPlane"]
