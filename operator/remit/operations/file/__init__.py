"""Files: created, read, changed and removed beneath what policy allows."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.file.executor import FileExecutor
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["FileExecutor"]
