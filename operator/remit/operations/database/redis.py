"""Redis: commands in one transaction, their replies as JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import orjson
import redis.asyncio as client
from redis.exceptions import (
    AuthenticationError,
    ConnectionError,
    ExecAbortError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TimeoutError,
)

from remit.api.operations import RedisOperation
from remit.backends import OutputSink
from remit.operations.base import Work
from remit.operations.breaker import Breaker
from remit.operations.database.connection import checked
from remit.operations.database.metering import MeteredConnection, MeteredSSLConnection
from remit.operations.database.pools import Pools
from remit.operations.failure import OperationFailed

_MOST_CONNECTIONS = 4
_CONNECT_SECONDS = 10.0
_MOST_BYTES = 8 << 20
Pool = client.BlockingConnectionPool


class RedisPerformer:
    """Commands on Redis (or Valkey) servers, over pooled connections."""

    def __init__(self) -> None:
        self.breaker = Breaker("server")
        self._pools: Pools[Pool] = Pools(_open, lambda pool: pool.aclose())

    async def perform(self, work: Work, output: OutputSink) -> str:
        """See `Performer.perform`. One JSON object a command goes to stdout."""
        operation = work.subject
        assert isinstance(operation, RedisOperation)  # noqa: S101  # by its operation
        url = checked(work.values, {"redis", "rediss"}, frozenset({"db", "protocol"}))
        name = f"{work.namespace}/{operation.connection.name}/{operation.connection.key}"
        with self.breaker.calling(name):
            try:
                async with self._pools.lease(name, url) as pool:
                    replies = await _transact(pool, operation)
            except RedisError as error:
                raise _failure(error) from None
        failed = _tell(operation, replies, output)
        if failed is not None:
            raise failed
        return f"performed {len(replies)} commands"

    async def close(self) -> None:
        await self._pools.close()


async def _open(url: str) -> Pool:
    pool = client.BlockingConnectionPool.from_url(
        url,
        max_connections=_MOST_CONNECTIONS,
        timeout=_CONNECT_SECONDS,
        socket_connect_timeout=_CONNECT_SECONDS,
        client_name="remit",
    )
    encrypted = issubclass(pool.connection_class, client.SSLConnection)
    pool.connection_class = MeteredSSLConnection if encrypted else MeteredConnection
    return pool


async def _transact(pool: Pool, operation: RedisOperation) -> list[Any]:
    async with client.Redis(connection_pool=pool) as server:
        if operation.read_only:
            await _must_only_read(server, operation)
        async with server.pipeline(transaction=True) as pipeline:
            for words in operation.commands:
                pipeline.execute_command(*words)
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
    return replies


async def _must_only_read(server: client.Redis, operation: RedisOperation) -> None:
    """Ask the server itself which of the commands write: it knows the ones of its modules too."""
    names = [words[0].upper() for words in operation.commands]
    ask = cast("Callable[..., Awaitable[list[Any]]]", server.execute_command)
    answer = await ask("COMMAND INFO", *names)
    for index, (name, info) in enumerate(zip(names, answer, strict=True)):
        flags = {_text(flag).lower() for flag in info[2]} if info else set()  # name, arity, flags …
        if "readonly" not in flags:
            message = f"spec.redis.commands[{index}]: {name} writes, says the server, but spec.redis.readOnly is set"
            raise OperationFailed("ReadOnly", message, retryable=False)


def _tell(operation: RedisOperation, replies: list[Any], output: OutputSink) -> OperationFailed | None:
    """Write the replies. A command that failed does not undo the others: Redis has no rollback."""
    failed, size = None, 0
    for index, (words, reply) in enumerate(zip(operation.commands, replies, strict=True)):
        told: dict[str, Any] = {"command": index, "name": words[0].upper()}
        if isinstance(reply, Exception):
            told["error"] = str(reply)
            message = f"spec.redis.commands[{index}]: {reply}; the other commands of the transaction took place"
            failed = failed or OperationFailed("CommandFailed", message, retryable=False)
        else:
            told["reply"] = _json(reply)
        line = orjson.dumps(told, option=orjson.OPT_NON_STR_KEYS) + b"\n"
        size += len(line)
        if size > _MOST_BYTES:
            line = orjson.dumps({"command": index, "name": words[0].upper(), "truncated": True}) + b"\n"
        output.write("stdout", line)
    return failed


def _json(reply: Any) -> Any:
    """A reply as JSON: text where it is text, and otherwise base16 under a name that says so."""
    match reply:
        case bytes():
            try:
                return reply.decode()
            except UnicodeDecodeError:
                return {"hex": reply.hex()}
        case dict():
            return {_text(key): _json(value) for key, value in reply.items()}
        case list() | tuple() | set():
            return [_json(item) for item in reply]
        case str() | int() | float() | bool() | None:
            return reply
    return str(reply)


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _failure(error: RedisError) -> OperationFailed:
    match error:
        case AuthenticationError() | NoPermissionError():
            return OperationFailed("NotPermitted", f"the server refuses: {error}", retryable=False)
        case TimeoutError():
            return OperationFailed("ConnectFailed", "the server does not answer in time", category="Infrastructure")
        case ConnectionError():
            message = "the connection to the server failed or was lost; whether the commands took place is not known"
            return OperationFailed("ConnectionLost", message, category="Infrastructure")
        case ReadOnlyError():
            return OperationFailed("ReadOnly", f"the server refuses: {error}", retryable=False)
        case ExecAbortError() | ResponseError():
            return OperationFailed(
                "CommandFailed", f"the server refuses: {error}; nothing was performed", retryable=False
            )
    return OperationFailed("CommandFailed", f"{type(error).__name__}: {error}")
