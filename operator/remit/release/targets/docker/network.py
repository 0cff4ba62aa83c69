"""The network of a namespace's replicas on one engine, in which each has an address that stays its own.

An engine gives the address of a container that is down to the next one that starts, and the proxy would send that what
was meant for the first: requests of another Deployment, or of a side that is not live. So replicas get addresses made
from their names, which the engine only allows where somebody chose the subnet.
"""

from __future__ import annotations

import contextlib
import hashlib
import ipaddress
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

from docker.types import IPAMConfig, IPAMPool

from remit.backends.docker import Engine, labels
from remit.errors import DeploymentError
from remit.operations.failure import OperationFailed
from remit.release.targets.docker.planning import Owner

_NOT_OURS: Final = 3
"""Addresses at the ends of a subnet: its own, the gateway's and the broadcast's."""


@dataclass(frozen=True, slots=True)
class Network:
    subnet: ipaddress.IPv4Network
    used: frozenset[str]
    """Addresses of containers, running or not."""


async def ensured(engine: Engine, owner: Owner) -> Network:
    """The network of the owner's namespace, made if need be. Raises OperationFailed."""
    found = await _only(engine, owner.network)
    if found is None:
        await _make(engine, owner, await _free_subnet(engine, owner))
        found = await _only(engine, owner.network)
    if found is None:
        raise OperationFailed("NetworkGone", f"the network {owner.network} was removed as soon as it was made")
    attached = await engine.call(lambda client: client.containers(all=True, filters={"network": owner.network}))
    return Network(ipaddress.IPv4Network(_subnet(found)), frozenset(_addresses(attached, owner.network)))


async def removed(engine: Engine, owner: Owner) -> None:
    """Unless another Deployment of the namespace has containers in it. Raises OperationFailed."""
    try:
        await engine.call(lambda client: client.remove_network(owner.network))
    except OperationFailed as error:
        if error.retryable:
            raise


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
    """Of version 4."""
    subnets = [str(pool["Subnet"]) for pool in network["IPAM"]["Config"] or () if ":" not in pool.get("Subnet", ":")]
    if not subnets:
        raise OperationFailed("NetworkUnusable", f"the network {network['Name']} has no IPv4 subnet; remove it")
    return subnets[0]


async def _look(engine: Engine, name: str) -> dict[str, Any] | None:
    return next(iter(await _all(engine, name)), None)


async def _only(engine: Engine, name: str) -> dict[str, Any] | None:
    """The first one that was made, and no other: asked twice at the same moment, an engine makes two of one name, and
    then nothing can be told to go there. Whoever made the other does the same, and comes to the same choice."""
    found = await _all(engine, name)
    for other in found[1:]:
        await _removed_by_name(engine, other["Id"])
    return found[0] if found else None


async def _all(engine: Engine, name: str) -> list[dict[str, Any]]:
    """The first one first."""
    found = await engine.call(lambda client: client.networks(names=[name]))
    exact = (each for each in found if each["Name"] == name)  # the engine matches parts of names
    return sorted(exact, key=lambda each: (each["Created"], each["Id"]))


async def _free_subnet(engine: Engine, owner: Owner) -> str:
    """What the engine itself would take: it knows which addresses are in use, and its pools are the administrator's."""
    name = f"{owner.network}_{owner.name}"  # with the Deployment's: another one may ask at the same time
    await _removed_by_name(engine, name)
    await engine.call(lambda client: client.create_network(name, driver="bridge", check_duplicate=True))
    try:
        probe = await _look(engine, name)
    finally:
        await _removed_by_name(engine, name)
    if probe is None:
        raise OperationFailed("NetworkGone", f"the network {name} was removed as soon as it was made")
    return _subnet(probe)


async def _make(engine: Engine, owner: Owner, subnet: str) -> None:
    gateway = str(ipaddress.IPv4Network(subnet)[1])
    ipam = IPAMConfig(pool_configs=[IPAMPool(subnet=subnet, gateway=gateway)])
    marks = {labels.NAMESPACE: owner.namespace}
    try:
        await engine.call(
            lambda client: client.create_network(
                owner.network, driver="bridge", ipam=ipam, check_duplicate=True, labels=marks
            )
        )
    except OperationFailed as error:
        if error.reason != "Conflict":  # another Deployment of the namespace came first
            raise


async def _removed_by_name(engine: Engine, name: str) -> None:
    with contextlib.suppress(OperationFailed):
        await engine.call(lambda client: client.remove_network(name))
