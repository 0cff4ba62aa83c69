"""Floor 1: what can be seen from outside. Logs, metrics, health, and the audit trail."""

from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import GENESIS, Anchor, AuditEvent
from remit.telemetry.health import Check, Checks, HealthServer, make_app
from remit.telemetry.logs import bound, configure, escape, get_logger
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import MASK, RedactedStream, Redactor
from remit.telemetry.verify import Problem, Report, verify

__all__ = [
    "GENESIS",
    "MASK",
    "Anchor",
    "AuditEvent",
    "AuditLog",
    "Check",
    "Checks",
    "HealthServer",
    "Metrics",
    "Problem",
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
