"""Objects under names that anybody can guess: what a pod is to be given is what we made, or there is no pod."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

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


class Immutables:
    """Immutable objects that many attempts share: each is read once, and then known by its uid."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._uids: dict[str, str] = {}

    async def ensure(self, resource: Resource, namespace: str, name: str, manifest: Callable[[], Object]) -> None:
        """Like `ensure`, but what the object should be is made only to be compared or created."""
        path = resource.path(namespace, name)
        if path in self._uids:
            found = await read(self._kube, resource, namespace, name, metadata_only=True)
            if found is not None and found["metadata"]["uid"] == self._uids[path]:
                return
        self._uids[path] = await ensure(self._kube, resource, namespace, manifest())


async def ensure(kube: Kube, resource: Resource, namespace: str, manifest: Object, *, new: bool = False) -> str:
    """Have an object of this content, and give its uid. One of the same name and another content is deleted. `new`:
    there should be none.

    Raises `ApiError`, and `BackendError` where somebody keeps another one there.
    """
    name = manifest["metadata"]["name"]
    for number in range(_TRIES):
        found = None if new and number == 0 else await read(kube, resource, namespace, name)
        if found is not None:
            if all(found.get(part) == manifest[part] for part in _CONTENT if part in manifest):
                return str(found["metadata"]["uid"])
            await kube.discard(resource, namespace, name, uid=found["metadata"]["uid"])
        try:
            return str((await kube.create(resource, namespace, manifest))["metadata"]["uid"])
        except ApiError as error:
            if error.status != 409:
                raise
    raise BackendError(
        f"{manifest['kind']} {name} of namespace {namespace} is not what Remit made, and it comes back or cannot be"
        " deleted; find out who made it, and remove it with its finalizers"
    )


async def read(
    kube: Kube, resource: Resource, namespace: str, name: str, *, metadata_only: bool = False
) -> Object | None:
    """The object; None: there is none. Raises `ApiError`."""
    try:
        return await (kube.get_metadata if metadata_only else kube.get)(resource, namespace, name)
    except ApiError as error:
        if error.status != _NOT_FOUND:
            raise
        return None
