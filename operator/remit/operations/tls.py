"""Whom an operation trusts, and who it says it is, over TLS: certificates that a task refers to, instead of files."""

from __future__ import annotations

import contextlib
import os
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field

from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest
from remit.sandbox.memory import sealed_memory


@dataclass(frozen=True, slots=True)
class TlsMaterial:
    """The certificates and the key of `caFrom`, `certFrom` and `keyFrom` of an operation, in PEM form; None: not
    set."""

    authority: bytes | None = None
    certificate: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    where: str = ""
    """The operation's field, for messages."""

    @classmethod
    def of(cls, request: OperationRequest) -> TlsMaterial:
        """Raises `OperationFailed` where something is referred to and not there."""
        authority, certificate, key = (_value(request, name) for name in ("ca_from", "cert_from", "key_from"))
        return cls(authority, certificate, key, where=_field(request))

    @property
    def is_empty(self) -> bool:
        return self.authority is None and self.certificate is None and self.key is None

    def context(self) -> ssl.SSLContext:
        """Create a TLS context for clients. It reads all authorities of the system if none is given, which takes a
        while.

        Raises `OperationFailed` for what is no certificate or no key, or where the two do not belong together.
        """
        try:
            context = ssl.create_default_context(cadata=None if self.authority is None else self.authority.decode())
        except (ssl.SSLError, ValueError):
            raise _invalid(f"{self.where}.caFrom: what it refers to is no certificate in PEM form") from None
        if self.authority is not None:
            # As in libpq and curl: Python 3.13 requires extensions that private authorities often lack.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        if self.certificate is not None and self.key is not None:
            with in_memory(self.certificate) as certificate, in_memory(self.key) as key:
                try:
                    context.load_cert_chain(certificate, key, password=lambda: "")
                except (ssl.SSLError, ValueError):
                    fields = f"{self.where}.certFrom and {self.where}.keyFrom"
                    raise _invalid(f"{fields}: no certificate in PEM form and its unencrypted key") from None
        return context


@contextlib.contextmanager
def in_memory(content: bytes) -> Iterator[str]:
    """The path of a file that is on no disk and that nobody else may read, for libraries that take nothing else."""
    descriptor = sealed_memory(content)
    try:
        os.fchmod(descriptor, 0o600)  # libpq insists on it
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _value(request: OperationRequest, name: str) -> bytes | None:
    info = type(request.subject).model_fields[name]
    if getattr(request.subject, name) is None:
        return None
    value = next((value for path, value in request.values.items() if path.startswith(f"{info.alias}.")), None)
    # The reference is optional and does not exist; without the value, other authorities would be trusted.
    if value is None:
        raise _invalid(f"{_field(request)}.{info.alias}: what it refers to is not there")
    return value


def _field(request: OperationRequest) -> str:
    return f"spec.{request.grant.request.operation}"


def _invalid(message: str) -> OperationFailed:
    return OperationFailed("Invalid", message, retryable=False)
