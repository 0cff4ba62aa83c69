"""Connects to the API server that a command's flags and environment name."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.kube.access import Access, fallback_kubeconfig
from remit.kube.client import Kube
from remit.kube.kubeconfig import is_of_server, state_dir_of
from remit.userpaths import default_state_dir


def chosen(kubeconfig: Path | None) -> Path | None:
    """The kubeconfig that is meant; None: the usual one, or the service account of a pod. Raises `RemitError` where the
    one that was named is not there."""
    kubeconfig = kubeconfig or fallback_kubeconfig()
    if kubeconfig is not None and not kubeconfig.is_file():
        raise RemitError(f"there is no kubeconfig {kubeconfig}; 'remit up' writes one where its --kubeconfig says")
    return kubeconfig


@contextlib.asynccontextmanager
async def connected(
    kubeconfig: Path | None, context: str | None = None, namespace: str | None = None, state_dir: Path | None = None
) -> AsyncIterator[Connection]:
    """Raises `RemitError` when there is no API server to talk to."""
    kubeconfig = chosen(kubeconfig)
    access = await Access.load(kubeconfig, context)
    told, default = state_dir_of(kubeconfig, context), default_state_dir()
    own = state_dir or told or (default if is_of_server(default, access.server) else None)
    known = tuple(path for path in (state_dir, told, default) if path is not None)
    async with Kube(access) as kube:
        yield Connection(kube, namespace or access.namespace, known, (own,) if own else ())
