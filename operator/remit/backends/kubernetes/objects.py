"""The objects of the API that an attempt and its gateway both have. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

USER: Final = 65534
"""Nobody: as whom an attempt runs, whatever the image says."""
CONTAINER_SECURITY: Final[Mapping[str, Any]] = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}
"""With that of `one_pod_job`: the restricted Pod Security Standard."""
KEPT_SECONDS: Final = 24 * 3600
"""How long a Job stays that no operator has taken the end of."""
_POD_SECURITY: Final[Mapping[str, Any]] = {
    "runAsNonRoot": True,
    "runAsUser": USER,
    "runAsGroup": USER,
    "fsGroup": USER,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def one_pod_job(
    metadata: Mapping[str, Any],
    deadline_seconds: int,
    pod_labels: Mapping[str, str],
    options: Mapping[str, Any],
    architecture: str,
    pod: Mapping[str, Any],
) -> dict[str, Any]:
    """The Job that makes one pod, once. `options` are of `spec.pod`, and `pod` is the rest of the pod's spec."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": metadata,
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",
            "activeDeadlineSeconds": deadline_seconds,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {
                "metadata": {"labels": pod_labels},
                "spec": {
                    **_pod_options(options),
                    "restartPolicy": "Never",
                    "automountServiceAccountToken": "serviceAccountName" in options,
                    "enableServiceLinks": False,
                    "nodeSelector": {
                        **options.get("nodeSelector", {}),
                        "kubernetes.io/arch": architecture,
                        "kubernetes.io/os": "linux",
                    },
                    "securityContext": dict(_POD_SECURITY),
                    **pod,
                },
            },
        },
    }


def immutable_secret(metadata: Mapping[str, Any], data: Mapping[str, str]) -> dict[str, Any]:
    """`data` is in base64."""
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": metadata,
        "immutable": True,
        "data": data,
    }


def policy_of_network(metadata: Mapping[str, Any], spec: Mapping[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _pod_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options in the form of a pod's spec; `nodeSelector` is merged with ours."""
    names = ("tolerations", "runtimeClassName", "priorityClassName", "serviceAccountName")
    secrets = [{"name": name} for name in options.get("imagePullSecrets", ())]
    return {
        **{name: options[name] for name in names if name in options},
        **({"imagePullSecrets": secrets} if secrets else {}),
    }
