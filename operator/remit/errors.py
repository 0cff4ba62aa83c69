"""The error family. Everything Remit raises on purpose is a `RemitError`.

    RemitError
    ├── InvalidInput          what the user wrote cannot be right; `field` says where
    ├── PolicyDenied          no policy allows it, or one forbids it; never retried
    ├── SandboxUnavailable    this host cannot give a confinement layer that is required; never a silent downgrade
    ├── AuditUnavailable      the audit trail cannot be written, so nothing may be decided or run; retryable
    ├── BackendError          the place where work runs failed, not the work; retryable
    └── ApiError              an API server refused a request; `status` is the HTTP code

Every message says what was wrong, where, and what to do about it: it is shown to users as it is.
"""

from __future__ import annotations


class RemitError(Exception):
    """Base of the family. `retryable` says whether the same thing may succeed later without anyone changing it."""

    retryable = False


class InvalidInput(RemitError):
    """What the user wrote cannot be right. `field` is a dotted path such as `spec.command.argv[0]`."""

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class PolicyDenied(RemitError):
    """No policy allows the operation, or one denies it."""


class SandboxUnavailable(RemitError):
    """A confinement layer that is required cannot be given by this host."""


class AuditUnavailable(RemitError):
    """The audit trail cannot be written. What cannot be recorded must not happen."""

    retryable = True


class BackendError(RemitError):
    """The place where work runs failed, not the work itself."""

    retryable = True


class ApiError(RemitError):
    """An API server refused a request.

    `status` is the HTTP status code, `reason` the Kubernetes reason such as `NotFound` or `Conflict`.
    """

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retryable = status in {408, 409, 429} or status >= 500
