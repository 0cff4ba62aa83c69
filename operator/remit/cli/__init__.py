"""The `remit` command, also installed as `kubectl remit`.

A command's module holds its flags and imports what it works with only when it runs, so that `remit --help` and
completion are quick. The processes of `remit up` import modules of this package too, and none of the commands.
"""

from typing import TYPE_CHECKING

from remit.lazily import lazily, without

with without("rich"):  # structlog would use rich for tracebacks, which Remit's logs show unchanged
    import structlog  # noqa: F401  (each command and process imports it)

if TYPE_CHECKING:
    from remit.cli.app import main
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["main"]
