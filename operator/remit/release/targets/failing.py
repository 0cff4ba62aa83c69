"""Turns failures beneath a target into errors of a release."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from remit.errors import DeploymentError, RemitError


def failed(error: RemitError) -> DeploymentError:
    """The same, with its stable reason."""
    return DeploymentError(str(error), reason=error.code, retryable=error.retryable)


@contextlib.contextmanager
def ordering() -> Iterator[None]:
    """Converts Remit's own exceptions from an order to a target into DeploymentError."""
    try:
        yield
    except DeploymentError:
        raise
    except RemitError as error:
        raise failed(error) from error
