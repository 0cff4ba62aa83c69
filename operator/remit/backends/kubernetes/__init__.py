"""Run attempts as Jobs of a Kubernetes cluster."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.kubernetes.backend import KubernetesBackend
    from remit.backends.kubernetes.launcher import Launcher
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["KubernetesBackend", "Launcher"]
