"""Functions of PostgreSQL with which a mere `SELECT` does the work of another kind of statement, or leaves the
database: reads the server's files, connects elsewhere, runs SQL from a string, ends other sessions. Pure.

Only what PostgreSQL and its own extensions bring can be known here. What a function that somebody created does is
between its owner and the connection's user.
"""

from __future__ import annotations

import re
from typing import Final

from remit.policy.sqltext import code_of

_REACHING: Final = {
    "reaches the server's files": (
        r"pg_(read_(binary_)?file|stat_file|ls_\w+|file_(read|write|rename|unlink|sync|length)|logdir_ls"
        r"|current_logfile|logfile_rotate|rotate_logfile(_old)?)|lo_(import|export)"
    ),
    "connects to other servers": r"dblink\w*|postgres_fdw_\w+",
    "runs SQL from a string": (r"query_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table"),
    "changes settings, as SET does": r"set_config",
    "notifies, as NOTIFY does": r"pg_notify",
    "writes large objects": r"lo(_create?|_unlink|_put|_from_bytea|_truncate(64)?|write)",
    "acts on the server or on other sessions": (
        r"pg_(terminate_backend|cancel_backend|reload_conf|promote|switch_(wal|xlog)|create_restore_point"
        r"|(backup|start_backup|stop_backup)\w*|wal_replay_\w+|xlog_replay_\w+|log_backend_memory_contexts"
        r"|replication_\w+|logical_\w+|(create|drop|copy)_\w*replication_slot|sync_replication_slots"
        r"|import_system_collations|stat_reset\w*|restore_\w+_stats|clear_\w+_stats|set_\w+_stats)"
    ),
}
_PATTERNS: Final = tuple((what, re.compile(names)) for what, names in _REACHING.items())


def reaching(sql: str) -> dict[str, str]:
    """What is named in a statement and reaches further, with what it does. Raises `UnreadableStatement`.

    A name is enough: whether it is called cannot be told for certain.
    """
    return {name: what for name in sorted(code_of(sql).names) for what, pattern in _PATTERNS if pattern.fullmatch(name)}
