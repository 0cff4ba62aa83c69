"""CommandPolicies: compiled once for each generation, judged with, and told in status how they fare."""

from __future__ import annotations

import structlog

log = structlog.get_logger(__name__)
