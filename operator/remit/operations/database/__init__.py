"""Databases: one transaction on a pooled connection, under policy."""
