"""Databases: one transaction on a pooled connection, under policy."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.database.postgres import PostgresExecutor
    from remit.operations.database.redis import RedisExecutor
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["PostgresExecutor", "RedisExecutor"]
