"""What can be seen from outside. Logs, metrics, health, and the audit trail."""
