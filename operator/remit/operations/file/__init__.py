"""Files: created, read, changed and removed beneath what policy allows."""

from remit.operations.file.performer import FilePerformer

__all__ = ["FilePerformer"]
