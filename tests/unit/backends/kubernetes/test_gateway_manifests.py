"""Tests the objects that are created for an attempt with a restricted network."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from policies import policy
from remit.backends.base import AttemptRequest, Command, TaskReference
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.kubernetes.gatewaymanifests import (
    as_made,
    behind_gateway,
    beside_job,
    gateway_job,
    gateway_policies,
    gateway_secret,
    gateway_url,
)
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.kubernetes.manifests import Secrets, enforcement_of, job, network_policy, runs
from remit.errors import SandboxUnavailable
from remit.sandbox import Confinement, Limits

LAUNCHER = Launcher("amd64", b"program")
EGRESS = policy("p", "data", networks=["restricted"], egress={"allow": [{"hosts": ["api.test"]}]}).egress
REQUEST = AttemptRequest(
    id="uid-1",
    command=Command(
        ("/bin/app",), "", env={"PLAIN": "x", "HTTPS_PROXY": "mine"}, public=frozenset({"PLAIN", "HTTPS_PROXY"})
    ),
    confinement=Confinement(limits=Limits(network_bytes_per_second=4096), network="restricted"),
    timeout_seconds=30,
    egress=(EGRESS,),
    image="base:1",
    pod={
        "serviceAccountName": "mighty",
        "runtimeClassName": "gvisor",
        "tolerations": [{"key": "a"}],
        "nodeSelector": {"pool": "tasks", "kubernetes.io/os": "windows"},
        "imagePullSecrets": ["registry"],
    },
    task=TaskReference("data", "nightly", "uid"),
    secret_versions={"s": "1"},
)
TOKEN = "0123456789abcdef"
URL = gateway_url("10.1.2.3", TOKEN)


def pod_labels(request: AttemptRequest = REQUEST) -> dict[str, str]:
    found: dict[str, str] = job(request, Secrets.of(request), LAUNCHER)["spec"]["template"]["metadata"]["labels"]
    return found


def gateway() -> dict[str, Any]:
    return gateway_job(REQUEST, "remit:1", "amd64")


def gateway_pod() -> dict[str, Any]:
    spec: dict[str, Any] = gateway()["spec"]["template"]["spec"]
    return spec


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    return set(selector) == {"matchLabels"} and selector["matchLabels"].items() <= labels.items()


def others() -> dict[str, dict[str, str]]:
    """Returns labels of pods that belong neither to the attempt nor to its gateway."""
    other = replace(REQUEST, id="uid-2")
    return {
        "attempt": pod_labels(other),
        "gateway": gateway_job(other, "remit:1", "amd64")["spec"]["template"]["metadata"]["labels"],
        "none": pod_labels(replace(REQUEST, confinement=Confinement(limits=Limits()))),
        "somebody": {"app": "x"},
    }


def test_the_attempt_reaches_its_gateway_and_nothing_else() -> None:
    """Not even a name server is reachable. A separate policy allows the connection, so that without it nothing is
    allowed."""
    everything, (own, _) = network_policy("data", "restricted"), gateway_policies(REQUEST)
    assert everything["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert not everything["spec"].keys() & {"ingress", "egress"}
    assert selects(everything["spec"]["podSelector"], pod_labels())
    assert not selects(everything["spec"]["podSelector"], others()["none"])

    assert own["spec"]["policyTypes"] == ["Egress"]
    assert selects(own["spec"]["podSelector"], pod_labels())
    ((rule),) = own["spec"]["egress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 3128}]
    (peer,) = rule["to"]
    assert peer.keys() == {"podSelector"}
    assert selects(peer["podSelector"], gateway()["spec"]["template"]["metadata"]["labels"])
    for name, labels in others().items():
        assert not selects(peer["podSelector"], labels), name
        assert name == "none" or not selects(own["spec"]["podSelector"], labels), name


def test_only_the_attempt_reaches_its_gateway() -> None:
    """The policy does not restrict where the gateway connects, and does not lift other restrictions of the
    namespace."""
    _, policy = gateway_policies(REQUEST)
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    assert "egress" not in policy["spec"]
    assert selects(policy["spec"]["podSelector"], gateway()["spec"]["template"]["metadata"]["labels"])
    assert not selects(policy["spec"]["podSelector"], pod_labels())
    (rule,) = policy["spec"]["ingress"]
    assert rule["ports"] == [{"protocol": "TCP", "port": 3128}]
    (peer,) = rule["from"]
    assert peer.keys() == {"podSelector"}
    assert selects(peer["podSelector"], pod_labels())
    assert not selects(peer["podSelector"], gateway()["spec"]["template"]["metadata"]["labels"])
    assert not [name for name, labels in others().items() if name != "none" and selects(peer["podSelector"], labels)]


def test_all_of_it_goes_with_the_task() -> None:
    made = [gateway(), gateway_secret(REQUEST, TOKEN), *gateway_policies(REQUEST)]
    assert [[owner["uid"] for owner in each["metadata"]["ownerReferences"]] for each in made] == [["uid"]] * 4
    named = {(each["kind"], each["metadata"]["name"]) for each in made}
    kinds = {"jobs": "Job", "secrets": "Secret", "networkpolicies": "NetworkPolicy"}
    assert named == {(kinds[resource.plural], name) for resource, name in beside_job("remit-uid-1")}


def test_the_gateway_has_the_rules_and_the_token_in_its_secret_only() -> None:
    made = gateway_secret(REQUEST, TOKEN)
    assert made["immutable"] is True
    config = GatewayConfig.load(base64.b64decode(made["data"]["config.json"]))
    assert config == GatewayConfig((EGRESS,), TOKEN, 4096)
    assert TOKEN not in json.dumps([gateway(), gateway_policies(REQUEST)])
    (volume,) = gateway_pod()["volumes"]
    assert volume["secret"]["secretName"] == made["metadata"]["name"]


def test_the_gateway_runs_once_with_no_more_rights_than_an_attempt() -> None:
    spec, pod = gateway()["spec"], gateway_pod()
    attempt = job(REQUEST, Secrets.of(REQUEST), LAUNCHER)["spec"]
    for field in ("backoffLimit", "completions", "parallelism", "podReplacementPolicy"):
        assert spec[field] == attempt[field]
    assert spec["activeDeadlineSeconds"] > attempt["activeDeadlineSeconds"]
    assert pod["securityContext"] == attempt["template"]["spec"]["securityContext"]
    (container,) = pod["containers"]
    assert container["image"] == "remit:1"
    assert container["securityContext"] == attempt["template"]["spec"]["containers"][0]["securityContext"]
    assert (pod["restartPolicy"], pod["automountServiceAccountToken"]) == ("Never", False)
    assert "serviceAccountName" not in pod
    assert "runtimeClassName" not in pod
    assert "hostNetwork" not in pod
    assert pod["tolerations"] == [{"key": "a"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert pod["nodeSelector"] == {"pool": "tasks", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64"}
    assert set(container["resources"]["limits"]) == {"cpu", "memory", "ephemeral-storage"}


def test_no_service_of_a_namespace_answers_for_a_host_of_the_same_name() -> None:
    assert {"name": "ndots", "value": "1"} in gateway_pod()["dnsConfig"]["options"]


def test_the_program_is_led_to_its_gateway_whatever_the_task_says() -> None:
    """The values of the variables are in the attempt's Secret, because they contain the token."""
    request = behind_gateway(REQUEST, URL)
    assert request.command.env["HTTPS_PROXY"] == request.command.env["http_proxy"] == URL
    assert request.command.env["NO_PROXY"] == "localhost,127.0.0.1,::1"
    secrets = Secrets.of(request)
    made = job(request, secrets, LAUNCHER)
    assert TOKEN not in json.dumps(made)
    assert TOKEN not in repr(request)
    env = {each["name"]: each for each in made["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env["PLAIN"]["value"] == "x"
    names = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"}
    assert {name for name in env if "valueFrom" in env[name]} == names | {name.lower() for name in names}


def test_a_job_is_recognised_without_its_token() -> None:
    made, known = behind_gateway(REQUEST, URL), as_made(REQUEST)
    assert runs(job(made, Secrets.of(made), LAUNCHER)) == runs(job(known, Secrets.of(known), LAUNCHER))
    host = replace(REQUEST, confinement=Confinement(limits=Limits(), network="host"))
    assert as_made(host) is host


@pytest.mark.parametrize(
    ("address", "url"),
    [("10.1.2.3", f"http://attempt:{TOKEN}@10.1.2.3:3128"), ("fd00::7", f"http://attempt:{TOKEN}@[fd00::7]:3128")],
)
def test_the_gateway_is_found_by_its_address(address: str, url: str) -> None:
    assert gateway_url(address, TOKEN) == url
    with pytest.raises(ValueError, match="evil"):
        gateway_url("evil.test", TOKEN)


def test_status_says_what_holds_the_network() -> None:
    held = enforcement_of(REQUEST.confinement).enforced_by
    assert held["network"].startswith("NetworkPolicy remit-network-restricted")
    assert held["network_bytes_per_second"] == "the egress proxy"
    loose = enforcement_of(REQUEST.confinement, isolated=False).enforced_by
    assert loose["network"] == loose["network_bytes_per_second"] == "not enforced"


@pytest.mark.parametrize("network", ["none", "host"])
def test_a_pace_is_held_by_a_gateway_only(network: Any) -> None:
    with pytest.raises(SandboxUnavailable, match="networkBytesPerSecond"):
        enforcement_of(replace(REQUEST.confinement, network=network))
