"""Containers of a Docker engine: run, looked after and removed."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.operations.container.executor import ContainerExecutor
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["ContainerExecutor"]
