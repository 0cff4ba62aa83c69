"""Releases: where they may put what they run. What that is falls under the rules for the same done by a task."""

from __future__ import annotations

from remit.policy.compile import CompiledPolicy
from remit.policy.request import ReleasePlace
from remit.policy.verdict import Denial, Reason


def judge(policy: CompiledPolicy, place: ReleasePlace) -> Denial | None:
    """Why a release may not go there; None if it may."""
    for field, wish, what in (
        ("engines", place.engine, "the Docker engine"),
        ("namespaces", place.namespace, "namespace"),
        ("serviceAccounts", place.service_account, "service account"),
    ):
        if wish and not any(pattern.matches(wish) for pattern in policy.release_places[field]):
            listed = ", ".join(policy.spec.releases.model_dump(by_alias=True)[field]) or "no entry"
            message = (
                f"policy {policy.key} does not allow a release to {what} {wish}; spec.releases.{field} has {listed}"
            )
            return Denial(Reason.NOT_ALLOWED, message, policy.key, f"releases.{field}")
    return None
