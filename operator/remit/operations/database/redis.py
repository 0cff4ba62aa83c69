"""Redis: commands in one transaction, their replies as JSON."""

from __future__ import annotations

import os
import re
from typing import Any

import orjson
import redis.asyncio as client
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
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
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect, Work
from remit.operations.database.connection import checked
from remit.operations.database.metering import MeteredConnection, MeteredSSLConnection
from remit.operations.database.pools import MOST_CONNECTIONS, Pools

_CONNECT_SECONDS = 10.0
_MOST_BYTES = 8 << 20
_IN_A_PIPELINE = re.compile(
    r"""Command # (\d+) \(.*\) of pipeline caused error: \(?['"]?(.*?)(?:['"],\))?$""", re.DOTALL
)
"""How the driver words what the server says of a command before a transaction: with the whole of the command."""
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
        async with self._pools.lease(name, url) as pool:
            with self.breaker.calling(name):
                try:
                    replies = await _transact(pool, operation, work.effect)
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
        max_connections=MOST_CONNECTIONS,
        timeout=_CONNECT_SECONDS,
        socket_connect_timeout=_CONNECT_SECONDS,
    )
    encrypted = issubclass(pool.connection_class, client.SSLConnection)
    pool.connection_class = MeteredSSLConnection if encrypted else MeteredConnection
    return pool


async def _transact(pool: Pool, operation: RedisOperation, effect: Effect) -> list[Any]:
    _must_be_text(operation)
    connection = await _connection(pool)
    async with client.Redis(connection_pool=pool) as server, server.pipeline(transaction=True) as pipeline:
        pipeline.connection = connection  # and so given back with the pipeline
        if operation.read_only:
            await _must_only_read(connection, operation)
        for words in operation.commands:
            pipeline.execute_command(*words)
        if not operation.read_only:
            effect.begin("whether the commands took place is not known")
        try:
            replies: list[Any] = await pipeline.execute(raise_on_error=False)
        except (ConnectionError, TimeoutError):
            message = "the connection to the server was lost"
            raise OperationFailed("ConnectionLost", message, category="Infrastructure") from None
    if not operation.read_only:
        effect.begin("the commands took place")
    return replies


def _must_be_text(operation: RedisOperation) -> None:
    """What cannot be encoded is refused before anything is sent."""
    for index, words in enumerate(operation.commands):
        try:
            "".join(words).encode()
        except UnicodeEncodeError:
            message = f"spec.redis.commands[{index}]: it has characters that are not Unicode text"
            raise OperationFailed("Invalid", message, retryable=False, category="Invalid") from None


async def _connection(pool: Pool) -> Any:
    """One that is up: what fails here has not reached the server."""
    try:
        return await _up(await pool.get_connection(), pool)  # type: ignore[no-untyped-call]
    except AuthenticationError:
        raise
    except BusyLoadingError:
        message = "the server is still loading its data into memory, and performs nothing before"
        raise OperationFailed("ConnectFailed", message, category="Infrastructure") from None
    except (ConnectionError, TimeoutError) as error:
        message = f"the server gives no connection: {_why(error)}"
        raise OperationFailed("ConnectFailed", message, category="Infrastructure") from None


async def _up(connection: Any, pool: Pool) -> Any:
    try:
        if not await _answers(connection):
            await connection.disconnect()
            await connection.connect()
    except BaseException:
        await pool.release(connection)
        raise
    return connection


async def _answers(connection: Any) -> bool:
    """Whether the server is still there, at the other end of a connection that had nothing to do for a while."""
    try:
        await connection.send_command("PING")
        await connection.read_response()
    except BusyLoadingError:
        raise
    except ResponseError:
        return True  # a user who may not is answered too
    except (ConnectionError, TimeoutError):
        return False
    return True


def _why(error: BaseException | None) -> str:
    """What the system said, somewhere beneath; the driver's own words may have the connection's in them."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            said = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # below 0: of names
            return said.lower()
        error = error.__cause__ or error.__context__
    return "it does not answer"


async def _must_only_read(connection: Any, operation: RedisOperation) -> None:
    """Ask the server itself which of the commands only read: it knows the ones of its modules too. A command that has
    subcommands is asked about by both words."""
    asked = [name for words in operation.commands for name in (words[0], "|".join(words[:2]))]
    await connection.send_command("COMMAND", "INFO", *asked)
    told = [_flags(info) for info in await connection.read_response()]
    for index, words in enumerate(operation.commands):
        command, subcommand = told[2 * index : 2 * index + 2]
        if "readonly" not in command | subcommand or "write" in command | subcommand:
            message = (
                f"spec.redis.commands[{index}]: spec.redis.readOnly is set, and the server does not say of"
                f" {words[0].upper()} that it only reads"
            )
            raise OperationFailed("ReadOnly", message, retryable=False)


def _flags(info: Any) -> set[str]:
    return {_text(flag).lower() for flag in info[2]} if info else set()  # name, arity, flags …


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
        case ResponseError() if at := _IN_A_PIPELINE.match(str(error)):
            reason = "NotPermitted" if isinstance(error, NoPermissionError) else "CommandFailed"
            message = f"spec.redis.commands[{int(at[1]) - 1}]: {at[2]}; nothing was performed"
            return OperationFailed(reason, message, retryable=False)
        case AuthenticationError() | NoPermissionError():
            return OperationFailed("NotPermitted", f"the server refuses: {error}", retryable=False)
        case TimeoutError() | ConnectionError():
            return OperationFailed("ConnectionLost", "the connection to the server was lost", category="Infrastructure")
        case ReadOnlyError():
            return OperationFailed("ReadOnly", f"the server refuses: {error}", retryable=False)
        case ExecAbortError() | ResponseError():
            return OperationFailed(
                "CommandFailed", f"the server refuses: {error}; nothing was performed", retryable=False
            )
    return OperationFailed("CommandFailed", f"{type(error).__name__}: {error}")
