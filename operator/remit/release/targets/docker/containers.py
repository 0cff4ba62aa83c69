"""The containers of one Deployment on its engine: found by their labels, started whole, stopped with time to finish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import docker
from docker.errors import NotFound

from remit.api.deploymentstatus import Slot
from remit.backends.docker import Engine, create, labels
from remit.errors import DeploymentError
from remit.operations.failure import OperationFailed
from remit.release.model import SLOTS
from remit.release.targets.docker.files import sealed

_LAST_LINES: Final = 5
_LONGEST_LINE: Final = 300

Key = tuple[Slot, int]
"""Which replica: its slot and index."""


@dataclass(frozen=True, slots=True)
class Container:
    """One, as the engine described it."""

    told: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.told["Id"])

    @property
    def name(self) -> str:
        return str(self.told["Name"]).removeprefix("/")

    @property
    def state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.told["State"]
        return found

    @property
    def status(self) -> str:
        """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
        return str(self.state["Status"])

    @property
    def revision(self) -> int:
        return int(self.told["Config"]["Labels"][labels.REVISION])

    @property
    def incarnation(self) -> tuple[str, str]:
        """Tells it from what it was before it was started again: that has proven nothing for it."""
        return self.id, str(self.state["StartedAt"])

    @property
    def restarts(self) -> int:
        return int(self.told["RestartCount"])

    @property
    def grace(self) -> int:
        """Seconds."""
        return int(self.told["Config"].get("StopTimeout") or 0)


class Containers:
    """Those that have `mark`, a label with its value."""

    def __init__(self, mark: str, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._mark, self._engine = mark, engine

    async def all(self) -> dict[Key, Container]:
        """Raises OperationFailed."""
        engine = await self._engine()
        found = await engine.call(self._inspected)
        return {key: Container(each) for each in found if (key := _key(each)) is not None}

    async def create(self, name: str, config: dict[str, Any], files: Mapping[str, bytes]) -> None:
        """Have it run, or leave nothing of it. Raises OperationFailed, and DeploymentError where its name is taken."""
        engine = await self._engine()
        try:
            id_ = await engine.call(lambda client: create(client, name, config))
        except OperationFailed as error:
            if error.reason == "Conflict":
                message = f"the engine has a container {name} that is not of this Deployment; remove it"
                raise DeploymentError(message, reason="NameTaken") from None
            raise
        try:
            if files:
                archive = await asyncio.to_thread(sealed, files)
                await engine.call(lambda client: client.put_archive(id_, "/", archive))
            await engine.call(lambda client: client.start(id_))
        except BaseException:
            with contextlib.suppress(OperationFailed):
                await engine.call(lambda client: client.remove_container(id_, v=True, force=True))
            raise

    async def start(self, container: Container) -> None:
        """Start one that is there and does not run. Raises OperationFailed."""
        engine = await self._engine()
        await engine.call(lambda client: client.start(container.id))

    async def remove(self, containers: Iterable[Container]) -> None:
        """Ask them to end, kill what has not within its time, and leave nothing. Raises OperationFailed."""
        engine = await self._engine()
        results = await asyncio.gather(*(_remove(engine, each) for each in containers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def last_line(self, container: Container) -> str:
        """What it said last; empty if that cannot be had."""
        engine = await self._engine()
        try:
            said = await engine.call(lambda client: client.logs(container.id, tail=_LAST_LINES))
        except OperationFailed:
            return ""
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:_LONGEST_LINE] if lines else ""

    def _inspected(self, client: docker.APIClient) -> list[dict[str, Any]]:
        found = []
        for each in client.containers(all=True, filters={"label": self._mark}):
            with contextlib.suppress(NotFound):  # it went meanwhile
                found.append(client.inspect_container(each["Id"]))
        return found


async def _remove(engine: Engine, container: Container) -> None:
    with _unless("NotFound"):
        await engine.call(lambda client: client.stop(container.id, timeout=container.grace))
    try:
        await engine.call(lambda client: client.remove_container(container.id, v=True, force=True))
    except OperationFailed as error:
        if error.reason == "Conflict":  # somebody does so already, and keeps its name until it is gone
            with _unless("NotFound"):
                await engine.call(lambda client: client.wait(container.id, condition="removed"))
        elif error.reason != "NotFound":
            raise


@contextlib.contextmanager
def _unless(reason: str) -> Iterator[None]:
    """Around what may fail for that reason."""
    try:
        yield
    except OperationFailed as error:
        if error.reason != reason:
            raise


def _key(container: Mapping[str, Any]) -> Key | None:
    """None for one that is not ours: an image may have our labels, but what a task makes of it has those of tasks."""
    marks = container["Config"]["Labels"]
    slot, numbers = marks.get(labels.SLOT), [marks.get(name, "") for name in (labels.INDEX, labels.REVISION)]
    if {labels.UID, labels.ATTEMPT} & marks.keys() or slot not in SLOTS or not all(map(str.isdigit, numbers)):
        return None
    return SLOTS[SLOTS.index(slot)], int(numbers[0])
