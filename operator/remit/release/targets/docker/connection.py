"""The engine that a Deployment is released to: connected to when it is needed, anew when its certificates change."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from docker.tls import TLSConfig

from remit.api.deployment import DeploymentSpec, DockerTarget
from remit.backends.docker.engine import Engine
from remit.backends.egress.dialing import system_resolver
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError
from remit.policy.engines import BadEngine, EngineAddress
from remit.privatefiles import write_private
from remit.release.targets.desiredstate import LOOPBACK
from remit.release.targets.docker.planning import Reach
from remit.release.targets.docker.ssh import Tunnel

Secret = Callable[[str], Awaitable[Mapping[str, bytes]]]
"""The data of a Secret in the Deployment's namespace. Raises RemitError where it is not there."""

_LOOK_UP_SECONDS: Final = 10.0
_AT_ONCE: Final = 4
_FILES: Final = ("ca.crt", "tls.crt", "tls.key")


class Connection:
    """Connects to the engine that `target` names. `folder` is private and has its certificates."""

    def __init__(self, target: Callable[[], DockerTarget], folder: Path, secret: Secret) -> None:
        self._target, self._folder, self._secret = target, folder, secret
        self._engine: Engine | None = None
        self._tunnel: Tunnel | None = None
        self._trusted = ""
        self._info: Mapping[str, Any] | None = None
        self._turn = asyncio.Lock()

    @property
    def host(self) -> str:
        """The address of the engine."""
        return self._target().host

    async def refresh(self) -> None:
        """Read the certificates again, and connect anew where they changed. Raises RemitError."""
        async with self._turn:
            await self._connect()

    async def engine(self) -> Engine:
        """Raises RemitError where it lacks something to connect with."""
        async with self._turn:
            return self._engine or await self._connect()

    async def info(self) -> Mapping[str, Any]:
        """The engine's description of itself. Raises OperationFailed."""
        engine = await self.engine()
        if self._info is None:
            self._info = await engine.call(lambda client: client.info())
        return self._info

    async def reach(self) -> Reach:
        """Raises OperationFailed where the engine's host has no address."""
        address = EngineAddress.parse(self._target().host)
        if address.scheme != "unix":
            return Reach(await _address(str(address.host)))
        return Reach(LOOPBACK, LOOPBACK) if _is_apart(await self.info()) else Reach()

    def complaint(self) -> str:
        """Describe what is wrong with the connection to the engine, if that is known; empty otherwise."""
        return self._tunnel.said if self._tunnel else ""

    async def close(self) -> None:
        async with self._turn:
            await self._let_go()

    async def _connect(self) -> Engine:
        target = self._target()
        certificates = await self._secret(target.tls_secret) if target.tls_secret else {}
        trusted = hashlib.sha256(repr(sorted(certificates.items())).encode()).hexdigest()
        if self._engine is None or trusted != self._trusted:
            await self._let_go()
            self._engine, self._trusted = await self._made(target.host, certificates), trusted
        return self._engine

    async def _let_go(self) -> None:
        engine, tunnel, self._engine, self._tunnel, self._info = self._engine, self._tunnel, None, None, None
        if tunnel:
            await tunnel.close()
        if engine:
            await engine.close()

    async def _made(self, host: str, certificates: Mapping[str, bytes]) -> Engine:
        address = EngineAddress.parse(host)
        if address.scheme == "ssh":
            self._tunnel = Tunnel(address)
            return Engine(await self._tunnel.open(), at_once=_AT_ONCE, name=host)
        if address.scheme == "tcp":
            tls = self._tls(certificates)
            return Engine(f"tcp://{address.authority}", at_once=_AT_ONCE, tls=tls, name=host)
        return Engine(host, at_once=_AT_ONCE)

    def _tls(self, certificates: Mapping[str, bytes]) -> TLSConfig:
        """OpenSSL takes certificates from files alone."""
        if missing := [name for name in _FILES if name not in certificates]:
            message = (
                f"target.docker.tlsSecret: the Secret {self._target().tls_secret} has no {' and no '.join(missing)}"
            )
            raise OperationFailed("TlsIncomplete", message)
        for name in _FILES:
            write_private(self._folder / name, certificates[name])
        ca, *pair = (str(self._folder / name) for name in _FILES)
        return TLSConfig(client_cert=tuple(pair), ca_cert=ca, verify=True)  # type: ignore[arg-type]


def check_supported(spec: DeploymentSpec) -> None:
    """Raises DeploymentError for what this target does not do."""
    target, check = spec.target.docker, spec.health_check
    if target is None:
        return
    problem = _problem_of(target)
    if not problem and check is not None and check.command is not None and check.success_threshold > 1:
        problem = "healthCheck.successThreshold: the engine runs a command, and one success makes it healthy"
    if problem:
        raise DeploymentError(f"spec.{problem}", reason="NotSupported")


def _problem_of(target: DockerTarget) -> str:
    where = "target.docker.host"
    try:
        address = EngineAddress.parse(target.host)
    except BadEngine as error:
        return f"{where}: {error}"
    if address.scheme == "tcp" and target.tls_secret is None:
        return f"{where}: whoever may speak to an engine is root on its host; tcp:// needs tlsSecret"
    return ""


def _is_apart(info: Mapping[str, Any]) -> bool:
    """Whether a local engine runs its containers where this host has no way to: without root, or in a machine."""
    rootless = any("name=rootless" in str(option) for option in info.get("SecurityOptions") or ())
    return rootless or info.get("OperatingSystem") == "Docker Desktop"


async def _address(host: str) -> str:
    """An IP address, always the same one; of version 4 where there is one."""
    try:
        async with asyncio.timeout(_LOOK_UP_SECONDS):
            found = await system_resolver(host, 0)
    except TimeoutError:
        message = f"no name server told where the engine's host, {host}, is in {_LOOK_UP_SECONDS:g} s"
        raise OperationFailed("HostUnknown", message) from None
    except OSError as error:
        message = f"the name of the engine's host, {host}, leads to no address: {error.strerror or error}"
        raise OperationFailed("HostUnknown", message) from None
    version = min(address.version for address in found)
    return min(str(address) for address in found if address.version == version)
