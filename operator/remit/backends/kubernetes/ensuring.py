"""Objects under names that anybody can guess: what a pod is to be given is what we made, or there is no pod."""

from __future__ import annotations

from typing import Any, Final

from remit.api.endpoint import Resource
from remit.errors import ApiError, BackendError
from remit.kube.client import Kube, Object

_CONTENT: Final = ("spec", "data", "binaryData", "immutable", "type")
_TRIES: Final = 8
"""Others make and remove it at the same time."""
_NOT_FOUND: Final = 404


def exists(error: ApiError) -> bool:
    """Whether something has the name. A server that could not charge a quota answers 409, too."""
    return error.reason == "AlreadyExists"


async def ensure(kube: Kube, resource: Resource, namespace: str, manifest: Object, *, new: bool = False) -> None:
    """Have an object of this content. One of the same name and another content is deleted. `new`: there should be none.

    Raises `ApiError`, and `BackendError` where somebody keeps another one there.
    """
    name = manifest["metadata"]["name"]
    for number in range(_TRIES):
        found = None if new and number == 0 else await read(kube, resource, namespace, name)
        if found is not None:
            if all(found.get(part) == manifest[part] for part in _CONTENT if part in manifest):
                return
            await kube.discard(resource, namespace, name, uid=found["metadata"]["uid"])
        try:
            await kube.create(resource, namespace, manifest)
        except ApiError as error:
            if error.status != 409:
                raise
        else:
            return
    raise BackendError(
        f"{manifest['kind']} {name} of namespace {namespace} is not what Remit made, and it comes back or cannot be"
        " deleted; find out who made it, and remove it with its finalizers"
    )


async def read(kube: Kube, resource: Resource, namespace: str, name: str) -> dict[str, Any] | None:
    """The object; None: there is none. Raises `ApiError`."""
    try:
        return await kube.get(resource, namespace, name)
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return None
