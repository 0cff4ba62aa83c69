"""Run attempts as Jobs of a Kubernetes cluster."""

from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.launcher import Launcher

__all__ = ["KubernetesBackend", "Launcher"]
