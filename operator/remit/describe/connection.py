"""Connects to the API server, and to the run store if it is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from remit.api.endpoint import Resource
from remit.didyoumean import did_you_mean
from remit.errors import ApiError, RemitError
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube, Object

_KINDS = {
    TASKS: ("ExecutionTask", "remit get -A"),
    POLICIES: ("CommandPolicy", "remit get policies -A"),
    DEPLOYMENTS: ("Deployment", "remit get deployments -A"),
}
"""What each is called, and the command that lists all of them."""
_SUGGESTED_OF = 500


@dataclass(frozen=True, slots=True)
class Connection:
    """An open client, the namespace that is meant, and where to look for run stores."""

    kube: Kube
    namespace: str
    state_dirs: tuple[Path, ...]
    own_state_dirs: tuple[Path, ...] = ()
    """Of `state_dirs`, those of this API server's operator. What is found by a uid may be looked for in all of them; an
    audit trail is another server's where the directory is."""

    async def find(self, resource: Resource, name: str) -> Object:
        """The object of that name in the namespace. Raises `RemitError` that says where it was looked for."""
        try:
            return await self.kube.get(resource, self.namespace, name)
        except ApiError as error:
            if error.status == 404 and error.reason == "NotFound" and name in str(error):
                kind, listing = _KINDS[resource]
                meant = await self._did_you_mean(resource, name)
                where = f"{name} in namespace {self.namespace}"
                raise RemitError(f"there is no {kind} {where}{meant or ';'} '{listing}' lists all") from None
            raise

    async def _did_you_mean(self, resource: Resource, name: str) -> str:
        """Names that are like `name`, as the end of a sentence. Empty where there is none, or it cannot be known."""
        try:
            known = await names_of(self.kube, resource, self.namespace)
        except ApiError:
            return ""
        return did_you_mean(name, known)

    def run_directory(self, namespace: str, uid: str, attempt_id: str) -> Path | None:
        """The folder with the output of an attempt, if it is on this machine and may be read."""
        # Imported here, because it imports the models of tasks, which a table does not need.
        from remit.execution.reading import run_directory

        return run_directory(self.state_dirs, namespace, uid, attempt_id)


async def names_of(kube: Kube, resource: Resource, namespace: str | None) -> list[str]:
    """Names of objects, of the first few hundred: for suggestions."""
    page = await kube.request("GET", resource.path(namespace), params={"limit": str(_SUGGESTED_OF)})
    return [obj["metadata"]["name"] for obj in page.get("items", [])]
