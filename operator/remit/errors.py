"""The error family. Everything Remit raises on purpose is a `RemitError`.

    RemitError
    ├── InvalidInput            what the user wrote cannot be right; `field` says where
    ├── ExecutionError          an execution was refused or came to no result; `result` holds what is known of it
    │   ├── SecurityError       it must not run (also called SecurityException)
    │   │   ├── PolicyDenied        no policy allows it, or one forbids it; never retried
    │   │   └── SandboxUnavailable  this host cannot give a confinement layer that is required; never a silent downgrade
    │   ├── TimeoutError        it took longer than it may, was killed; also a builtin TimeoutError (TimeoutException)
    │   ├── ResourceError       it asks for more than a policy gives, or the host has no more to give
    │   ├── ExecutionCancelled  somebody cancelled it, and nothing of it is alive
    │   ├── BackendError        the place where work runs failed, not the work; retryable
    │   │   └── OutcomeUnknown      … after the work may have run, and nobody saw how it ended; not retried
    │   └── AuditUnavailable    the audit trail cannot be written, so nothing may be decided or run; retryable
    ├── DeploymentError         a release cannot be made, or failed
    ├── WaitTimeout             whoever waited gave up; what was waited for goes on; also a builtin TimeoutError
    ├── LeaseLost               another operator may be at work, so this one must not be; retryable
    ├── NotSupported            this version of Remit does not do that
    └── ApiError                an API server refused a request; `status` is the HTTP code

Each has a `code`, a `category` and a `remedy` (see `remit.reasons`, and docs/errors.md).

A program that exits with another code than 0 is not an error: it is a result. Every message says what was wrong, where,
and what to do about it: it is shown to users as it is.
"""

from __future__ import annotations

import builtins
from typing import Any, ClassVar


class RemitError(Exception):
    """Base of the family. `retryable` says whether the same thing may succeed later without anyone changing it."""

    retryable = False
    reason = ""
    default_code: ClassVar[str] = "RemitError"
    """The code of an exception of this class that was raised without a `reason`."""

    @property
    def code(self) -> str:
        """The stable CamelCase word for what went wrong: the same as in status, Events and the audit trail."""
        return str(self.reason) or self.default_code

    @property
    def category(self) -> str:
        """The kind of failure, one of `remit.reasons.Category`."""
        from remit import reasons

        return str((reasons.find(self.code) or reasons.CATALOGUE[self.default_code]).category)

    @property
    def remedy(self) -> str:
        """What to do about this code in general; the message says it of the case at hand. Empty if nothing is known."""
        from remit import reasons

        found = reasons.find(self.code)
        return found.remedy if found else ""


class InvalidInput(RemitError):
    """What the user wrote cannot be right. `field` is a dotted path such as `spec.command.argv[0]`."""

    default_code = "InvalidInput"

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class ExecutionError(RemitError):
    """An execution was refused, or came to no result of its own.

    `reason` is a stable CamelCase word. `result` is how far it came, as an `ExecutionResult` with its output so far;
    None where it never was one. (It is not typed so, because errors are for packages that know nothing of tasks, too.)
    """

    default_code = "ExecutionError"

    def __init__(self, message: str, *, reason: str = "", result: Any = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.result = result


class SecurityError(ExecutionError):
    """It must not run. `policy` and `rule` decided, where one did."""

    default_code = "SecurityError"

    def __init__(
        self,
        message: str,
        *,
        policy: str = "",
        rule: str = "",
        reason: str = "",
        result: Any = None,
    ) -> None:
        super().__init__(message, reason=reason, result=result)
        self.policy = policy
        self.rule = rule


class PolicyDenied(SecurityError):
    """No policy allows the operation, or one denies it."""

    default_code = "PolicyDenied"


class SandboxUnavailable(SecurityError):
    """A confinement layer that is required cannot be given by this host."""

    default_code = "SandboxUnavailable"


class TimeoutError(ExecutionError, builtins.TimeoutError):
    """It took longer than it may. Nothing of it is alive."""

    default_code = "Timeout"
    retryable = True


class ResourceError(ExecutionError):
    """It asks for more than a policy gives, or the host has no more to give."""

    default_code = "ResourceError"


class ExecutionCancelled(ExecutionError):
    """Somebody cancelled it. Nothing of it is alive."""

    default_code = "Cancelled"


class BackendError(ExecutionError):
    """The place where work runs failed, not the work itself."""

    default_code = "BackendError"
    retryable = True


class OutcomeUnknown(BackendError):
    """The place failed after the work may have run, and nobody saw how it ended: a retry could do it a second time."""

    default_code = "OutcomeUnknown"
    retryable = False


class AuditUnavailable(ExecutionError):
    """The audit trail cannot be written. What cannot be recorded must not happen.

    Where only the end of an execution could not be recorded, `result` has how it ended, and `retryable` is false.
    """

    default_code = "AuditUnavailable"
    retryable = True


class DeploymentError(RemitError):
    """A release cannot be made, or failed.

    `reason` is a stable CamelCase word such as `ImageNotFound`; `retryable` says whether the same may succeed later.
    """

    default_code = "DeploymentFailed"

    def __init__(self, message: str, *, reason: str = "DeploymentFailed", retryable: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable


class MissingReference(RemitError):
    """A Secret, a ConfigMap or a key of one that something refers to is not there (yet)."""

    default_code = "MissingReference"
    retryable = True


class WaitTimeout(RemitError, builtins.TimeoutError):
    """Whoever waited gave up. What was waited for goes on."""

    default_code = "WaitTimeout"
    retryable = True


class LeaseLost(RemitError):
    """Another operator may be at work, so this one must not be."""

    default_code = "LeaseLost"
    retryable = True


class NotSupported(RemitError):
    """This version of Remit does not do that."""

    default_code = "NotSupported"


class ApiError(RemitError):
    """An API server refused a request.

    `status` is the HTTP status code, `reason` the Kubernetes reason such as `NotFound` or `Conflict`.
    """

    default_code = "ApiError"

    def __init__(self, message: str, *, status: int, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.retryable = status in {408, 409, 429} or status >= 500
