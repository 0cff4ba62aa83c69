"""PostgreSQL: statements with parameters, in one transaction, their rows as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from remit.api.operations import PostgresOperation, SqlStatement
from remit.backends.base import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect, OperationRequest, held
from remit.operations.database.connection import DatabaseServer, invalid, target, untrusted
from remit.operations.database.loaders import ADAPTERS, SETTINGS, json_text
from remit.operations.database.pools import MOST_CONNECTIONS, Pools
from remit.operations.database.rows import MeteredConnection
from remit.operations.tls import TlsMaterial, in_memory
from remit.policy.statements import read_statement

_OPTIONS = frozenset({"sslmode", "application_name", "connect_timeout", "target_session_attrs"})
_CONNECT_SECONDS = 10.0
_CLIENT_SECONDS = 5
# libpq would otherwise read passwords, certificates and services from the operator's home directory.
_OWN = {"passfile": "/dev/null", "gssencmode": "disable", "client_encoding": "UTF8"}
_UNSET = {
    "min_protocol_version": "3.0",
    "max_protocol_version": "3.0",
    "require_auth": "none,password,md5,gss,sspi,scram-sha-256",
}
"""libpq's defaults where it does not take an empty value for one that is not set."""
_NO_FILE = "/dev/null/none"
"""A path where nothing can be."""
_VERIFIED = frozenset({"verify-ca", "verify-full"})
# With other settings, the server would read a statement differently from the policy check.
_READ_BY = {"standard_conforming_strings": "on", "client_encoding": "UTF8"}
_RETRYABLE = ("08", "40", "53", "55006", "55P03", "57P01", "57P02", "57P03", "57P05", "58000", "58030")
"""SQLSTATEs, or classes of them, after which the same statement may succeed: a connection to elsewhere, a conflict with
another transaction, resources, locks, a server that stops or starts, input and output."""
_FINAL = ("08P01", "40002", "53400")
"""Exceptions to that: parameters that are too few, a constraint, and a limit that is set for the session."""
_ENDS_THE_SESSION = ("FATAL", "PANIC")
"""Severities of what is wrong with the server or the session. After an ERROR the server goes on, so it has answered."""
_PROTOCOL_VIOLATION = "08P01"
"""What a server says of a statement whose parameters are too few or too many."""

_IN_DOUBT = ("08", "57", "58", "40003")
"""SQLSTATEs, or classes of them, that say nothing of whether a COMMIT took place. After all others it was undone."""
_NO_ROWS = "didn't produce a result"
_REFUSAL = re.compile(r", port \d+ failed: (?:FATAL: +)?(.+)")
"""Why there is no connection, in libpq's message or the server's."""
_DISTRUST = re.compile(
    r"certificate verify failed|server certificate for .* does not match host name .*|server does not support SSL.*"
)
Connection = psycopg.AsyncConnection[Any]
Pool = AsyncConnectionPool[Connection]


class _Cursor(psycopg.AsyncRawCursor[Any]):
    """One that sends everything by the extended protocol, which takes one statement at a time."""

    def _execute_send(self, query: Any, *, force_extended: bool = True, binary: bool | None = None) -> None:
        super()._execute_send(query, force_extended=True, binary=binary)


class PostgresExecutor:
    """Statements on PostgreSQL servers, over pooled connections."""

    def __init__(self) -> None:
        self.breaker = Breaker("database")
        self._pools: Pools[_Server] = Pools(_open, _Server.close)

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`. One JSON object a statement goes to stdout."""
        postgres = request.subject
        assert isinstance(postgres, PostgresOperation)  # noqa: S101  # by its operation
        most = held(postgres.max_bytes, "spec.postgres.maxBytes", "ask for fewer rows")
        wanted = target(request, {"postgres", "postgresql"}, _OPTIONS)
        execute = _one_by_one if postgres.autocommit else _transact
        async with self._pools.lease(wanted) as server:
            with self.breaker.calling(wanted.name):
                try:
                    await server.meet()
                    async with server.pool.connection(timeout=_CONNECT_SECONDS) as connection:
                        done = await execute(connection, postgres, request, most)
                except (PoolTimeout, psycopg.Error) as error:
                    raise _failure(error) from None
        for _, line in done:
            output.write("stdout", line)
        how = "performed" if postgres.autocommit else "committed"
        return f"{how} {len(done)} statements, {sum(count for count, _ in done)} rows"

    async def close(self) -> None:
        await self._pools.close()


@dataclass(slots=True)
class _Server:
    pool: Pool
    conninfo: str = field(repr=False)
    files: contextlib.ExitStack
    """What the pool's connections read certificates from."""
    _met: bool = False

    async def meet(self) -> None:
        """Connect once without the pool, which tries for as long as it may and never tells why it failed."""
        if not self._met:
            try:
                connection = await psycopg.AsyncConnection.connect(self.conninfo, connect_timeout=int(_CONNECT_SECONDS))
            except psycopg.OperationalError as error:
                raise _refused(error) from None
            await connection.close()
            self._met = True

    async def close(self) -> None:
        with self.files:
            await self.pool.close()


async def _open(wanted: DatabaseServer) -> _Server:
    with contextlib.ExitStack() as files:
        conninfo = _conninfo(wanted, files)
        return _Server(await _pool(conninfo), conninfo, files.pop_all())


def _conninfo(wanted: DatabaseServer, files: contextlib.ExitStack) -> str:
    """The connection string for libpq. `files` are open for as long as it may.

    What the URL does not say has libpq's own default, and never what the operator's environment or home says.
    """
    if "PGSERVICE" in os.environ:  # this is the one variable that parameters cannot override
        message = "the operator's environment has PGSERVICE, which every connection would follow; start it without that"
        raise OperationFailed("ConnectFailed", message, retryable=False)
    try:
        given = conninfo_to_dict(wanted.url)
        defaults = {
            (keyword := option.keyword.decode()): (option.compiled or b"").decode() or _UNSET.get(keyword, "")
            for option in psycopg.pq.Conninfo.get_defaults()
            if option.envvar is not None and option.keyword not in {b"service", b"connect_timeout"}
        }
        options = {**defaults, **_OWN, **given, **_tls(wanted.tls, str(given.get("sslmode", "")), files)}
        return make_conninfo("", **{keyword: str(value) for keyword, value in options.items()})
    except psycopg.ProgrammingError:
        raise invalid("it is not a URL that PostgreSQL's client can read") from None


def _tls(tls: TlsMaterial, mode: str, files: contextlib.ExitStack) -> dict[str, str]:
    options = {"sslrootcert": _NO_FILE, "sslcrl": _NO_FILE, "sslcertmode": "disable"}
    if tls.authority is not None:
        mode = mode or "verify-full"
        if mode not in _VERIFIED:
            raise invalid(f"sslmode={mode} does not look at the authority in spec.postgres.caFrom; take verify-full")
        options["sslrootcert"] = files.enter_context(in_memory(tls.authority))
    elif mode == "verify-full":
        options["sslrootcert"] = ssl.get_default_verify_paths().cafile or "system"
    elif mode == "verify-ca":
        raise invalid("sslmode=verify-ca needs an authority in spec.postgres.caFrom; or take verify-full")
    if tls.certificate is not None and tls.key is not None:
        options |= {
            "sslcertmode": "allow",
            "sslcert": files.enter_context(in_memory(tls.certificate)),
            "sslkey": files.enter_context(in_memory(tls.key)),
        }
    return options | ({"sslmode": mode} if mode else {})


async def _pool(conninfo: str) -> Pool:
    pool: Pool = AsyncConnectionPool(
        conninfo,
        min_size=0,
        max_size=MOST_CONNECTIONS,
        max_idle=60.0,
        timeout=_CONNECT_SECONDS,
        reconnect_timeout=_CONNECT_SECONDS,
        check=_check,
        configure=_configure,
        reset=_forget,
        open=False,
        connection_class=MeteredConnection,
        kwargs={
            "context": ADAPTERS,
            "cursor_factory": _Cursor,
            "connect_timeout": int(_CONNECT_SECONDS),
            # The driver would prepare statements and would not notice that DISCARD ALL deallocates them.
            "prepare_threshold": None,
        },
    )
    await pool.open(wait=False)
    return pool


async def _check(connection: Connection) -> None:
    async with asyncio.timeout(_CONNECT_SECONDS):
        await AsyncConnectionPool.check_connection(connection)


async def _configure(connection: Connection) -> None:
    if isinstance(connection, MeteredConnection):
        connection.metered()
    async with asyncio.timeout(_CONNECT_SECONDS):
        await _watch(connection)


async def _forget(connection: Connection) -> None:
    """Settings, roles, locks and temporary tables end with their task: the next one on this connection is another's.

    A pool has few workers for this, so that a server that does not answer may not keep them.
    """
    async with asyncio.timeout(_CONNECT_SECONDS):
        await connection.set_autocommit(True)
        await connection.execute("DISCARD ALL")
        await _watch(connection)


async def _watch(connection: Connection) -> None:
    """Have the server see in the midst of a statement that we are no more, so that what an operator that was killed
    leaves is undone, and its locks go. Before version 14, or elsewhere than on Linux, that is when its time is over."""
    await connection.set_autocommit(True)
    with contextlib.suppress(psycopg.Error):
        await connection.execute(f"SET client_connection_check_interval = {_CLIENT_SECONDS * 1000}")
    await connection.set_autocommit(False)


async def _transact(
    connection: Connection, postgres: PostgresOperation, request: OperationRequest, most: int
) -> list[tuple[int, bytes]]:
    """Execute the statements. Return for each one how many rows it counts, and its result as a line of JSON: what
    cannot be encoded is not committed."""
    budget, effect = _Budget(postgres.max_rows, most), Effect() if postgres.read_only else request.effect
    try:
        async with connection.transaction():
            await _set(connection, request, local=True, read_only=postgres.read_only)
            done = [
                await _statement(connection, index, statement, budget)
                for index, statement in enumerate(postgres.statements)
            ]
            effect.begin("it was about to commit, and whether it did is not known")
    except psycopg.Error as error:
        if error.sqlstate is not None and not error.sqlstate.startswith(_IN_DOUBT):
            effect.settle()
        raise
    effect.begin("the transaction is committed")
    return done


async def _one_by_one(
    connection: Connection, postgres: PostgresOperation, request: OperationRequest, most: int
) -> list[tuple[int, bytes]]:
    """The same, each statement as the server performs it outside of a transaction block: perhaps in several
    transactions, so that what fails may have taken place in part."""
    await connection.set_autocommit(True)
    await _set(connection, request, local=False, read_only=False)
    budget, done = _Budget(postgres.max_rows, most), []
    for index, statement in enumerate(postgres.statements):
        request.effect.begin(f"{index} statements took place, and the next one may have, at least in part")
        done.append(await _statement(connection, index, statement, budget))
    request.effect.begin("the statements took place")
    return done


async def _set(connection: Connection, request: OperationRequest, *, local: bool, read_only: bool) -> None:
    settings = {
        **SETTINGS,
        "standard_conforming_strings": "on",
        # Set on the server too, so that a statement also ends there when it times out here.
        "statement_timeout": str(max(1, int(request.timeout_seconds * 1000))),
    }
    if read_only:
        settings |= {"transaction_read_only": "on", "default_transaction_read_only": "on"}
    calls = (sql.SQL("set_config({}, {}, {})").format(name, value, local) for name, value in settings.items())
    await connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)))


class _Budget:
    """Limits which rows are kept. All are read, so that the statement takes place as it would; the rest is dropped."""

    def __init__(self, rows: int, size: int) -> None:
        self.rows, self.bytes = rows, size


class _Rows:
    """The rows of one statement, as JSON already: as Python's objects they would take many times as much."""

    def __init__(self, budget: _Budget) -> None:
        self.count = self._kept = 0
        self.truncated = False
        self._budget = budget
        self._json = bytearray()

    def add(self, names: Sequence[str], record: Sequence[Any]) -> None:
        self.count += 1
        if self.truncated:
            return
        row = orjson.dumps(dict(zip(names, record, strict=True)))
        if self._kept >= self._budget.rows or len(row) > self._budget.bytes:
            self.truncated = True
            return
        self._budget.bytes -= len(row)
        self._kept += 1
        self._json += b"," + row if self._json else row

    def told(self) -> orjson.Fragment:
        return orjson.Fragment(b"[" + self._json + b"]")


async def _statement(connection: Connection, index: int, statement: SqlStatement, budget: _Budget) -> tuple[int, bytes]:
    """One statement by the extended protocol, which takes no second one; its rows come one by one."""
    for setting, value in _READ_BY.items():
        if connection.info.parameter_status(setting) != value:
            message = f"spec.postgres.statements[{index}]: {setting} is no longer {value}, and policy read it so"
            raise OperationFailed("ReadDifferently", message, retryable=False)
    read = read_statement(statement.sql)
    try:
        if read.copies:
            result = await _copy(connection, statement, budget)
        elif read.gives_no_rows:
            result = await _change(connection, statement)
        else:
            result = await _query(connection, statement, budget)
    except psycopg.Error as error:
        error.add_note(f"spec.postgres.statements[{index}]")
        raise
    return result["rowCount"], orjson.dumps({"statement": index, **result}) + b"\n"


async def _change(connection: Connection, statement: SqlStatement) -> dict[str, Any]:
    async with connection.cursor() as cursor:
        await cursor.execute(statement.sql.encode(), statement.parameters, binary=True)
        count = max(0, cursor.rowcount)  # -1 if the command does not count rows
        return {"status": cursor.statusmessage, "rowCount": count, "rows": []}


async def _query(connection: Connection, statement: SqlStatement, budget: _Budget) -> dict[str, Any]:
    rows, names = _Rows(budget), list[str]()
    async with connection.cursor() as cursor:
        try:
            async for record in cursor.stream(statement.sql.encode(), statement.parameters):
                names = names or _names(cursor.pgresult)
                rows.add(names, record)
        except psycopg.ProgrammingError as error:
            # psycopg streams only rows; a statement without rows was performed nevertheless.
            if error.sqlstate is not None or _NO_ROWS not in str(error):
                raise
    return {"rowCount": rows.count, "truncated": rows.truncated, "rows": rows.told()}


async def _copy(connection: Connection, statement: SqlStatement, budget: _Budget) -> dict[str, Any]:
    """Read the result of `COPY … TO STDOUT`: the server sends a message a row."""
    if statement.parameters:  # the driver would insert them into the statement after the policy check has read it
        raise OperationFailed("StatementFailed", "COPY takes no parameters", retryable=False)
    kept, messages, truncated = bytearray(), 0, False
    async with connection.cursor() as cursor:
        async with cursor.copy(statement.sql.encode()) as copy:
            async for block in copy:
                messages += 1
                truncated = truncated or messages > budget.rows or len(block) > budget.bytes
                if not truncated:
                    budget.bytes -= len(block)
                    kept += block
        count, data = max(0, cursor.rowcount), json_text(bytes(kept))
        return {"status": f"COPY {count}", "rowCount": count, "truncated": truncated, "data": data}


def _names(result: Any) -> list[str]:
    """The names of a result's columns; one that comes twice gets a number."""
    names: dict[str, None] = {}
    for number in range(result.nfields):
        name = unique = (result.fname(number) or b"").decode(errors="backslashreplace")
        suffix = number + 1
        while unique in names:
            unique, suffix = f"{name}_{suffix}", suffix + 1
        names[unique] = None
    return list(names)


def _refused(error: psycopg.OperationalError) -> OperationFailed:
    why, distrust = _REFUSAL.search(str(error)), _DISTRUST.search(str(error))
    if distrust is not None:
        return untrusted(distrust[0].strip(), "spec.postgres")
    if why is not None:
        message = f"the server gave no connection: {why[1].strip()}"
    elif "resolve host" in str(error):
        message = "the name of the server's host leads to no address"
    else:
        message = f"the server does not answer within {_CONNECT_SECONDS:g} s"
    return OperationFailed("ConnectFailed", message)


def _failure(error: psycopg.Error | PoolTimeout) -> OperationFailed:
    """The failure in words. The server's texts are safe, but libpq's own may contain the connection string."""
    if isinstance(error, PoolTimeout):
        message = f"the server gave no connection in {_CONNECT_SECONDS:g} s: it is down, refuses us, or is overrun"
        return OperationFailed("ConnectFailed", message)
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    state = error.sqlstate
    if state is None and isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return OperationFailed("ConnectionLost", f"{where}the connection to the server was lost")
    if state is None:  # the driver refuses the arguments
        return OperationFailed("StatementFailed", f"{where}{error}", retryable=False)
    message = f"{where}{error.diag.message_primary} (SQLSTATE {state})"
    if state == "57014":
        return OperationFailed("StatementTimeout", message)
    if state == "25006":
        return OperationFailed("ReadOnly", message, retryable=False)
    if state == _PROTOCOL_VIOLATION:
        message += "; give it as many parameters as it has $1, $2 …"
    ended = error.diag.severity_nonlocalized in _ENDS_THE_SESSION
    return OperationFailed(
        "StatementFailed",
        message,
        retryable=state.startswith(_RETRYABLE) and not state.startswith(_FINAL),
        category="Infrastructure" if ended else "Operation",
    )
