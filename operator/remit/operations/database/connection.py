"""Reads a connection Secret. It is written by users, and read in the operator: nothing of the operator's own files,
sockets or environment may come into it."""

from __future__ import annotations

import hashlib
from collections.abc import Set
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlsplit

from remit.api.operations import PostgresOperation, RedisOperation
from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest
from remit.operations.tls import TlsMaterial


@dataclass(frozen=True, slots=True)
class DatabaseServer:
    """A server to connect to. `name` is that of its Secret and key, with the namespace."""

    name: str
    url: str = field(repr=False)
    tls: TlsMaterial

    @property
    def digest(self) -> bytes:
        """A digest of everything that a connection is made with."""
        parts = (self.url.encode(), self.tls.authority, self.tls.certificate, self.tls.key)
        return hashlib.sha256(b"".join(hashlib.sha256(part or b"").digest() for part in parts)).digest()


def target(request: OperationRequest, schemes: Set[str], options: Set[str]) -> DatabaseServer:
    """Read the connection Secret of a database operation. Raises `OperationFailed`, which never shows its content."""
    operation = request.subject
    assert isinstance(operation, PostgresOperation | RedisOperation)  # noqa: S101  # by its operation
    raw = request.values.get("connection")
    if raw is None:
        raise invalid("the key that spec…connection names is not there")
    try:
        url = raw.decode().strip()
        parts = urlsplit(url)
        unknown = {name for name, _ in parse_qsl(parts.query, keep_blank_values=True)} - options
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise invalid("it is not a URL") from None
    if parts.scheme not in schemes:
        raise invalid(f"it must be a URL that begins with {' or '.join(sorted(f'{s}://' for s in schemes))}")
    if not host or host.startswith("/") or "%2f" in parts.netloc.lower():
        raise invalid("it must name a host; sockets of the operator's own machine are closed")
    if "," in parts.netloc:
        raise invalid("it must name one host")
    if unknown:
        listed = ", ".join(sorted(options))
        raise invalid(f"it may have the options {listed}, and no others; {len(unknown)} others are given")
    name = f"{request.namespace}/{operation.connection.name}/{operation.connection.key}"
    tls = TlsMaterial.of(request)
    if not tls.is_empty:
        tls.context()  # raises for invalid certificates before connecting
    return DatabaseServer(name, url, tls)


def invalid(message: str) -> OperationFailed:
    return OperationFailed("InvalidConnection", f"the connection Secret: {message}", retryable=False)


def untrusted(why: str, field: str) -> OperationFailed:
    """`why` is OpenSSL's word, or libpq's."""
    message = f"the server's certificate is not trusted: {why}; name its authority in {field}.caFrom"
    return OperationFailed("TlsFailed", message, retryable=False)
