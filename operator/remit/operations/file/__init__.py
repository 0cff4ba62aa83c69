"""Files: created, read, changed and removed beneath what policy allows."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.file.performer import FilePerformer
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["FilePerformer"]
