"""How an operation says that it did not succeed."""

from __future__ import annotations

from typing import Final

from remit.errors import RemitError

LONGEST_RETRY_AFTER: Final = 3600.0
"""Seconds for which a server is taken at its word that it is not to be asked again before."""


class OperationFailed(RemitError):
    """It was tried and did not succeed. `reason` is one CamelCase word, and API; `retryable`: the same may succeed
    later; `category`: another one than the reason's own, this time; `retry_after`: not before so many seconds."""

    default_code = "OperationFailed"

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        retryable: bool = True,
        category: str = "",
        retry_after: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retryable = retryable
        self._category = category
        self.retry_after = min(retry_after, LONGEST_RETRY_AFTER)

    @property
    def category(self) -> str:
        return self._category or super().category
