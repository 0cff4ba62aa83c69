"""Floor 1: metrics, structured logs and the audit trail."""
