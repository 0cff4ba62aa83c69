"""Files: created, read, changed and removed beneath what policy allows."""

from remit.operations.file.executor import FileExecutor

__all__ = ["FileExecutor"]
