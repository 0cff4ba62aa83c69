"""Databases: which connections, and which commands or kinds of statement on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from remit.api.operations import PostgresOperation, RedisOperation
from remit.policy import needs
from remit.policy.argv import refused_character
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.sqlfunctions import READING as READING_FUNCTIONS
from remit.policy.sqlfunctions import qualified
from remit.policy.statements import READING, Function, UnreadableStatement, read_statement
from remit.policy.verdict import Denial, Reason

MOST_SQL: Final = 65_536
"""Limit of all statements of a task together, in characters."""
_SHOWN_FUNCTIONS: Final = 5
NEVER: Final = frozenset(
    [
        "MULTI",
        "EXEC",
        "DISCARD",
        "WATCH",
        "UNWATCH",
        "SUBSCRIBE",
        "PSUBSCRIBE",
        "SSUBSCRIBE",
        "MONITOR",
        "SYNC",
        "PSYNC",
        "REPLCONF",
        "AUTH",
        "HELLO",
        "RESET",
        "QUIT",
        "SELECT",
        "CLIENT",
    ]
)
"""Redis commands that change what the connection is, and so what the others mean."""


def judge_postgres(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows all statements, or why none does."""
    postgres, rule = request.subject, policy.spec.databases.postgres
    assert isinstance(postgres, PostgresOperation)  # noqa: S101  # by its operation
    allowed = rule.statements if rule else []
    if denial := _connection(policy, "postgres", rule.secrets if rule else [], postgres.connection.name):
        return denial
    if (length := sum(len(statement.sql) for statement in postgres.statements)) > MOST_SQL:
        message = f"spec.postgres.statements have {length} characters together, {MOST_SQL} are the most; use parameters"
        return Denial(Reason.TOO_COSTLY, message, policy.key)
    for index, statement in enumerate(postgres.statements):
        where = f"spec.postgres.statements[{index}]"
        try:
            read = read_statement(statement.sql)
        except UnreadableStatement as error:
            return Denial(Reason.NOT_ALLOWED, f"{where}: {error}", policy.key)
        found = read.kinds
        if postgres.read_only and (writing := sorted(found - READING)):
            message = f"{where} is {', '.join(writing)}, but spec.postgres.readOnly is set"
            return Denial(Reason.NOT_ALLOWED, message, policy.key)
        if missing := sorted(found - {kind.lower() for kind in allowed}):
            listed = ", ".join(allowed) or "none"
            return Denial(
                Reason.NOT_ALLOWED,
                f"policy {policy.key} does not allow {', '.join(missing)} ({where});"
                f" spec.databases.postgres.statements has {listed}",
                policy.key,
                needs=needs.statements(missing),
            )
        if unknown := [function for function in read.functions if not _may_be_called(policy, function)]:
            lacking = needs.functions([(each.schema, each.name) for each in unknown])
            message = _unknown_functions(policy, where, unknown, lacking)
            return Denial(Reason.NOT_ALLOWED, message, policy.key, needs=lacking)
    return "databases.postgres"


def judge_redis(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows all commands, or why none does."""
    redis, rule = request.subject, policy.spec.databases.redis
    assert isinstance(redis, RedisOperation)  # noqa: S101  # by its operation
    if denial := _connection(policy, "redis", rule.secrets if rule else [], redis.connection.name):
        return denial
    allowed = {name.upper() for name in rule.commands} if rule else set()
    for index, words in enumerate(redis.commands):
        name, where = words[0].upper() if words[0].isascii() else words[0], f"spec.redis.commands[{index}]"
        # The server upper-cases names, and some letters outside ASCII become ASCII letters.
        if not name.isascii() or refused_character(words[0]):
            message = f"{where}: the name of a command has plain letters only"
            return Denial(Reason.NOT_ALLOWED, message, policy.key)
        if name in NEVER:
            message = f"{where}: {name} changes the connection or the transaction, which Remit keeps itself"
            return Denial(Reason.NOT_ALLOWED, message, policy.key)
        if name not in allowed and " ".join(words[:2]).upper() not in allowed:
            listed = ", ".join(rule.commands) if rule and rule.commands else "none"
            return Denial(
                Reason.NOT_ALLOWED,
                f"policy {policy.key} does not allow {name} ({where}); spec.databases.redis.commands has {listed}",
                policy.key,
                needs=needs.redis(words),
            )
    return "databases.redis"


def describe(request: PolicyRequest) -> str:
    """Never with values in it: they may be secret."""
    match request.subject:
        case PostgresOperation() as postgres:
            return f"{len(postgres.statements)} statements on {postgres.connection.name}"
        case RedisOperation() as redis:
            return f"{', '.join(words[0].upper() for words in redis.commands[:5])} on {redis.connection.name}"
    return "a database operation"


def _may_be_called(policy: CompiledPolicy, function: Function) -> bool:
    if function.schema in {"", "pg_catalog"} and function.name in READING_FUNCTIONS:
        return True
    listed = policy.functions
    return listed is not None and listed.matches(qualified(function.schema, function.name))


def _unknown_functions(
    policy: CompiledPolicy, where: str, unknown: Sequence[Function], lacking: needs.Part | None
) -> str:
    """The denial, with the lines that the policy's spec needs."""
    shown = [str(function) for function in unknown[:_SHOWN_FUNCTIONS]]
    more = f" and {len(unknown) - len(shown)} more" if len(unknown) > len(shown) else ""
    rule = policy.spec.databases.postgres
    which = "a function that is" if len(unknown) == 1 else "functions that are"
    if lacking is None:
        return (
            f"{where} calls {', '.join(shown)}{more}, {which} not known to only read; with '*' or '.' in its name, no"
            " rule can be about it alone"
        )
    line = needs.line({"databases": {"postgres": {"functions": [*(rule.functions if rule else ()), *shown]}}})
    return (
        f"{where} calls {', '.join(shown)}{more}, {which} not known to only read; to allow that, the spec of policy"
        f" {policy.key} needs `{line}` (columns of a table's"
        " other name, or of a function's rows, go after AS, as in `FROM f(1) AS t (a)`)"
    )


def _connection(policy: CompiledPolicy, kind: str, secrets: list[str], wanted: str) -> Denial | None:
    if wanted in secrets:
        return None
    listed = ", ".join(secrets) or "none"
    return Denial(
        Reason.NOT_ALLOWED,
        f"policy {policy.key} does not allow the connection in Secret {wanted};"
        f" spec.databases.{kind}.secrets has {listed}",
        policy.key,
        needs=needs.connection(kind, wanted),
    )
