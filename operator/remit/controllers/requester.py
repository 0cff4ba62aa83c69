"""Finds who requested an object."""

from __future__ import annotations

from dataclasses import dataclass

from remit.execution.schedule import REQUESTED_BY
from remit.kube.client import Object


@dataclass(frozen=True, slots=True)
class Requester:
    """`user:NAME` where the API server said who it was, otherwise `manager:NAME`: the field manager that set the spec
    first, which is what a client calls itself.

    `trusted`: the annotation is written at admission and cannot be forged. `only_user`: there is but one.
    """

    trusted: bool = False
    only_user: str = ""

    def __call__(self, obj: Object) -> str:
        metadata = obj["metadata"]
        if self.only_user:
            return f"user:{self.only_user}"
        if self.trusted and (user := (metadata.get("annotations") or {}).get(REQUESTED_BY)):
            return f"user:{user}"
        # An entry of a client that sends no User-Agent has no manager.
        entries = [entry for entry in metadata.get("managedFields") or () if "f:spec" in (entry.get("fieldsV1") or {})]
        first = min(entries, key=lambda entry: str(entry.get("time", "")), default=None)
        return f"manager:{first['manager']}" if first and first.get("manager") else ""
