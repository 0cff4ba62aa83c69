"""A container of an attempt: its output carried to the end, its end told."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from remit.backends.base import Handle, OutputSink, Stream
from remit.backends.docker.engine import Engine
from remit.backends.failure import OperationFailed
from remit.backends.outcome import ExitReason, Usage
from remit.errors import BackendError, OutcomeUnknown

STREAMS: tuple[Stream, Stream] = ("stdout", "stderr")
ENGINE_ENDS = frozenset({137, 143, 255})
"""Exit codes of a container that its engine ends, on its own end or when asked to."""
_STDERR_KEPT = 8192
_KILL_SECONDS = 60.0
_RETRY_SECONDS = 1.0
_SHORTEST, _LONGEST = 0.02, 1.0
_KILLED = 128 + signal.SIGKILL
_AFTERWARDS = (0.05, 0.2, 0.75)
_REPLAY_PAUSES = (0.1, 0.5, 2.0, 5.0)
_SAMPLES = (0.1, 0.4)
_SAMPLE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class State:
    """The engine's report about a container that is not running."""

    exit_code: int
    oom_killed: bool
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True)
class Ended:
    """How a container came to its end: `stopped` is why Remit ended it, and `lost` whether that was for what it needed
    and lost."""

    state: State
    stopped: ExitReason | None = None
    lost: bool = False


class Container:
    """The container `id`. What it says goes to `sink`; what the engine fails to say is asked again until it says it."""

    def __init__(self, engine: Engine, id_: str, sink: OutputSink) -> None:
        self.id = id_
        self.first_stderr = b""
        self.lost_engine = False
        """Whether the engine went away meanwhile."""
        self.usage = Usage()
        self._engine = engine
        self._sink = sink
        self._seen = dict.fromkeys(STREAMS, 0)

    async def carry(self, attached: AsyncIterator[Any] | None) -> State:
        """Output until the container has ended, from `attached` or, where there is none, from its log."""
        complete = await (self._replay() if attached is None else self._receive(attached))
        wait = _SHORTEST
        while (state := await self.state()) is None:
            # The container closed its output and still runs, or the engine was restarted meanwhile. Its log has the
            # rest.
            await asyncio.sleep(wait)
            wait = min(_LONGEST, wait * 2)
            if wait >= _LONGEST / 4:
                complete = await self._replay()
        if self.lost_engine or not complete:
            await self._replay_rest()
        return state

    async def _receive(self, attached: AsyncIterator[Any]) -> bool:
        """Write what `attached` gives, and say whether it came to its end."""
        try:
            async for pair in attached:
                for name, chunk in zip(STREAMS, pair, strict=True):
                    if chunk:
                        self._write(name, chunk)
        except OperationFailed:
            return False
        return True

    async def until_over(
        self,
        attached: AsyncIterator[Any] | None,
        cancel: asyncio.Event,
        seconds: float,
        grace: float,
        *,
        lost: Collection[asyncio.Future[Any]] = (),
    ) -> Ended:
        """Carry its output and look at what it uses; end it after `seconds`, when it is to be cancelled, or when one of
        `lost` is done. Cancelled itself, it leaves the container alone.

        Raises:
            OutcomeUnknown: the engine answers, and does not end it.
            BackendError: the output could not be read to its end, or not be stored.
        """
        carrying = asyncio.create_task(self.carry(attached))
        sampling = asyncio.create_task(self.sample())
        asked = asyncio.create_task(cancel.wait())
        stopped, gone, killed = None, False, None
        try:
            awaited: set[asyncio.Future[Any]] = {carrying, asked, *lost}
            await asyncio.wait(awaited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not carrying.done():
                gone = any(future.done() for future in lost) and not asked.done()
                stopped = ExitReason.CANCELLED if asked.done() else None if gone else ExitReason.TIMED_OUT
                await self.look()
                killed = await self._end(carrying, grace)
            try:
                return Ended(killed or carrying.result(), stopped, gone)
            except OSError as error:
                raise BackendError(f"the output could not be stored: {error}") from error
        finally:
            for task in (carrying, sampling, asked):
                task.cancel()
            await asyncio.gather(carrying, sampling, asked, return_exceptions=True)

    async def _end(self, carrying: asyncio.Task[State], grace: float) -> State | None:
        """Gives how it ended where its output does not come to an end, which is then left."""
        if grace > 0:
            await self.signal("SIGTERM")
            await asyncio.wait({carrying}, timeout=grace)
        while not carrying.done():
            heard = await self.signal("SIGKILL")
            await asyncio.wait({carrying}, timeout=_KILL_SECONDS if heard else _RETRY_SECONDS)
            if heard and not carrying.done() and await self._engine_answers():
                if (state := await self.state()) is not None:
                    return state
                message = f"the Docker engine does not end container {self.id[:12]}; it may still be running"
                raise OutcomeUnknown(message)
        return None

    async def _engine_answers(self) -> bool:
        try:
            await self._engine.call(lambda client: client.info())
        except OperationFailed:
            return False
        return True

    async def state(self) -> State | None:
        """None while it is running. Waits for an engine that is away."""
        while True:
            try:
                found = await self._engine.call(lambda client: client.inspect_container(self.id))
            except OperationFailed as error:
                if not error.retryable:
                    raise
                self.lost_engine = True
                await asyncio.sleep(_LONGEST)
                continue
            state = found["State"]
            if state["Running"] or state["Restarting"]:
                return None
            # The engine sets StartedAt with a delay, sometimes after the end of the container.
            started = moment(state["StartedAt"])
            finished = max(started, moment(state["FinishedAt"]))
            return State(int(state["ExitCode"]), bool(state["OOMKilled"]), started, finished)

    async def settled(self, state: State) -> State:
        """`state`, once the engine knows why it was killed: at times it hears of a lack of memory after the end."""
        for seconds in _AFTERWARDS:
            if state.oom_killed or state.exit_code != _KILLED:
                break
            await asyncio.sleep(seconds)
            state = await self.state() or state
        return state

    async def signal(self, name: str) -> bool:
        """Send a signal; that it has ended meanwhile is no error. False: the engine did not answer."""
        try:
            await self._engine.call(lambda client: client.kill(self.id, signal=name))
        except OperationFailed as error:
            return not error.retryable
        return True

    async def was_ended_from_outside(self, state: State) -> bool:
        """Whether a signal came by the engine, which none of ours did, or the engine went away with it."""
        if self.lost_engine:
            return True
        since, until = int(state.started_at.timestamp()) - 1, int(state.finished_at.timestamp()) + 1
        filters = {"container": [self.id], "event": ["kill", "die"]}
        try:
            events = await self._engine.listed(
                lambda client: client.events(since=since, until=until, filters=filters, decode=True)
            )
        except OperationFailed:
            return True
        told = {event["status"] for event in events}
        # An engine that is shutting down still answers, but reports no more events.
        return "kill" in told or "die" not in told

    async def sample(self) -> None:
        """Look at what it uses, for ever."""
        for seconds in _SAMPLES:
            await asyncio.sleep(seconds)
            await self.look()
        while True:
            await asyncio.sleep(_SAMPLE_SECONDS)
            await self.look()

    async def look(self) -> None:
        with contextlib.suppress(OperationFailed):
            stats = await self._engine.call(lambda client: client.stats(self.id, stream=False, one_shot=True))
            self.usage = _more(self.usage, stats)

    async def _replay_rest(self) -> None:
        """Write what the log of the ended container has beyond what was seen.

        Raises:
            BackendError: the engine answers, and does not give its log.
        """
        for seconds in _REPLAY_PAUSES:
            if await self._replay():
                return
            await asyncio.sleep(seconds)
            await self.state()  # waits for an engine that is away
        raise BackendError(f"the Docker engine does not give the rest of the output of container {self.id[:12]}")

    async def _replay(self) -> bool:
        """Write what its log has beyond what was seen, until it ends or the engine goes away. Say whether it ended."""
        async with asyncio.TaskGroup() as group:
            replays = [group.create_task(self._replay_stream(name)) for name in STREAMS]
        return all(replay.result() for replay in replays)

    async def _replay_stream(self, name: Stream) -> bool:
        skip = self._seen[name]
        said = self._engine.stream(
            lambda client: client.logs(
                self.id, stdout=name == "stdout", stderr=name == "stderr", stream=True, follow=True
            )
        )
        try:
            async with contextlib.aclosing(said):
                async for chunk in said:
                    known = min(skip, len(chunk))
                    skip -= known
                    if new := chunk[known:]:
                        self._write(name, new)
        except OperationFailed:
            return False
        return True

    def _write(self, name: Stream, chunk: bytes) -> None:
        self._seen[name] += len(chunk)
        if name == "stderr" and len(self.first_stderr) < _STDERR_KEPT:
            self.first_stderr += chunk[: _STDERR_KEPT - len(self.first_stderr)]
        self._sink.write(name, chunk)


def moment(text: str) -> datetime:
    """A moment as the engine writes it: RFC 3339 with nanoseconds."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    parsed = datetime.fromisoformat(whole).replace(tzinfo=UTC)
    return parsed.replace(microsecond=int(fraction[:6].ljust(6, "0"))) if fraction.isdigit() else parsed


def _more(before: Usage, stats: dict[str, Any]) -> Usage:
    cpu, memory = stats.get("cpu_stats") or {}, stats.get("memory_stats") or {}
    used = (cpu.get("cpu_usage") or {}).get("total_usage", 0)
    if not used:  # the container is not running
        return before
    moved = {"read": 0, "write": 0}
    for entry in (stats.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        kind = entry["op"].lower()
        if kind in moved:
            moved[kind] += int(entry["value"])
    return replace(
        before,
        cpu_seconds=max(before.cpu_seconds, used / 1e9),
        max_memory_bytes=max(before.max_memory_bytes, memory.get("max_usage", 0), memory.get("usage", 0)),
        read_bytes=max(before.read_bytes, moved["read"]),
        written_bytes=max(before.written_bytes, moved["write"]),
        throttled_seconds=(cpu.get("throttling_data") or {}).get("throttled_time", 0) / 1e9,
        max_tasks=max(before.max_tasks, (stats.get("pids_stats") or {}).get("current", 0)),
        source="sampled",
    )


def time_had(recorded: Handle | None, boot: str, now: float, started_at: str, engine_time: str) -> float:
    """Seconds that a container has had. Where it was started in this `boot`, by the clock that nobody sets, which is at
    `now`; elsewhere by the engine's time of day, which may be another one than ours: it started it, and tells its own.
    """
    if recorded is not None and recorded.begun > 0 and recorded.boot_id == boot:
        return max(0.0, now - recorded.begun)
    engine = datetime.fromisoformat(engine_time) if engine_time else datetime.now(UTC)
    return max(0.0, (engine - moment(started_at)).total_seconds())
