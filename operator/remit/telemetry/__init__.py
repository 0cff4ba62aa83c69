"""What can be seen from outside. Logs, metrics, health, and the audit trail."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.telemetry.audit import AuditLog
    from remit.telemetry.chain import GENESIS, Anchor, AuditEvent
    from remit.telemetry.health import Check, Checks, HealthServer, make_app
    from remit.telemetry.logs import bound, configure, escape, get_logger
    from remit.telemetry.metrics import Metrics
    from remit.telemetry.redact import MASK, RedactedStream, Redactor
    from remit.telemetry.verifying import AuditProblem, Report, verify
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "GENESIS",
    "MASK",
    "Anchor",
    "AuditEvent",
    "AuditLog",
    "AuditProblem",
    "Check",
    "Checks",
    "HealthServer",
    "Metrics",
    "RedactedStream",
    "Redactor",
    "Report",
    "bound",
    "configure",
    "escape",
    "get_logger",
    "make_app",
    "verify",
]
