"""What fails beneath a target, as a release hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from remit.errors import DeploymentError, RemitError


def failed(error: RemitError) -> DeploymentError:
    """The same, with its stable reason."""
    return DeploymentError(str(error), reason=error.code, retryable=error.retryable)


@contextlib.contextmanager
def ordering() -> Iterator[None]:
    """Around an order to a target: whatever Remit's own it raises is a DeploymentError."""
    try:
        yield
    except DeploymentError:
        raise
    except RemitError as error:
        raise failed(error) from error
