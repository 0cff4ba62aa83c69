"""Databases: one transaction on a pooled connection, under policy."""

from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.redis import RedisExecutor

__all__ = ["PostgresExecutor", "RedisExecutor"]
