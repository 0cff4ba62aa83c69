"""The `remit` command, also installed as `kubectl remit`.

A command's module holds its flags and imports what it works with only when it runs, so that `remit --help` and
completion are quick.
"""

from remit.cli.app import main

__all__ = ["main"]
