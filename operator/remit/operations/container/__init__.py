"""Containers of a Docker engine: run, looked after and removed."""

from remit.operations.container.performer import ContainerPerformer

__all__ = ["ContainerPerformer"]
