"""Judges the pod of a Job: where it goes, as whom it runs, and with what."""

from __future__ import annotations

from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.verdict import Denial, Reason

_WORDS = {
    "nodeSelectors": "node selector",
    "tolerations": "toleration",
    "runtimeClasses": "runtime class",
    "priorityClasses": "priority class",
    "serviceAccounts": "service account",
    "pullSecrets": "pull secret",
}


def judge_pod(policy: CompiledPolicy, request: PolicyRequest) -> Denial | None:
    """Why it may not have that; None if it may."""
    if request.pod is None:
        return None
    for field, wishes in request.pod.wishes.items():
        patterns = policy.pods[field]
        if missing := [wish for wish in wishes if not any(pattern.matches(wish) for pattern in patterns)]:
            listed = ", ".join(policy.spec.pods.model_dump(by_alias=True)[field]) or "no entry"
            message = (
                f"policy {policy.key} does not allow the {_WORDS[field]} {missing[0]}; spec.pods.{field} has {listed}"
            )
            return Denial(Reason.POD_NOT_ALLOWED, message, policy.key, f"pods.{field}", needs.pods(field, missing))
    return None
