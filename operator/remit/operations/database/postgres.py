"""PostgreSQL: statements with parameters, in one transaction, their rows as JSON."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from remit.api.operations import PostgresOperation, SqlStatement
from remit.backends import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect, Work, held
from remit.operations.database.connection import checked, invalid
from remit.operations.database.pools import MOST_CONNECTIONS, Pools
from remit.operations.database.rows import MeteredConnection
from remit.policy.statements import read_statement

_OPTIONS = frozenset({"sslmode", "application_name", "connect_timeout", "target_session_attrs"})
_CONNECT_SECONDS = 10.0
_CLIENT_SECONDS = 5
# libpq reads passwords and certificates from the operator's home unless it is told otherwise.
_OWN = {"passfile": "/dev/null", "sslcertmode": "disable", "gssencmode": "disable", "client_encoding": "UTF8"}
# Under other rules a statement would not be what policy read.
_READ_BY = {"standard_conforming_strings": "on", "client_encoding": "UTF8"}
_TROUBLE = ("08", "53", "57", "58")
"""Classes of SQLSTATE that speak of the server: connections, resources, interventions, the system."""
_LATER = ("40", "55")
"""And those after which the same may succeed all the same: rollbacks and locks."""
_PROTOCOL_VIOLATION = "08P01"
"""What a server says of a statement whose parameters are too few or too many."""

_IN_DOUBT = ("08", "57", "58", "40003")
"""SQLSTATEs, or classes of them, that say nothing of whether a COMMIT took place. After all others it was undone."""
_NO_ROWS = "didn't produce a result"
_REFUSAL = re.compile(r", port \d+ failed: (?:FATAL: +)?(.+)")
"""Why there is no connection, in libpq's message or the server's."""
Connection = psycopg.AsyncConnection[Any]
Pool = AsyncConnectionPool[Connection]


class PostgresPerformer:
    """Statements on PostgreSQL servers, over pooled connections."""

    def __init__(self) -> None:
        self.breaker = Breaker("database")
        self._pools: Pools[_Server] = Pools(_open, lambda server: server.pool.close())

    async def perform(self, work: Work, output: OutputSink) -> str:
        """See `Performer.perform`. One JSON object a statement goes to stdout."""
        postgres = work.subject
        assert isinstance(postgres, PostgresOperation)  # noqa: S101  # by its operation
        most = held(postgres.max_bytes, "spec.postgres.maxBytes", "ask for fewer rows")
        url = checked(work.values, {"postgres", "postgresql"}, _OPTIONS)
        name = f"{work.namespace}/{postgres.connection.name}/{postgres.connection.key}"
        async with self._pools.lease(name, url) as server:
            with self.breaker.calling(name):
                try:
                    await server.meet()
                    async with server.pool.connection(timeout=_CONNECT_SECONDS) as connection:
                        done = await _transact(connection, postgres, work, most)
                except (PoolTimeout, psycopg.Error) as error:
                    raise _failure(error) from None
        for _, line in done:
            output.write("stdout", line)
        return f"committed {len(done)} statements, {sum(count for count, _ in done)} rows"

    async def close(self) -> None:
        await self._pools.close()


@dataclass(slots=True)
class _Server:
    pool: Pool
    conninfo: str = field(repr=False)
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


async def _open(url: str) -> _Server:
    try:
        conninfo = make_conninfo(url, **_OWN)
    except psycopg.ProgrammingError:
        raise invalid("it is not a URL that PostgreSQL's client can read") from None
    pool: Pool = AsyncConnectionPool(
        conninfo,
        min_size=0,
        max_size=MOST_CONNECTIONS,
        max_idle=60.0,
        timeout=_CONNECT_SECONDS,
        reconnect_timeout=_CONNECT_SECONDS,
        check=AsyncConnectionPool.check_connection,
        configure=_configure,
        reset=_forget,
        open=False,
        connection_class=MeteredConnection,
        kwargs={
            "cursor_factory": psycopg.AsyncRawCursor,
            "connect_timeout": int(_CONNECT_SECONDS),
            # DISCARD ALL deallocates the statements that the driver would prepare on its own, and it does not notice.
            "prepare_threshold": None,
        },
    )
    await pool.open(wait=False)
    return _Server(pool, conninfo)


async def _configure(connection: Connection) -> None:
    if isinstance(connection, MeteredConnection):
        connection.metered()
    await _watch(connection)


async def _forget(connection: Connection) -> None:
    """Settings, roles, locks and temporary tables end with their task: the next one on this connection is another's."""
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
    connection: Connection, postgres: PostgresOperation, work: Work, most: int
) -> list[tuple[int, bytes]]:
    """Of each statement how many rows it counts, and its result as a line of JSON: what cannot be encoded is not
    committed."""
    budget, effect = _Budget(postgres.max_rows, most), Effect() if postgres.read_only else work.effect
    try:
        async with connection.transaction():
            done = [
                (result["rowCount"], orjson.dumps(result) + b"\n")
                for result in await _statements(connection, postgres, work.timeout_seconds, budget)
            ]
            effect.begin("it was about to commit, and whether it did is not known")
    except psycopg.Error as error:
        if error.sqlstate is not None and not error.sqlstate.startswith(_IN_DOUBT):
            effect.settle()
        raise
    effect.begin("the transaction is committed")
    return done


async def _statements(
    connection: Connection, postgres: PostgresOperation, seconds: float, budget: _Budget
) -> list[dict[str, Any]]:
    # The server's own clock, so that a statement ends there too when it ends here.
    await connection.execute(
        sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(max(1, int(seconds * 1000))))
    )
    await connection.execute("SET LOCAL standard_conforming_strings = on")
    if postgres.read_only:
        await connection.execute("SET TRANSACTION READ ONLY")
        await connection.execute("SET LOCAL default_transaction_read_only = on")
    return [
        await _statement(connection, index, statement, budget) for index, statement in enumerate(postgres.statements)
    ]


class _Budget:
    """What of the rows is kept. All are read, so that the statement takes place as it would; the rest is dropped."""

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
        row = orjson.dumps(_row(names, record), default=_plain, option=orjson.OPT_NON_STR_KEYS)
        if self._kept >= self._budget.rows or len(row) > self._budget.bytes:
            self.truncated = True
            return
        self._budget.bytes -= len(row)
        self._kept += 1
        self._json += b"," + row if self._json else row

    def told(self) -> orjson.Fragment:
        return orjson.Fragment(b"[" + self._json + b"]")


async def _statement(connection: Connection, index: int, statement: SqlStatement, budget: _Budget) -> dict[str, Any]:
    """One statement by the extended protocol, which takes no second one; its rows come one by one."""
    for setting, value in _READ_BY.items():
        if connection.info.parameter_status(setting) != value:
            message = f"spec.postgres.statements[{index}]: {setting} is no longer {value}, and policy read it so"
            raise OperationFailed("ReadDifferently", message, retryable=False, category="Denied")
    rows = _Rows(budget)
    parameters: Sequence[str] = statement.parameters
    async with connection.cursor() as cursor:
        try:
            if read_statement(statement.sql).gives_no_rows:
                await cursor.execute(statement.sql.encode(), parameters, binary=True)  # binary: by that protocol
                count = max(0, cursor.rowcount)  # -1: of nothing that is counted
                return {"statement": index, "status": cursor.statusmessage, "rowCount": count, "rows": []}
            names: list[str] = []
            async for record in cursor.stream(statement.sql.encode(), parameters):
                names = names or [column.name for column in cursor.description or ()]
                rows.add(names, record)
        except psycopg.ProgrammingError as error:
            # psycopg streams rows only; a statement that gives none has been performed all the same.
            if error.sqlstate is not None or _NO_ROWS not in str(error):
                raise _at(error, index) from error
        except psycopg.Error as error:
            raise _at(error, index) from error
    return {"statement": index, "rowCount": rows.count, "truncated": rows.truncated, "rows": rows.told()}


def _row(names: Sequence[str], record: Sequence[Any]) -> dict[str, Any]:
    """A row by its columns' names; a name that comes twice gets a number."""
    row: dict[str, Any] = {}
    for number, (name, value) in enumerate(zip(names, record, strict=True), start=1):
        row[name if name not in row else f"{name}_{number}"] = value
    return row


def _plain(value: Any) -> Any:
    """What JSON has no word for: bytes as PostgreSQL writes them, and all else as text, exactly."""
    if isinstance(value, bytes | bytearray | memoryview):
        return "\\x" + bytes(value).hex()
    return str(value)


def _at(error: psycopg.Error, index: int) -> psycopg.Error:
    error.add_note(f"spec.postgres.statements[{index}]")
    return error


def _refused(error: psycopg.OperationalError) -> OperationFailed:
    why = _REFUSAL.search(str(error))
    if why is not None:
        message = f"the server gave no connection: {why[1].strip()}"
    elif "resolve host" in str(error):
        message = "the name of the server's host leads to no address"
    else:
        message = f"the server does not answer within {_CONNECT_SECONDS:g} s"
    return OperationFailed("ConnectFailed", message, category="Infrastructure")


def _failure(error: psycopg.Error | PoolTimeout) -> OperationFailed:
    """In words; libpq's own texts about connections may carry the connection's string, the server's never do."""
    if isinstance(error, PoolTimeout):
        message = f"the server gave no connection in {_CONNECT_SECONDS:g} s: it is down, refuses us, or is overrun"
        return OperationFailed("ConnectFailed", message, category="Infrastructure")
    where = "".join(f"{note}: " for note in getattr(error, "__notes__", ()))
    state = error.sqlstate
    if state is None:
        return OperationFailed(
            "ConnectionLost", f"{where}the connection to the server was lost", category="Infrastructure"
        )
    message = f"{where}{error.diag.message_primary} (SQLSTATE {state})"
    if state == "57014":
        return OperationFailed("StatementTimeout", message, category="Timeout")
    if state == "25006":
        return OperationFailed("ReadOnly", message, retryable=False)
    if state == _PROTOCOL_VIOLATION:
        message += "; give it as many parameters as it has $1, $2 …"
    infrastructure = state.startswith(_TROUBLE) and state != _PROTOCOL_VIOLATION
    return OperationFailed(
        "StatementFailed",
        message,
        retryable=infrastructure or state.startswith(_LATER),
        category="Infrastructure" if infrastructure else "Operation",
    )
