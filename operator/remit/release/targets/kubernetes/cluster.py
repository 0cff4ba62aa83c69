"""The requests of the target to an API server, and what an API server's refusal means to a release."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any, Final, Protocol

from remit.api.endpoint import Resource
from remit.errors import ApiError, DeploymentError

MANAGER: Final = "remit"
"""The author of the fields, for server-side apply."""
WORKLOADS: Final = Resource("apps", "v1", "deployments")
REVISIONS: Final = Resource("apps", "v1", "controllerrevisions")
SERVICES: Final = Resource("", "v1", "services")
SECRETS: Final = Resource("", "v1", "secrets")
PODS: Final = Resource("", "v1", "pods")
ENDPOINTS: Final = Resource("discovery.k8s.io", "v1", "endpointslices")

Object = dict[str, Any]
Objects = list[Object]


class Cluster(Protocol):
    """A connection to an API server. Every method raises `ApiError`."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> Objects: ...

    async def apply(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, manager: str, force: bool = False
    ) -> Object: ...

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, *, subresource: str | None = None
    ) -> Object: ...

    async def delete(self, resource: Resource, namespace: str | None, name: str, *, uid: str | None = None) -> None: ...

    def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str = "",
        label_selector: str = "",
        field_selector: str = "",
    ) -> AsyncGenerator[tuple[str, Object], None]: ...


@contextlib.contextmanager
def answering() -> Iterator[None]:
    """An API server's refusal as a `DeploymentError`."""
    try:
        yield
    except ApiError as error:
        raise DeploymentError(f"the API server says: {error}", reason=error.code, retryable=error.retryable) from None


async def found(cluster: Cluster, resource: Resource, namespace: str, name: str) -> Object | None:
    """The object, or None. Raises `ApiError` for any other answer."""
    try:
        return await cluster.get(resource, namespace, name)
    except ApiError as error:
        if error.status == 404:
            return None
        raise


async def listing(cluster: Cluster, resource: Resource, namespace: str, selector: str) -> Objects:
    """All of them; none where the API server has no such kind. Raises `ApiError` for any other answer."""
    try:
        return await cluster.list(resource, namespace, label_selector=selector)
    except ApiError as error:
        if error.status == 404:
            return []
        raise


async def gone(cluster: Cluster, resource: Resource, namespace: str, name: str) -> None:
    """Delete it if it is there."""
    try:
        await cluster.delete(resource, namespace, name)
    except ApiError as error:
        if error.status != 404:
            raise
