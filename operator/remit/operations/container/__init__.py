"""Containers of a Docker engine: run, looked after and removed."""

from remit.operations.container.executor import ContainerExecutor

__all__ = ["ContainerExecutor"]
