"""The containers of one Deployment on its engine: found by their labels, started whole, stopped with time to finish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import docker
from docker.errors import NotFound

from remit.api.slots import SLOTS, Slot
from remit.backends.docker import labels
from remit.backends.docker.container import moment
from remit.backends.docker.engine import ANSWER_SECONDS, Engine, create
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError
from remit.release.targets.docker.files import sealed

_LAST_LINES: Final = 5
_LONGEST_LINE: Final = 300
_LOOK_BACK: Final = 120
"""Seconds before a start in which its cause is. The engine waits for at most a minute before it starts one again."""

_TURNS: Final = ("die", "oom", "start", "destroy", "pause", "unpause", "health_status")
"""The events by which something may have to be done."""

_ALWAYS: Final = {"Name": "unless-stopped"}

Key = tuple[Slot, int]
"""Identifies a replica by its slot and index."""


@dataclass(frozen=True, slots=True)
class Container:
    """One, as the engine described it."""

    inspected: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.inspected["Id"])

    @property
    def name(self) -> str:
        return str(self.inspected["Name"]).removeprefix("/")

    @property
    def state(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.inspected["State"]
        return found

    @property
    def status(self) -> str:
        """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
        return str(self.state["Status"])

    @property
    def revision(self) -> int:
        return int(self.inspected["Config"]["Labels"][labels.REVISION])

    @property
    def incarnation(self) -> tuple[str, str]:
        """Tells it from what it was before it was started again: that has proven nothing for it."""
        return self.id, str(self.state["StartedAt"])

    @property
    def restarts(self) -> int:
        return int(self.inspected["RestartCount"])

    @property
    def restart_policy(self) -> str:
        return str(self.inspected["HostConfig"]["RestartPolicy"]["Name"])

    @property
    def grace(self) -> int:
        """Seconds."""
        return int(self.inspected["Config"].get("StopTimeout") or 0)


@dataclass(frozen=True, slots=True)
class End:
    """How a container ended."""

    code: int
    out_of_memory: bool = False
    error: str = ""
    """What the engine itself said."""
    last_line: str = ""

    def __str__(self) -> str:
        said = ("out of memory" if self.out_of_memory else "", f"exit code {self.code}", self.error, self.last_line)
        return ": ".join(part for part in said if part)


class Containers:
    """The containers that have `mark`, a label with its value."""

    def __init__(self, mark: str, engine: Callable[[], Awaitable[Engine]]) -> None:
        self._mark, self._engine = mark, engine

    async def all(self) -> dict[Key, Container]:
        """Raises OperationFailed."""
        engine = await self._engine()
        found = await engine.call(self._inspected)
        return {key: Container(each) for each in found if (key := _key(each)) is not None}

    async def changes(self) -> AsyncGenerator[object, None]:
        """Yields at each change of theirs that the engine tells of. Raises OperationFailed."""
        engine = await self._engine()
        filters = {"type": ["container"], "label": [self._mark], "event": list(_TURNS)}
        async with contextlib.aclosing(engine.stream(lambda client: client.events(filters=filters))) as events:
            async for event in events:
                yield event

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
        except BaseException as error:
            with contextlib.suppress(OperationFailed):
                await engine.call(lambda client: client.remove_container(id_, v=True, force=True))
            if isinstance(error, OperationFailed) and error.reason == "NotFound":
                # The network or the image was removed at the same time.
                raise OperationFailed("Gone", str(error), category=error.category) from None
            raise

    async def start(self, container: Container) -> None:
        """Start one that is there and does not run. Raises OperationFailed."""
        engine = await self._engine()
        await engine.call(lambda client: client.start(container.id))

    async def end_run(self, container: Container) -> None:
        """Ask its program to end, and kill it if it has not within its time. It is there then, and stopped: the engine
        does not start it again. Raises OperationFailed."""
        engine, signal = await self._engine(), str(container.inspected["Config"].get("StopSignal") or "SIGTERM")
        with _unless("Conflict"):  # the container does not run any more
            await engine.call(lambda client: client.kill(container.id, signal))
            await asyncio.sleep(container.grace)
            now = Container(await engine.call(lambda client: client.inspect_container(container.id)))
            if now.incarnation == container.incarnation and now.status == "running":
                await engine.call(lambda client: client.kill(container.id))

    async def restart_always(self, container: Container) -> None:
        """Have the engine start it again however often it ends. Raises OperationFailed."""
        engine, policy = await self._engine(), _ALWAYS
        await engine.call(
            lambda client: client.update_container(container.id, restart_policy=policy)  # type: ignore[arg-type]
        )

    async def remove(self, containers: Iterable[Container]) -> None:
        """Ask them to end, kill what has not within its time, and leave nothing. Raises OperationFailed."""
        engine = await self._engine()
        results = await asyncio.gather(*(_remove(engine, each) for each in containers), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    async def stats(self, container: Container) -> Mapping[str, Any]:
        """The engine's statistics of the container until now. Raises OperationFailed."""
        engine = await self._engine()
        found: Mapping[str, Any] = await engine.call(
            lambda client: client.stats(container.id, stream=False, one_shot=True)
        )
        return found

    async def last_end(self, container: Container) -> End | None:
        """How it ended before it was started last; None if the engine does not know any more."""
        if container.status != "running":
            state = container.state
            end = End(int(state["ExitCode"]), bool(state.get("OOMKilled")), str(state.get("Error") or ""))
            return replace(end, last_line=await self._last_line(container, None))
        started = moment(str(container.state["StartedAt"])).timestamp()
        filters = {"container": [container.id], "event": ["oom", "die", "start"]}
        engine = await self._engine()
        try:
            events = await engine.listed(
                lambda client: client.events(
                    since=int(started - _LOOK_BACK), until=int(started + 1), filters=filters, decode=True
                )
            )
        except OperationFailed:
            return None
        # Events are in order of time. Take those since the previous start, of which the last `die` has the exit code.
        starts = [place for place, event in enumerate(events) if event["status"] == "start"]
        since = events[starts[-2] + 1 if len(starts) > 1 else 0 :]
        codes = [event["Actor"]["Attributes"].get("exitCode", "") for event in since if event["status"] == "die"]
        if not codes or not codes[-1].isdigit():
            return None
        oom = any(event["status"] == "oom" for event in since)
        return End(int(codes[-1]), oom, last_line=await self._last_line(container, started))

    async def _last_line(self, container: Container, until: float | None) -> str:
        """The last line of its output; empty if that cannot be had."""
        engine = await self._engine()
        try:
            said = await engine.call(lambda client: client.logs(container.id, tail=_LAST_LINES, until=until))
        except OperationFailed:
            return ""
        lines = [line for line in said.decode(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip()[:_LONGEST_LINE] if lines else ""

    def _inspected(self, client: docker.APIClient) -> list[dict[str, Any]]:
        found = []
        for each in client.containers(all=True, filters={"label": self._mark}):
            with contextlib.suppress(NotFound):  # the container was removed meanwhile
                found.append(client.inspect_container(each["Id"]))
        return found


async def _remove(engine: Engine, container: Container) -> None:
    with _unless("NotFound"):
        await engine.call(lambda client: client.stop(container.id, timeout=container.grace))
    try:
        await engine.call(lambda client: client.remove_container(container.id, v=True, force=True))
    except OperationFailed as error:
        # Another client is removing the container, whose name stays in use until it is gone.
        if error.reason == "Conflict":
            with _unless("NotFound"):
                await engine.call(  # the SDK itself would wait without a limit
                    lambda client: client.wait(container.id, timeout=ANSWER_SECONDS, condition="removed")
                )
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
