"""HTTP: one request, its redirects held to policy, connected to no address but the one that was judged."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.http.executor import HttpExecutor
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["HttpExecutor"]
