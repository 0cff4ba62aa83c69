"""Runs a task from its admission to its final status."""
