"""Tests the requests to an engine for a replica, and how its responses are interpreted."""

from __future__ import annotations

import io
import ipaddress
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.deployment import DeploymentSpec
from remit.errors import DeploymentError
from remit.policy.limits import Limits
from remit.release.model import Revision, Snapshot
from remit.release.target import Material
from remit.release.targets.docker.connection import _is_apart, check_supported
from remit.release.targets.docker.containers import Container, End
from remit.release.targets.docker.files import sealed
from remit.release.targets.docker.network import Network, assigned
from remit.release.targets.docker.planning import Owner, Reach, Replica, creation
from remit.release.targets.docker.reading import found, goes_on, listening, trouble
from remit.release.targets.health import Health

OWNER = Owner("default", "shop", "uid")
INFO = {"InitBinary": "docker-init", "InitCommit": {"ID": "abc"}}


def spec(**changes: Any) -> DeploymentSpec:
    written = {
        "artifact": {"image": "shop:v1"},
        "target": {"docker": {}},
        "ports": [{"name": "http", "containerPort": 8080, "published": 80}],
        **changes,
    }
    return DeploymentSpec.model_validate(written)


def config(reach: Reach = Reach(), material: Material | None = None, **changes: Any) -> dict[str, Any]:  # noqa: B008
    replica = Replica(
        OWNER, "blue", 1, Revision(3, Snapshot("shop:v1", spec(**changes), "x")), "sha256:1", "net", "10.0.0.9"
    )
    return creation(replica, material or Material(), Limits(memory=5, cpu=0.5, pids=7), reach, INFO)


def container(status: str, **told: Any) -> Container:
    state = {
        "Status": status,
        "StartedAt": "2026",
        "ExitCode": 3,
        "Error": "",
        "OOMKilled": False,
        **told.pop("state", {}),
    }
    labels = {"remit.dev/revision": "3"}
    return Container({"Id": "1", "Name": "/x", "State": state, "RestartCount": 2, "Config": {"Labels": labels}, **told})


def test_the_image_has_its_say_unless_there_is_a_command():
    assert {"Entrypoint", "Cmd", "User"} & config().keys() == set()
    told = config(target={"docker": {"command": ["run", "fast"]}})
    assert (told["Entrypoint"], told["Cmd"]) == (["run"], ["fast"])


def test_nothing_is_published_where_a_replica_has_an_address():
    local, remote = config(), config(Reach("192.0.2.1"))
    assert local["HostConfig"]["PortBindings"] == {}
    assert local["NetworkingConfig"]["EndpointsConfig"]["net"]["IPAMConfig"] == {"IPv4Address": "10.0.0.9"}
    assert remote["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "", "HostPort": ""}]}


def test_what_no_replica_gets():
    host = config()["HostConfig"]
    assert (host["CapDrop"], host["SecurityOpt"], host["IpcMode"]) == (["ALL"], ["no-new-privileges"], "private")
    assert {"Privileged", "CapAdd", "Devices", "Binds", "PidMode", "UsernsMode"} & host.keys() == set()
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (5, 5, 500_000_000, 8)


def test_files_are_in_no_configuration():
    material = Material(files={"/run/shop/token": b"canary", "/etc/shop/a": b"b"})
    told = config(material=material)
    assert [mount["Target"] for mount in told["HostConfig"]["Mounts"]] == ["/etc/shop", "/run/shop"]
    assert "canary" not in str(told)
    with tarfile.open(fileobj=io.BytesIO(sealed(material.files))) as tar:
        assert {entry.name: (entry.mode, entry.uid) for entry in tar} == {
            "etc/shop": (0o555, 65533),
            "run/shop": (0o555, 65533),
            "run/shop/token": (0o444, 65533),
            "etc/shop/a": (0o444, 65533),
        }
    with pytest.raises(DeploymentError, match="mountPath"):
        config(material=Material(files={"/token": b""}))


def test_a_command_that_checks_is_the_engines():
    assert config()["Healthcheck"] == {"Test": ["NONE"]}
    check = {"command": {"argv": ["true"]}, "periodSeconds": 2, "failureThreshold": 4}
    told = config(healthCheck=check)["Healthcheck"]
    assert (told["Test"], told["Interval"], told["Retries"]) == (["CMD", "true"], 2_000_000_000, 4)


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ({"host": "tcp://engine:2376"}, "needs tlsSecret"),
        ({"host": "tcp://engine:port", "tlsSecret": "s"}, "ort"),
        ({"host": "ssh://a:secret@engine"}, "ssh://[USER@]HOST[:PORT]"),
        ({"host": "ssh://engine/var/run/docker.sock"}, "ssh://[USER@]HOST[:PORT]"),
        ({"host": "ssh://"}, "HOST"),
        ({"host": "ssh://-oProxyCommand=x"}, "HOST"),
        ({"host": "ssh://-l@engine"}, "HOST"),
        ({"host": "ssh://a;b@engine"}, "HOST"),
        ({"host": "tcp://root@engine", "tlsSecret": "s"}, "leave out root@"),
        ({"host": "unix://relative"}, "unix:///PATH"),
    ],
)
def test_engines_that_are_refused(target, says):
    with pytest.raises(DeploymentError) as caught:
        check_supported(spec(target={"docker": target}))
    assert says in str(caught.value)
    assert (caught.value.reason, "secret@" in str(caught.value)) == ("NotSupported", False)


@pytest.mark.parametrize(
    "host", ["unix:///run/user/1000/docker.sock", "ssh://deploy@engine:22", "ssh://engine", "ssh://[2001:db8::1]:22"]
)
def test_engines_that_are_not(host):
    check_supported(spec(target={"docker": {"host": host}}))
    check_supported(spec(target={"docker": {"host": "tcp://engine", "tlsSecret": "s"}}))
    check_supported(spec(target={"process": {"command": ["x"]}}, artifact={"path": "/x"}))


def test_a_threshold_that_the_engine_does_not_know():
    check = {"command": {"argv": ["true"]}, "successThreshold": 2}
    with pytest.raises(DeploymentError, match="successThreshold"):
        check_supported(spec(healthCheck=check))


NETWORK = Network("net", ipaddress.IPv4Network("10.9.0.0/28"), frozenset({"10.9.0.3", "10.9.0.7"}))
NAMES = st.lists(st.text(min_size=1), unique=True, max_size=11)


@given(NAMES, st.randoms(use_true_random=False))
def test_addresses_are_given_once_and_to_hosts_alone(names, random):
    given_out = assigned(NETWORK, names)
    addresses = {ipaddress.ip_address(each) for each in given_out.values()}
    assert given_out.keys() == set(names)
    assert len(addresses) == len(names)
    assert addresses <= set(NETWORK.subnet.hosts()) - {NETWORK.subnet[1]}
    assert not {str(each) for each in addresses} & NETWORK.used
    # A container that is recreated alone gets its previous address.
    for name in names[:1]:
        others = frozenset(address for other, address in given_out.items() if other != name)
        assert assigned(Network("net", NETWORK.subnet, NETWORK.used | others), [name])[name] == given_out[name]


def test_a_network_that_is_full():
    with pytest.raises(DeploymentError, match="no address left"):
        assigned(NETWORK, map(str, range(12)))


def test_where_a_replica_listens():
    endpoint = {"remit_default_1": {"IPAddress": "", "IPAMConfig": {"IPv4Address": "10.0.0.9"}}}
    bindings = [{"HostIp": "::", "HostPort": "7"}, {"HostIp": "0.0.0.0", "HostPort": "8"}]
    there = container("running", NetworkSettings={"Networks": endpoint, "Ports": {"8080/tcp": bindings}})
    gone = container("exited", NetworkSettings={"Networks": endpoint, "Ports": {}})
    assert listening(there, spec(), Reach()) == ("10.0.0.9", {"http": 8080})
    assert listening(gone, spec(), Reach()) == ("10.0.0.9", {"http": 8080})
    assert listening(there, spec(), Reach("192.0.2.1")) == ("192.0.2.1", {"http": 8})
    assert listening(there, spec(), Reach("2001:db8::1")) == ("2001:db8::1", {"http": 7})
    assert listening(gone, spec(), Reach("192.0.2.1")) == ("192.0.2.1", {})
    assert listening(None, spec(), Reach()) == ("", {})


@pytest.mark.parametrize(
    ("status", "on", "kept", "alive"),
    [
        ("running", True, True, True),
        ("restarting", True, True, False),
        ("paused", True, True, False),
        ("created", False, True, False),
        ("exited", False, False, False),
        ("dead", False, True, False),
    ],
)
def test_what_the_engines_words_mean(status, on, kept, alive):
    seen = found(container(status), Health(healthy=True), located=True)
    assert (goes_on(container(status), 3), seen.kept, seen.alive, seen.restarts) == (on, kept, alive, 2)
    assert not goes_on(container(status), 4)


@pytest.mark.parametrize(
    ("status", "health", "located", "says"),
    [
        ("restarting", Health(), True, "out of memory: exit code 137: last"),
        ("paused", Health(), True, "it is paused on the engine"),
        ("running", Health(healthy=True), False, "the engine does not publish all of its ports"),
        (
            *("running", Health(unhealthy=True, message="answered 500"), True),
            "answered 500; started again after out of memory: exit code 137: last",
        ),
        ("running", Health(healthy=True), True, "started again after out of memory: exit code 137: last"),
    ],
)
def test_the_trouble_with_one(status, health, located, says):
    end = End(137, out_of_memory=True, last_line="last")
    assert trouble(container(status), found(container(status), health, located=located), end) == says


def test_one_that_was_never_started_again_is_only_unwell():
    first = container("running", RestartCount=0)
    instance = found(first, Health(unhealthy=True, message="answered 500"), located=True)
    assert trouble(first, instance, None) == "answered 500"


@pytest.mark.parametrize(
    ("info", "apart"),
    [
        ({"SecurityOptions": ["name=seccomp,profile=default", "name=rootless"]}, True),
        ({"OperatingSystem": "Docker Desktop"}, True),
        ({"SecurityOptions": None, "OperatingSystem": "Debian"}, False),
    ],
)
def test_engines_whose_containers_have_no_address_here(info, apart):
    assert _is_apart(info) == apart
