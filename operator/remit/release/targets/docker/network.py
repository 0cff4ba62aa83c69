"""Manages the network of a namespace's replicas on one engine, in which each replica has a permanent address.

An engine assigns the address of a stopped container to the next one that starts, and the proxy would send requests for
the first one to it: requests of another Deployment, or of a side that is not live. Replicas therefore get addresses
that are computed from their names, which the engine allows only in a network with a configured subnet.
"""

from __future__ import annotations

import hashlib
import ipaddress
import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from docker.types import IPAMConfig, IPAMPool

from remit.backends.docker import labels
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError
from remit.release.targets.docker.planning import Owner

_NOT_OURS: Final = 3
"""Addresses at the ends of a subnet: its own, the gateway's and the broadcast's."""


@dataclass(frozen=True, slots=True)
class Network:
    name: str
    subnet: ipaddress.IPv4Network
    used: frozenset[str]
    """Addresses of containers, running or not."""


async def ensured(engine: Engine, owner: Owner) -> Network:
    """The network of the owner's namespace, made if need be. Raises OperationFailed.

    It is identified by its label. Its name is random, because an engine may create two networks with the same name for
    two concurrent requests, and then starts no container in either.
    """
    found = await _all(engine, owner)
    if not found:
        made = await _made(engine, owner)
        found = await _all(engine, owner)
        # Another operator or Deployment created one at the same time.
        if [each["Name"] for each in found][:1] != [made]:
            await _remove(engine, made)
    if not found:
        raise OperationFailed("NetworkGone", f"the network of {owner.namespace} was removed as soon as it was made")
    name = str(found[0]["Name"])
    attached = await engine.call(lambda client: client.containers(all=True, filters={"network": name}))
    return Network(name, ipaddress.IPv4Network(_subnet(found[0])), frozenset(_addresses(attached, name)))


async def removed(engine: Engine, owner: Owner) -> None:
    """Remove the networks, unless another Deployment of the namespace has containers in it. Raises OperationFailed."""
    for each in await _all(engine, owner):
        await _remove(engine, each["Name"])


def assigned(network: Network, names: Iterable[str]) -> dict[str, str]:
    """An address for each of these containers, which do not exist yet: the same one each time, if it can be had. Pure.

    Raises DeploymentError when there are none left.
    """
    room, found = network.subnet.num_addresses - _NOT_OURS, {}
    taken = set(network.used)
    for name in names:
        first = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        tries = (str(network.subnet[2 + (first + step) % room]) for step in range(room))
        address = next((each for each in tries if each not in taken), None)
        if address is None:
            raise DeploymentError(
                f"the network {network.subnet} has no address left", reason="NoAddress", retryable=True
            )
        found[name] = address
        taken.add(address)
    return found


def _addresses(containers: Collection[dict[str, Any]], network: str) -> Iterable[str]:
    for container in containers:
        endpoint = container["NetworkSettings"]["Networks"].get(network) or {}
        yield endpoint.get("IPAddress") or ""
        yield (endpoint.get("IPAMConfig") or {}).get("IPv4Address") or ""


def _subnet(network: dict[str, Any]) -> str:
    """The IPv4 subnet of the network."""
    subnets = [str(pool["Subnet"]) for pool in network["IPAM"]["Config"] or () if ":" not in pool.get("Subnet", ":")]
    if not subnets:
        raise OperationFailed("NetworkUnusable", f"the network {network['Name']} has no IPv4 subnet; remove it")
    return subnets[0]


async def _all(engine: Engine, owner: Owner) -> list[dict[str, Any]]:
    """There is more than one for a moment, where two were made at once. The first one is used."""
    mark = f"{labels.NETWORK_OF}={owner.namespace}"
    found = await engine.call(lambda client: client.networks(filters={"label": mark}))
    return sorted(found, key=lambda network: (str(network["Created"]), str(network["Name"])))


async def _made(engine: Engine, owner: Owner) -> str:
    """A new one, in the subnet that the engine itself would take, which knows what is in use. Gives its name."""
    name = f"remit_{owner.namespace}_{secrets.token_hex(4)}"
    await engine.call(lambda client: client.create_network(name, driver="bridge"))
    try:
        (probe,) = await engine.call(lambda client: client.networks(names=[name]))
        subnet = _subnet(probe)
    finally:
        await _remove(engine, name)
    ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, gateway=str(ipaddress.IPv4Network(subnet)[1]))])
    marks = {labels.NETWORK_OF: owner.namespace}
    try:
        await engine.call(lambda client: client.create_network(name, driver="bridge", ipam=ipam, labels=marks))
    except OperationFailed as error:  # another client took the subnet meanwhile
        raise OperationFailed("NetworkFailed", f"a network cannot be made: {error}", category=error.category) from None
    return name


async def _remove(engine: Engine, name: str) -> None:
    """Remove the network, unless it is in use."""
    try:
        await engine.call(lambda client: client.remove_network(name))
    except OperationFailed as error:
        if error.retryable:
            raise
