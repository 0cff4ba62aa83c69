"""Logs failures of the export of telemetry: when one begins and when it is over, and not for each batch."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_SDK: Final = "opentelemetry"


class _SdkLog(logging.Handler):
    """Keeps what the SDK logs first of an export, by thread: an exporter tells only its log why it failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._of = threading.local()
        self.told: set[str] = set()
        """What was logged beside exports. The SDK's messages are few."""

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if getattr(self._of, "exporting", False):
            self._of.message = self._of.message or message
        elif str(record.msg) not in self.told:
            self.told.add(str(record.msg))
            log.warning("OpenTelemetry", reason=message)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        self._of.exporting, self._of.message = True, ""
        try:
            yield
        finally:
            self._of.exporting = False

    @property
    def message(self) -> str:
        return getattr(self._of, "message", "")


_SDK_LOG: Final = _SdkLog()


def take_over_logs() -> None:
    """Redirect the SDK's logs to here, also after its end, because one of its threads may run a little longer."""
    logger = logging.getLogger(_SDK)
    logger.propagate = False
    _SDK_LOG.told.clear()
    if _SDK_LOG not in logger.handlers:
        logger.addHandler(_SDK_LOG)


class Attempts:
    """The exports of one signal, as far as they went well. For one thread."""

    def __init__(self, signal: str) -> None:
        self._signal = signal
        self._failing = False

    @contextlib.contextmanager
    def one(self) -> Iterator[list[bool]]:
        """Around one export, which puts into the list whether it went well."""
        succeeded: list[bool] = []
        with _SDK_LOG.listening():
            yield succeeded
        if all(succeeded) and self._failing:
            log.info(f"{self._signal} are exported to OpenTelemetry again")
        elif not all(succeeded) and not self._failing:
            reason = _SDK_LOG.message or "no reason given"
            log.warning(f"{self._signal} cannot be exported to OpenTelemetry; some are lost", reason=reason)
        self._failing = not all(succeeded)
