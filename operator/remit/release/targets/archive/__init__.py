"""Archives of artifacts: whoever made one may be hostile, so a confined process of its own unpacks it."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.targets.archive.unpacking import unpack
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["unpack"]
