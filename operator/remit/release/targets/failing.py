"""What fails beneath a target, as a release hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError, RemitError


def failed(error: RemitError) -> DeploymentError:
    """The same, with its stable reason."""
    reason = error.reason if isinstance(error, OperationFailed | DeploymentError) else type(error).__name__
    return DeploymentError(str(error), reason=reason, retryable=error.retryable)


@contextlib.contextmanager
def ordering() -> Iterator[None]:
    """Around an order to a target: whatever Remit's own it raises is a DeploymentError."""
    try:
        yield
    except DeploymentError:
        raise
    except RemitError as error:
        raise failed(error) from error
