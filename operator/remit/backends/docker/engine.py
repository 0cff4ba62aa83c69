"""A Docker engine, spoken to by the Docker SDK from threads: few at once, never for ever, left alone when it fails."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound
from docker.tls import TLSConfig

from remit.backends.breaker import Breaker
from remit.backends.docker.client import BoundedClient
from remit.backends.docker.labels import LEASE_TRANSITIONS
from remit.backends.failure import OperationFailed
from remit.sandbox import fence
from remit.threads import DaemonThreadPool

DEFAULT_HOST = "unix:///var/run/docker.sock"
OFF = "off"
"""Instead of a host: this operator has no engine."""
MOST_AT_ONCE = 8
"""Docker 20.10 was seen to deadlock under 32 concurrent create and start calls, and is no faster with more than 8."""
ANSWER_SECONDS = 30
_RETRY_SECONDS = 1.0
_CONNECTIONS = 64
_READ_AHEAD = 4
"""Pieces of a stream that are taken from the engine before they are wanted. A piece is at most 32 KiB."""
_REFUSED, _BROKEN = 400, 500
_NO_ANSWER = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)

Answer = TypeVar("Answer")
Ask = Callable[[docker.APIClient], Answer]


class Engine:
    """The engine at `host`, such as `unix:///var/run/docker.sock`. Nothing is connected to before it is needed.

    `tls` has the certificates for a `tcp://` one, and `name` is how people know it, where that is not its `host`.

    What fails is an `OperationFailed`: `NotFound`, `Conflict` and `EngineRefused` are answers; `EngineFailed`,
    `EngineTimeout` and `EngineUnavailable` are the engine's own trouble, and retryable.
    """

    def __init__(
        self,
        host: str = DEFAULT_HOST,
        *,
        at_once: int = MOST_AT_ONCE,
        answer_seconds: int = ANSWER_SECONDS,
        tls: TLSConfig | None = None,
        name: str = "",
    ) -> None:
        self.host = name or host
        self.address, self._tls = host, tls
        self.breaker = Breaker("the Docker engine")
        self._answer_seconds = answer_seconds
        self._slots = asyncio.Semaphore(at_once)
        self._threads = DaemonThreadPool(at_once, thread_name_prefix="docker")
        self._client: BoundedClient | None = None
        self._connecting = threading.Lock()

    async def call(self, ask: Ask[Answer]) -> Answer:
        """Call `ask` in a thread, and return its result. If it is cancelled, it returns only when nothing is being
        asked any more."""
        async with self._slots:
            with self._counted():
                return await self._in_thread(ask)

    async def patiently(self, ask: Ask[Answer]) -> Answer | None:
        """The same of an engine that is waited for, for ever; None where there is nothing of that name."""
        while True:
            try:
                return await self.call(ask)
            except OperationFailed as error:
                if error.reason == "NotFound":
                    return None
                if not error.retryable:
                    raise
            await asyncio.sleep(_RETRY_SECONDS)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        """Has what the engine does within counted by its circuit. What fails is an `OperationFailed`."""
        fence.check()
        self.breaker.enter(self.host, time.monotonic())
        try:
            yield
        except (DockerException, *_NO_ANSWER) as error:
            failed = failure(error, self.host, self._answer_seconds)
            if failed.reason in {"EngineTimeout", "EngineUnavailable"}:
                self.breaker.failed(self.host, time.monotonic())
            else:
                self.breaker.succeeded(self.host)
            raise failed from None
        except BaseException:
            self.breaker.unknown(self.host)
            raise
        self.breaker.succeeded(self.host)

    @contextlib.asynccontextmanager
    async def opened(self, ask: Ask[Iterable[Answer]]) -> AsyncGenerator[AsyncIterator[Answer], None]:
        """Open a stream of the pieces that `ask` gives, which are read as they are wanted. It is closed when the block
        ends."""
        sources: list[Iterable[Answer]] = []

        def asked(client: docker.APIClient) -> Iterable[Answer]:
            sources.append(source := ask(client))
            return source

        try:
            pump = _Pump(await self.call(asked), asyncio.get_running_loop())
        except BaseException:
            for source in sources:  # it was opened for somebody who was cancelled meanwhile
                _close(source)
            raise

        async def pieces() -> AsyncIterator[Answer]:
            while True:
                match await pump.pieces.get():
                    case _End(error):
                        if error is not None:
                            raise failure(error, self.host, self._answer_seconds) from None
                        return
                    case piece:
                        pump.room.release()
                        yield cast(Answer, piece)

        try:
            yield pieces()
        finally:
            await pump.stop()

    async def stream(self, ask: Ask[Iterable[Answer]]) -> AsyncGenerator[Answer, None]:
        """`opened`, when the first piece is wanted."""
        async with self.opened(ask) as pieces:
            async for piece in pieces:
                yield piece

    async def listed(self, ask: Ask[Iterable[Answer]]) -> list[Answer]:
        """All that `ask` gives, which ends by itself, within the time for an answer."""
        try:
            async with asyncio.timeout(self._answer_seconds), contextlib.aclosing(self.stream(ask)) as pieces:
                return [piece async for piece in pieces]
        except TimeoutError as error:
            raise failure(error, self.host, self._answer_seconds) from None

    async def pull(self, image: str, login: Mapping[str, str] | None = None) -> str:
        """Fetch an image, as whoever `login` (`username`, `password`) names. Gives the engine's last word on it.

        Cancelled, it returns at once: a registry may leave the engine without an answer for longer than anybody waits.
        The connection is cut, and the engine gives the image up.
        """
        # The SDK treats a digest like a tag; with neither it would pull all tags of the repository.
        name, separator, tag = image.partition("@") if "@" in image else _split_tag(image)
        last, wrong = "", ""
        asking = dict(login) if login else None
        cuts: list[Callable[[], None]] = []

        def progress() -> Iterator[Any]:
            client = self._connected()
            with client.cuttable() as cut:
                cuts.append(cut)
                yield from client.pull(
                    name, tag=tag if separator else "latest", stream=True, decode=True, auth_config=asking
                )

        try:
            with self._counted():
                pump = _Pump(progress(), asyncio.get_running_loop())
                try:
                    while not isinstance(step := await pump.pieces.get(), _End):
                        pump.room.release()
                        last, wrong = str(step.get("status", last)), str(step.get("error", wrong))
                    if step.error is not None:
                        raise step.error
                finally:
                    pump.leave()
                    pump.cut(cuts)
        except OperationFailed as error:
            message = f"{image} cannot be pulled: {error}"
            raise OperationFailed(error.reason, message, retryable=error.retryable, category=error.category) from None
        if wrong:
            raise OperationFailed("PullFailed", f"{image} cannot be pulled: {wrong}")
        return last

    async def close(self) -> None:
        """Let go of its connections and threads."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        if self._client is not None:
            self._client.close()
            self._client = None

    async def _in_thread(self, ask: Ask[Answer]) -> Answer:
        asking = self._threads.submit(lambda: ask(self._connected()))
        waiting = asyncio.wrap_future(asking)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            if not asking.cancel():  # the request is in progress; wait for its end, so that it has no effect later
                await asyncio.wait({waiting})
                waiting.cancelled() or waiting.exception()
            raise

    def _connected(self) -> BoundedClient:
        with self._connecting:
            if self._client is None:
                self._client = BoundedClient(
                    self.address,
                    version="auto",
                    timeout=self._answer_seconds,
                    max_pool_size=_CONNECTIONS,
                    tls=self._tls or False,
                )
            return self._client


def failure(error: BaseException, host: str, seconds: float) -> OperationFailed:
    if isinstance(error, APIError):
        said = str(error.explanation or error).strip()
        status = error.response.status_code if error.response is not None else _BROKEN
        if isinstance(error, NotFound):
            return OperationFailed("NotFound", f"the Docker engine says: {said}", retryable=False)
        if status == requests.codes.conflict:
            return OperationFailed("Conflict", f"the Docker engine says: {said}", retryable=False)
        # Two objects with the same name were created at the same time, and one of them will be removed.
        if "is ambiguous" in said:
            return OperationFailed("EngineRefused", f"the Docker engine refuses: {said}")
        if status < _BROKEN:
            return OperationFailed("EngineRefused", f"the Docker engine refuses: {said}", retryable=False)
        return OperationFailed("EngineFailed", f"the Docker engine failed: {said}")
    if isinstance(error, requests.Timeout | TimeoutError):
        message = f"the Docker engine at {host} did not answer within {seconds:g} s"
        return OperationFailed("EngineTimeout", message)
    if (refused := _tls_failure(error)) is not None:
        message = f"the Docker engine at {host} and Remit do not trust each other: {refused}"
        return OperationFailed("EngineUnavailable", message)
    message = f"there is no Docker engine at {host}, or it went away; start it, or name another: --docker-host"
    return OperationFailed("EngineUnavailable", message)


def _tls_failure(error: BaseException | None) -> str | None:
    """Find the error of TLS among the causes of an exception."""
    while error is not None:
        if isinstance(error, ssl.SSLError):
            return str(error.reason or error).replace("_", " ").lower()
        inner = error.args[0] if error.args else None
        deeper = getattr(inner, "reason", inner)  # urllib3 and requests wrap the original error in `reason`
        error = error.__cause__ or error.__context__ or (deeper if isinstance(deeper, BaseException) else None)
    return None


def look(host: str) -> str:
    """The version of the engine at `host`, for people. Raises `OperationFailed`."""
    try:
        with contextlib.closing(BoundedClient(host, version="auto", timeout=5)) as client:
            told = client.version()
    except (DockerException, *_NO_ANSWER) as error:
        raise failure(error, host, 5) from None
    return f"Docker {told['Version']}, API {told['ApiVersion']}, at {host}"


def create(client: docker.APIClient, name: str, config: dict[str, Any]) -> str:
    """A container of that configuration, in the engine's own words. Gives its id."""
    if fence.transitions is not None:
        config = config | {"Labels": {**config["Labels"], LEASE_TRANSITIONS: str(fence.transitions)}}
    return str(client.create_container_from_config(config, name)["Id"])  # type: ignore[no-untyped-call]


def inspect_image(client: docker.APIClient, reference: str) -> dict[str, Any]:
    """Inspect an image."""
    return dict(client.inspect_image(reference))  # type: ignore[no-untyped-call]


def _split_tag(image: str) -> tuple[str, str, str]:
    """Name and tag; a colon before the last slash is a registry's port."""
    folder, slash, last = image.rpartition("/")
    name, colon, tag = last.partition(":")
    return folder + slash + name, colon, tag


def _end(source: Iterable[Any]) -> None:
    """Have whoever reads the source find its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # the source is closed already
        getattr(source, "close", lambda: None)()


def _close(source: Iterable[Any]) -> None:
    """Close a source that nobody reads. The SDK's own `close` ends the connection, but leaves the file object of the
    response open."""
    _end(source)
    if (response := getattr(source, "_response", None)) is not None:
        response.close()


class _End:
    """The last piece: why there are no more."""

    __match_args__ = ("error",)

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Pump:
    """Carries pieces from a blocking source to the event loop, never more than `_READ_AHEAD` unwanted ones."""

    def __init__(self, source: Iterable[Any], loop: asyncio.AbstractEventLoop) -> None:
        self.pieces: asyncio.Queue[Any] = asyncio.Queue()
        self.room = threading.Semaphore(_READ_AHEAD)
        self._source, self._loop = source, loop
        self._stopping = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._carry, name="docker stream", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Have its thread end with the next piece, or the next silence that is too long. Nobody waits for it."""
        self._stopping = True
        self.room.release()

    def cut(self, cuts: Iterable[Callable[[], None]]) -> None:
        """Have its thread end now, also from the midst of a piece. As it may have nothing to cut yet, that is tried
        until it has ended."""
        if not self._ended.is_set():
            for cut in cuts:
                cut()
            self._loop.call_later(_RETRY_SECONDS, self.cut, cuts)

    async def stop(self) -> None:
        """Returns when the source is closed and its thread is gone."""
        self.leave()
        _end(self._source)
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)
        _close(self._source)

    def _carry(self) -> None:
        error: BaseException | None = None
        try:
            for piece in self._wanted():
                self._loop.call_soon_threadsafe(self.pieces.put_nowait, piece)
        except BaseException as caught:  # consumers would otherwise never learn that this thread ended
            # `stop` closes the source to end this thread, so an error after that is expected.
            error = None if self._stopping else caught
        if isinstance(self._source, Generator):
            self._source.close()
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._finish, _End(error))

    def _wanted(self) -> Iterator[Any]:
        for piece in self._source:
            self.room.acquire()
            if self._stopping:
                return
            yield piece

    def _finish(self, end: _End) -> None:
        self.pieces.put_nowait(end)
        self._ended.set()
