"""Logs, metrics, health, and the audit trail."""
