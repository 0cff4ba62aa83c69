"""Releases: where they may put what they run. What that is falls under the rules for the same done by a task."""

from __future__ import annotations

from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.engines import BadEngine, EngineAddress
from remit.policy.request import ReleasePlace
from remit.policy.verdict import Denial, Reason


def judge(policy: CompiledPolicy, place: ReleasePlace) -> Denial | None:
    """Why a release may not go there; None if it may."""
    if place.engine:
        try:
            engine = EngineAddress.parse(place.engine)
        except BadEngine as error:
            message = f"spec.target.docker.host: {error}"
            return Denial(Reason.NOT_ALLOWED, message, policy.key, "releases.engines")
        if not any(pattern.matches(engine) for pattern in policy.engines):
            return _denied(policy, "engines", f"the Docker engine {place.engine}", needs.engine(place.engine))
    for field, wish, what in (
        ("namespaces", place.namespace, "namespace"),
        ("serviceAccounts", place.service_account, "service account"),
    ):
        if wish and not any(pattern.matches(wish) for pattern in policy.release_places[field]):
            return _denied(policy, field, f"{what} {wish}", needs.release_place(field, wish))
    return None


def _denied(policy: CompiledPolicy, field: str, what: str, lacking: needs.Part | None) -> Denial:
    listed = ", ".join(policy.spec.releases.model_dump(by_alias=True)[field]) or "no entry"
    message = f"policy {policy.key} does not allow a release to {what}; spec.releases.{field} has {listed}"
    return Denial(Reason.NOT_ALLOWED, message, policy.key, f"releases.{field}", lacking)
