"""The objects that the API server is asked to make for `network: restricted`. Pure.

Beside the attempt's Job there is another one, whose pod is the egress gateway: a NetworkPolicy is about whole pods, so
the program and the gateway cannot share one. A NetworkPolicy of the namespace's, which nobody deletes, lets pods with
`network: restricted` neither speak nor hear; one of the attempt's lets its pod speak to its gateway, and to no name
server; one of the gateway's lets that hear the attempt's pod only. Which pods are meant is said by labels, so whoever
may make pods in the namespace can make one that is meant, too: the token keeps it from being served.
"""

from __future__ import annotations

import base64
import ipaddress
from dataclasses import replace
from typing import Any, Final

from remit.api.endpoint import Resource
from remit.backends.base import AttemptRequest
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.egress.listener import PORT, proxy_variables
from remit.backends.egress.targets import PROXY_USER
from remit.backends.kubernetes import labels
from remit.backends.kubernetes.manifests import COLLECTING_SECONDS, SPARE_SECONDS, metadata_of
from remit.backends.kubernetes.objects import (
    CONTAINER_SECURITY,
    immutable_secret,
    one_pod_job,
    policy_of_network,
)
from remit.kube.client import JOBS, NETWORK_POLICIES, SECRETS

CONTAINER: Final = "gateway"
_CONFIG: Final = "config.json"
_FOLDER: Final = "/run/remit"
_GRACE_SECONDS: Final = 10
_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "64Mi", "ephemeral-storage": "0"},
    "limits": {"cpu": "1", "memory": "256Mi", "ephemeral-storage": "128Mi"},
}
"""It takes some 40 MiB, and at most 64 connections with 256 KiB each."""
_POD_OPTIONS: Final = frozenset({"tolerations", "priorityClassName", "imagePullSecrets", "nodeSelector"})
"""What of `spec.pod` is about the gateway's pod, too: where it runs, and how it gets its image."""


def gateway_id(attempt_id: str) -> str:
    """The id of an attempt's gateway, as the attempt has an id of its own."""
    return f"{attempt_id}-egress"


def gateway_name(job: str) -> str:
    """The name of the Job, the Secret and the NetworkPolicy of the gateway of the attempt whose Job is `job`. The
    attempt's own NetworkPolicy has the name of its Job."""
    return gateway_id(job)


def gateway_secret(request: AttemptRequest, token: str) -> dict[str, Any]:
    """The rules as they were judged, and the token."""
    config = GatewayConfig(request.egress, token, request.confinement.limits.network_bytes_per_second)
    return immutable_secret(_metadata(request), {_CONFIG: base64.b64encode(config.dumped()).decode()})


def gateway_policies(request: AttemptRequest) -> list[dict[str, Any]]:
    """The NetworkPolicies besides the namespace's own (`manifests.network_policy`): the attempt's, then its gateway's.
    The latter says nothing of where the gateway connects: what a namespace lets its pods reach is not widened, and to
    keep to the rules is the gateway's own affair."""
    attempt, gateway = metadata_of(request)["labels"], _metadata(request)["labels"]
    ports = [{"protocol": "TCP", "port": PORT}]
    peer = {"podSelector": {"matchLabels": gateway}}
    return [
        policy_of_network(
            metadata_of(replace(request, secret_versions={})),
            {
                "podSelector": {"matchLabels": attempt},
                "policyTypes": ["Egress"],
                "egress": [{"to": [peer], "ports": ports}],
            },
        ),
        policy_of_network(
            _metadata(request),
            {
                "podSelector": {"matchLabels": gateway},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": attempt}}], "ports": ports}],
            },
        ),
    ]


def gateway_job(request: AttemptRequest, image: str, architecture: str) -> dict[str, Any]:
    """The Job whose one pod is the gateway. `image`: Remit's own. It outlives the attempt's Job, and nobody's end waits
    for it."""
    metadata = _metadata(request)
    pod = {name: value for name, value in request.pod.items() if name in _POD_OPTIONS}
    longest = int(request.timeout_seconds + request.grace_seconds) + COLLECTING_SECONDS + 2 * SPARE_SECONDS
    return one_pod_job(
        metadata,
        longest,
        metadata["labels"],
        pod,
        architecture,
        {
            "terminationGracePeriodSeconds": _GRACE_SECONDS,
            # With ndots 1, a name with a dot is resolved as an absolute name first, so that no Service can answer in
            # place of a host.
            "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
            "containers": [_container(image)],
            "volumes": [{"name": "config", "secret": {"secretName": metadata["name"], "defaultMode": 0o444}}],
        },
    )


def behind_gateway(request: AttemptRequest, url: str = "") -> AttemptRequest:
    """The attempt with the variables that lead to its gateway, which a task cannot change. They go into its Secret,
    because the token is in them. Without `url`: what is made for it has the same names, and nothing else is right."""
    variables = proxy_variables(url)
    command = request.command
    env = {**command.env, **variables}
    return replace(request, command=replace(command, env=env, public=command.public - variables.keys()))


def as_made(request: AttemptRequest) -> AttemptRequest:
    """The request as it was when the attempt's Job and Secret were made: behind the gateway if the network is
    restricted."""
    return behind_gateway(request) if request.confinement.network == "restricted" else request


def beside_job(job: str) -> list[tuple[Resource, str]]:
    """The objects beside the Job of an attempt with a restricted network."""
    name = gateway_name(job)
    return [(JOBS, name), (SECRETS, name), (NETWORK_POLICIES, job), (NETWORK_POLICIES, name)]


def gateway_url(pod_ip: str, token: str) -> str:
    """By the pod's address: the attempt has no name server. Raises ValueError where it is none."""
    address = ipaddress.ip_address(pod_ip)
    host = f"[{address}]" if address.version == 6 else str(address)
    return f"http://{PROXY_USER}:{token}@{host}:{PORT}"


def _metadata(request: AttemptRequest) -> dict[str, Any]:
    metadata = metadata_of(replace(request, id=gateway_id(request.id), secret_versions={}))
    return {**metadata, "labels": {**metadata["labels"], **labels.GATEWAY}}


def _container(image: str) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "-I", "-m", "remit.backends.egress.gateway", f"{_FOLDER}/{_CONFIG}"],
        "workingDir": "/",  # only the image's user may be able to enter the image's working directory
        "resources": _RESOURCES,
        "ports": [{"name": "proxy", "containerPort": PORT, "protocol": "TCP"}],
        "securityContext": dict(CONTAINER_SECURITY),
        "volumeMounts": [{"name": "config", "mountPath": _FOLDER, "readOnly": True}],
    }
