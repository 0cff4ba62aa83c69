"""Builds the objects in the cluster: a workload for each side, and the Services. Pure.

A Service has no weights. While both sides get requests, it selects the pods of both sides whose label `serving` is
true; pods beyond the share have it set to false. The label is not part of a workload selector, so changing it does not
orphan pods. New pods carry it by default, so a side that loses pods while the operator is down still receives requests.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from remit.api.deployment import DeploymentSpec, HealthCheck
from remit.api.group import GROUP
from remit.api.slots import Slot
from remit.policy.limits import Limits
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.health import port_of
from remit.release.targets.kubernetes.cluster import Object
from remit.release.targets.kubernetes.identity import CONTAINER, REVISION, SLOT, WorkloadIdentity
from remit.release.targets.kubernetes.revisions import env_key, file_keys

LIVE: Final = f"{GROUP}/live"
SHARE: Final = f"{GROUP}/share"
DRAINING: Final = f"{GROUP}/draining"
SERVING: Final = f"{GROUP}/serving"
LEAVING_SECONDS: Final = 5
"""How long a pod serves on after it was told to go: until every node has heard that it does."""
GRACE_SECONDS: Final = 30
"""How long a pod may take to end after that, where the spec does not say."""
_NOWHERE: Final = "none"


def workload(
    identity: WorkloadIdentity, slot: Slot, revision: Revision, replicas: int, material: Material, limits: Limits
) -> Object:
    """The `apps/v1` Deployment of one side."""
    spec, pods = revision.snapshot.spec, {**identity.marks, SLOT: slot}
    annotations = {REVISION: str(revision.number), DRAINING: "false"}
    template = identity.metadata(identity.workload(slot), slot=slot, revision=str(revision.number), serving="true")
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": identity.metadata(identity.workload(slot), annotations, slot=slot),
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 0,
            "selector": {"matchLabels": pods},
            "template": {
                "metadata": {"labels": template["labels"]},
                "spec": _pod(identity, revision.number, spec, material, limits),
            },
        },
    }


def service(identity: WorkloadIdentity, spec: DeploymentSpec, live: Slot | None, share: int) -> Object:
    """The Service that clients use; its annotations say what it was told, for whoever comes after."""
    chosen = {SERVING: "true"} if live is not None and share else {SLOT: live or _NOWHERE}
    return _service(identity, identity.service, spec, chosen, {LIVE: live or _NOWHERE, SHARE: str(share)})


def preview_service(identity: WorkloadIdentity, spec: DeploymentSpec, slot: Slot | None) -> Object:
    return _service(identity, identity.preview, spec, {SLOT: slot or _NOWHERE}, {LIVE: slot or _NOWHERE})


def serving_of(share: int, others: int, pods: Iterable[str]) -> dict[str, bool]:
    """Which of the `pods` of the side with `share` percent serve beside `others` pods of the other one: at least one,
    so that a share is never nothing, and the first by name, so that the same ones go on serving."""
    names = sorted(pods)
    wanted = len(names) if share >= 100 else max(1, round(others * share / (100 - share)))
    return {name: place < wanted for place, name in enumerate(names)}


def _service(
    identity: WorkloadIdentity,
    name: str,
    spec: DeploymentSpec,
    chosen: Mapping[str, str],
    annotations: Mapping[str, str],
) -> Object:
    ports = [
        {
            "name": port.name,
            "port": port.published or port.container_port,
            "targetPort": port.container_port,
            "protocol": "TCP",
            **({"appProtocol": port.app_protocol} if port.app_protocol else {}),
        }
        for port in spec.ports
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": identity.metadata(name, annotations),
        "spec": {
            "selector": {**identity.marks, **chosen},
            **({"ports": ports, "type": "ClusterIP"} if ports else {"clusterIP": "None"}),
        },
    }


def _pod(identity: WorkloadIdentity, number: int, spec: DeploymentSpec, material: Material, limits: Limits) -> Object:
    target = spec.target.kubernetes
    assert target is not None  # noqa: S101  # by its place
    volumes, mounts = _files(identity, number, material)
    grace = spec.termination_grace_period_seconds
    container: Object = {
        "name": CONTAINER,
        "image": spec.artifact.image,
        "imagePullPolicy": spec.artifact.pull_policy,
        "ports": [{"name": port.name, "containerPort": port.container_port} for port in spec.ports],
        "env": [
            {"name": name, "valueFrom": {"secretKeyRef": {"name": identity.revision(number), "key": env_key(name)}}}
            for name in material.env
        ],
        "resources": _resources(limits),
        "volumeMounts": mounts,
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVING_SECONDS}}},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if target.command:
        container["command"] = target.command
    if spec.health_check is not None:
        container["readinessProbe"] = _probe(spec.health_check, spec)
    if spec.liveness_check is not None:
        container["livenessProbe"] = _probe(spec.liveness_check, spec)
    return {
        "containers": [container],
        "volumes": volumes,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": LEAVING_SECONDS + (GRACE_SECONDS if grace is None else grace),
        "imagePullSecrets": [{"name": name} for name in spec.artifact.pull_secrets or ()],
        **(
            {"serviceAccountName": target.service_account_name}
            if target.service_account_name
            else {"automountServiceAccountToken": False}
        ),
    }


def _files(identity: WorkloadIdentity, number: int, material: Material) -> tuple[list[Object], list[Object]]:
    """A volume for each folder, all from the revision's own Secret."""
    folders: dict[str, list[Object]] = {}
    for path, key in file_keys(material).items():
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append({"key": key, "path": name})
    volumes: list[Object] = []
    mounts: list[Object] = []
    for place, (folder, items) in enumerate(sorted(folders.items())):
        secret = {"secretName": identity.revision(number), "items": items, "defaultMode": 0o444}
        volumes.append({"name": f"files-{place}", "secret": secret})
        mounts.append({"name": f"files-{place}", "mountPath": folder, "readOnly": True})
    return volumes, mounts


def _resources(limits: Limits) -> Object:
    """The resources of a pod. It requests what it may use: it then fares on a full node as it does on an empty one."""
    given = {}
    if limits.cpu is not None:
        given["cpu"] = f"{round(limits.cpu * 1000)}m"
    if limits.memory is not None:
        given["memory"] = str(limits.memory)
    return {"requests": given, "limits": given} if given else {}


def _probe(check: HealthCheck, spec: DeploymentSpec) -> Object:
    ports = {port.name: port.container_port for port in spec.ports}
    if check.http is not None:
        http = check.http
        how: Object = {"httpGet": {"path": http.path, "port": port_of(http.port, ports), "scheme": http.scheme}}
    elif check.tcp is not None:
        how = {"tcpSocket": {"port": port_of(check.tcp.port, ports)}}
    else:
        how = {"exec": {"command": check.command.argv if check.command else []}}
    return how | {
        "initialDelaySeconds": check.initial_delay_seconds,
        "periodSeconds": check.period_seconds,
        "timeoutSeconds": check.timeout_seconds,
        "successThreshold": check.success_threshold,
        "failureThreshold": check.failure_threshold,
    }
