"""Tests how targets use a spec's settings about the end of instances and the protocols of their ports."""

from __future__ import annotations

from typing import Any

import pytest

from releases import snapshot, spec
from remit.api.deployment import Deployment, DeploymentSpec, protocol_of
from remit.policy.limits import Limits
from remit.release.judging import _process
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.desiredstate import DesiredSide, DesiredState, Published
from remit.release.targets.kubernetes.identity import WorkloadIdentity
from remit.release.targets.kubernetes.manifests import service, workload
from remit.release.targets.loadbalancer import route_of

PORTS = [{"name": "http", "containerPort": 8080}, {"name": "db", "containerPort": 5432}]


@pytest.mark.parametrize(
    ("check", "changes", "protocol"),
    [
        ({"tcp": {"port": "db"}}, {}, "tcp"),
        ({"tcp": {"port": 5432}}, {}, "tcp"),
        ({"tcp": {"port": "db"}}, {"appProtocol": "http"}, "http"),
        ({"http": {"port": "http"}}, {}, "http"),
        ({"http": {"port": "http"}}, {"appProtocol": "tcp"}, "tcp"),
    ],
)
def test_a_port_that_is_checked_by_a_connection_is_passed_through(
    check: dict[str, Any], changes: dict[str, Any], protocol: str
) -> None:
    declared = spec(ports=[PORTS[0], {**PORTS[1], **changes}], healthCheck=check)
    assert [protocol_of(declared, port) for port in declared.ports] == ["http", protocol]
    side = DesiredSide.of(Revision(1, snapshot(declared)))
    route = route_of("default/shop", DesiredState("blue", sides={"blue": side}))
    assert route is not None
    assert {entry.port: entry.protocol for entry in route.entries} == {8080: "http", 5432: protocol}


def test_what_is_live_decides_what_is_spoken_at_a_port() -> None:
    blue, green = (DesiredSide(n, (Published("p", 80, protocol),)) for n, protocol in ((1, "http"), (2, "tcp")))  # type: ignore[arg-type]
    for live, protocol in (("blue", "http"), ("green", "tcp")):
        for sides in ({"blue": blue, "green": green}, {"green": green, "blue": blue}):
            route = route_of("default/shop", DesiredState(live, sides=sides))  # type: ignore[arg-type]
            assert route is not None
            assert [entry.protocol for entry in route.entries] == [protocol]


@pytest.mark.parametrize(("seconds", "process", "pods"), [(None, 5, 35), (60, 60, 65), (0, 0, 5)])
def test_the_grace_period_reaches_instances(seconds: int | None, process: int, pods: int) -> None:
    grace = {} if seconds is None else {"terminationGracePeriodSeconds": seconds}
    declared = {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["shop"]}}, **grace}
    deployment = Deployment.parse({"metadata": {"name": "shop", "namespace": "default"}, "spec": declared})
    assert _process(deployment, Material(), ["shop"]).spec.termination_grace_period_seconds == process
    on_cluster = DeploymentSpec.model_validate(
        {"artifact": {"image": "shop"}, "target": {"kubernetes": {}}, "ports": [{**PORTS[0], "appProtocol": "http"}]}
        | grace
    )
    identity, revision = WorkloadIdentity("default", "shop", "uid", "default"), Revision(1, snapshot(on_cluster))
    made = workload(identity, "blue", revision, 1, Material(), Limits())
    assert made["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == pods
    assert service(identity, on_cluster, "blue", 0)["spec"]["ports"][0]["appProtocol"] == "http"


def test_on_a_cluster_the_checks_are_probes() -> None:
    checks = {"healthCheck": {"http": {"path": "/ready", "port": "http"}}, "livenessCheck": {"tcp": {"port": "http"}}}
    declared = {"artifact": {"image": "shop"}, "target": {"kubernetes": {}}, "ports": PORTS, **checks}
    revision = Revision(1, snapshot(DeploymentSpec.model_validate(declared)))
    made = workload(WorkloadIdentity("default", "shop", "uid", "default"), "blue", revision, 1, Material(), Limits())
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"] == {"path": "/ready", "port": 8080, "scheme": "HTTP"}
    assert container["livenessProbe"] == {
        "tcpSocket": {"port": 8080},
        "initialDelaySeconds": 0,
        "periodSeconds": 10,
        "timeoutSeconds": 2,
        "successThreshold": 1,
        "failureThreshold": 3,
    }
