"""Redis: commands in one transaction, their replies as JSON."""

from __future__ import annotations

import math
import os
import ssl
from collections.abc import Sequence
from typing import Any, Final

import orjson
import redis.asyncio as client
from redis.exceptions import ConnectionError, RedisError, TimeoutError

from remit.api.operations import RedisOperation
from remit.backends.base import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect, OperationRequest
from remit.operations.database.connection import DatabaseServer, invalid, target, untrusted
from remit.operations.database.loaders import json_text
from remit.operations.database.metering import ErrorReply, MeteredConnection, MeteredSSLConnection
from remit.operations.database.pools import MOST_CONNECTIONS, Pools

_CONNECT_SECONDS = 10.0
_MOST_BYTES = 8 << 20
_DEEPEST: Final = 200
"""Levels of a reply that JSON is made of."""
_SERVER_OUT: Final = frozenset({"LOADING", "MASTERDOWN", "CLUSTERDOWN"})
"""Codes with which a server refuses everybody for the time being."""
_FOR_NOW: Final = _SERVER_OUT | {"READONLY", "OOM", "TRYAGAIN", "BUSY", "NOREPLICAS", "MISCONF"}
"""And those with which it refuses some commands: it was made a replica, is out of memory, moves slots, is busy with a
script, has lost its replicas, or cannot write to its disk."""
_NOT_PERMITTED: Final = frozenset({"NOPERM", "NOAUTH", "WRONGPASS"})
Pool = client.BlockingConnectionPool


class RedisExecutor:
    """Commands on Redis (or Valkey) servers, over pooled connections."""

    def __init__(self) -> None:
        self.breaker = Breaker("server")
        self._pools: Pools[Pool] = Pools(_open, lambda pool: pool.aclose())

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`. One JSON object a command goes to stdout."""
        operation = request.subject
        assert isinstance(operation, RedisOperation)  # noqa: S101  # by its operation
        wanted = target(request, {"redis", "rediss"}, frozenset({"db", "protocol"}))
        _must_be_text(operation)
        async with self._pools.lease(wanted) as pool:
            with self.breaker.calling(wanted.name):
                replies = await _transact(pool, operation, request)
        failed = _tell(operation, replies, output)
        if failed is not None:
            raise failed
        return f"performed {len(replies)} commands"

    async def close(self) -> None:
        await self._pools.close()


async def _open(wanted: DatabaseServer) -> Pool:
    encrypted = wanted.url.startswith("rediss://")
    if not encrypted and (wanted.tls.authority or wanted.tls.certificate):
        raise invalid("it begins with redis://, which is not encrypted; certificates go with rediss://")
    try:
        pool = client.BlockingConnectionPool.from_url(
            wanted.url,
            max_connections=MOST_CONNECTIONS,
            timeout=_CONNECT_SECONDS,
            socket_connect_timeout=_CONNECT_SECONDS,
        )
    except ValueError:
        raise invalid("it is not a URL that Redis's client can read") from None
    pool.connection_class = MeteredSSLConnection if encrypted else MeteredConnection
    if encrypted:
        pool.connection_kwargs["context"] = wanted.tls.context()
    return pool


async def _transact(pool: Pool, operation: RedisOperation, request: OperationRequest) -> list[Any]:
    """The replies to the commands, those that are errors among them."""
    connection = await _connected(pool)
    try:
        await _begin(connection, operation)
        if not operation.read_only:
            request.effect.begin("whether the commands took place is not known")
        replies = await _execute(connection, operation, request.effect)
    except BaseException as error:
        # The connection's state is unknown, and further replies may follow.
        await connection.disconnect(nowait=True)
        if isinstance(error, ConnectionError | TimeoutError):
            message = "the connection to the server was lost"
            raise OperationFailed("ConnectionLost", message) from None
        raise
    finally:
        await pool.release(connection)
    if not operation.read_only:
        request.effect.begin("the commands took place")
    return replies


async def _begin(connection: Any, operation: RedisOperation) -> None:
    """Begin a transaction, on a server that is there: what fails here has not taken place."""
    asked: list[tuple[str, ...]] = [("PING",), ("MULTI",)]
    if operation.read_only:
        # The server itself knows which commands only read, including those of its modules. For commands with
        # subcommands, both words are queried.
        names = [name for words in operation.commands for name in (words[0], "|".join(words[:2]))]
        asked.insert(1, ("COMMAND", "INFO", *names))
    try:
        replies = await _ask(connection, asked)
    except (ConnectionError, TimeoutError):  # the server closed the idle connection
        replies = await _ask(await _reconnected(connection), asked)
    pong, *told, begun = replies
    for refusal in (pong, begun, *told):
        # A user without permission for PING also gets an answer.
        if isinstance(refusal, ErrorReply) and not (refusal is pong and refusal.code == "NOPERM"):
            raise _refusal(refusal, "")
    for info in told:
        _must_only_read(info, operation)


async def _execute(connection: Any, operation: RedisOperation, effect: Effect) -> list[Any]:
    *queued, replies = await _ask(connection, [*operation.commands, ("EXEC",)])
    if isinstance(replies, list):
        return replies
    effect.settle()  # a command could not be queued, or EXEC was refused: nothing was performed
    for index, answer in enumerate(queued):
        if isinstance(answer, ErrorReply):
            raise _refusal(answer, f"spec.redis.commands[{index}]: ")
    raise _refusal(replies, "")


async def _ask(connection: Any, commands: Sequence[Sequence[str]]) -> list[Any]:
    await connection.send_packed_command(connection.pack_commands(commands))
    return [await _read(connection) for _ in commands]


async def _read(connection: Any) -> Any:
    try:
        return await connection.read_response(disconnect_on_error=False)
    except ErrorReply as reply:
        return reply
    except (RecursionError, TypeError, ValueError) as error:
        message = f"a reply is nothing that can be read ({type(error).__name__}); the commands may have taken place"
        raise OperationFailed("UnreadableReply", message, retryable=False) from None


def _must_be_text(operation: RedisOperation) -> None:
    """Refuse what cannot be encoded before anything is sent."""
    for index, words in enumerate(operation.commands):
        try:
            "".join(words).encode()
        except UnicodeEncodeError:
            message = f"spec.redis.commands[{index}]: it has characters that are not Unicode text"
            raise OperationFailed("Invalid", message, retryable=False) from None


async def _connected(pool: Pool) -> Any:
    try:
        return await pool.get_connection()  # type: ignore[no-untyped-call]
    except RedisError as error:
        raise _not_connected(error) from None


async def _reconnected(connection: Any) -> Any:
    try:
        await connection.disconnect()
        await connection.connect()
    except RedisError as error:
        raise _not_connected(error) from None
    return connection


def _not_connected(error: RedisError) -> OperationFailed:
    """The failure for an error that occurred before anything reached the server."""
    if isinstance(error, ErrorReply) and (error.code in _NOT_PERMITTED or error.code in _FOR_NOW):
        return _refusal(error, "")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return untrusted(cause.verify_message, "spec.redis")
        cause = cause.__cause__ or cause.__context__
    message = f"the server gives no connection: {error if isinstance(error, ErrorReply) else _why(error)}"
    return OperationFailed("ConnectFailed", message)


def _why(error: BaseException | None) -> str:
    """Find the system's error among the causes; the driver's own words may have the connection's in them."""
    while error is not None:
        if isinstance(error, OSError) and error.errno:
            # Negative numbers are errors of name resolution.
            said = os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
            return said.lower()
        error = error.__cause__ or error.__context__
    return "it does not answer"


def _must_only_read(info: Any, operation: RedisOperation) -> None:
    told = [_flags(command) for command in info]
    for index, words in enumerate(operation.commands):
        command, subcommand = told[2 * index : 2 * index + 2]
        if "readonly" not in command | subcommand or "write" in command | subcommand:
            message = (
                f"spec.redis.commands[{index}]: spec.redis.readOnly is set, and the server does not say of"
                f" {words[0].upper()} that it only reads"
            )
            raise OperationFailed("ReadOnly", message, retryable=False)


def _flags(info: Any) -> set[str]:
    return {_text(flag).lower() for flag in info[2]} if info else set()  # the reply is: name, arity, flags …


def _tell(operation: RedisOperation, replies: list[Any], output: OutputSink) -> OperationFailed | None:
    """Write the replies. A command that failed does not undo the others: Redis has no rollback."""
    failed, size = None, 0
    for index, (words, reply) in enumerate(zip(operation.commands, replies, strict=True)):
        told: dict[str, Any] = {"command": index, "name": words[0].upper()}
        if isinstance(reply, Exception):
            told["error"] = _words(reply)
            message = f"spec.redis.commands[{index}]: {_words(reply)}; the other commands of the transaction took place"
            failed = failed or OperationFailed("CommandFailed", message, retryable=False)
        else:
            told["reply"] = _json(reply)
        line = orjson.dumps(told) + b"\n"
        size += len(line)
        if size > _MOST_BYTES:
            line = orjson.dumps({"command": index, "name": words[0].upper(), "truncated": True}) + b"\n"
        output.write("stdout", line)
    return failed


def _json(reply: Any, level: int = 0) -> Any:
    """A reply as JSON: what JSON has no word for is text, exactly, and bytes that are no text are in base16 under a
    name that says so."""
    if level > _DEEPEST:
        message = f"a reply has more than {_DEEPEST} levels, which is the most that is read; the commands took place"
        raise OperationFailed("UnreadableReply", message, retryable=False)
    match reply:
        case bytes():
            return json_text(reply)
        case bool() | None:
            return reply
        case int():
            return reply if -(1 << 63) <= reply < 1 << 64 else str(reply)
        case float():
            return reply if math.isfinite(reply) else str(reply)
        case dict():
            pairs = [(_json(key, level + 1), _json(value, level + 1)) for key, value in reply.items()]
            # Keys that are not text could become equal in JSON, such as 1 and "1".
            texts = all(isinstance(key, bytes) for key in reply) and all(isinstance(key, str) for key, _ in pairs)
            return dict(pairs) if texts else pairs
        case list():
            return [_json(item, level + 1) for item in reply]
    return {"error": _words(reply)} if isinstance(reply, Exception) else str(reply)


def _words(error: object) -> str:
    return str(error).removeprefix("ERR ")


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _refusal(reply: ErrorReply, where: str) -> OperationFailed:
    """Why the server performed nothing."""
    # Redis 7 gives the reason for an aborted transaction after EXECABORT.
    said = ErrorReply(str(reply).partition("Transaction discarded because of: ")[2].rstrip(".") or str(reply))
    message = f"{where}{_words(said)}; nothing was performed"
    if said.code in _FOR_NOW:
        category = "Infrastructure" if said.code in _SERVER_OUT else "Operation"
        return OperationFailed("NotReady", message, category=category)
    reason = "NotPermitted" if said.code in _NOT_PERMITTED else "CommandFailed"
    return OperationFailed(reason, message, retryable=False)
