"""Databases: one transaction on a pooled connection, under policy."""

from remit.operations.database.postgres import PostgresPerformer
from remit.operations.database.redis import RedisPerformer

__all__ = ["PostgresPerformer", "RedisPerformer"]
