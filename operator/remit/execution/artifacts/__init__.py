"""Keeps files that tasks make, for later tasks and users."""
