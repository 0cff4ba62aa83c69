"""The Kubernetes target: two `apps/v1` Deployments, and a Service that selects the pods of one or of both."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.targets.kubernetes.cluster import Cluster
    from remit.release.targets.kubernetes.identity import WorkloadIdentity
    from remit.release.targets.kubernetes.revisions import ClusterRevisions
    from remit.release.targets.kubernetes.target import KubernetesTarget
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["Cluster", "ClusterRevisions", "KubernetesTarget", "WorkloadIdentity"]
