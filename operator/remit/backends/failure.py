"""How an operation says that it did not succeed."""

from __future__ import annotations

from remit.errors import RemitError


class OperationFailed(RemitError):
    """It was tried and did not succeed. `reason` is one CamelCase word, and API; `retryable`: the same may succeed
    later."""

    def __init__(self, reason: str, message: str, *, retryable: bool = True, category: str = "Operation") -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable
        self.category = category
