"""Remit turns YAML into governed work: tasks run in a sandbox, releases are blue-green, policy alone says yes."""

__version__ = "0.1.0"
