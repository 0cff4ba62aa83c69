"""The audit records of a release. Pure."""

from __future__ import annotations

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import RequestAnswer
from remit.execution.recording import NODE
from remit.release.steps import Finish, Provision, Retire, Scale, Step, Switch
from remit.telemetry.chain import AuditEvent


def step(deployment: Deployment, who: str, taken: Step, revision: int | None) -> AuditEvent | None:
    """The record of what is about to be done to what runs, or to where requests go; None for what touches neither."""
    match taken:
        case Provision(slot=slot, replicas=count):
            what = f"{count} instances of revision {taken.revision.number} on {slot}"
        case Scale(slot=slot, replicas=count):
            what = f"{count} instances on {slot}"
        case Switch(live=live, share=share):
            what = f"requests to {live}" + (f", but {share} % of them" if share else "")
        case Retire(slot=slot):
            what = f"no instances on {slot}"
        case Finish(outcome=outcome, reason=reason, message=message):
            return _event(deployment, who, str(outcome), f"{reason}: {message}", revision)
        case _:
            return None
    return _event(deployment, who, type(taken).__name__, what, revision)


def answer(deployment: Deployment, given: RequestAnswer, who: str) -> AuditEvent:
    """A request by hand, and whether it was followed."""
    verdict = "Requested" if given.accepted else "RequestRefused"
    message = f"{given.kind}: {given.message}" if given.kind else given.message
    return _event(deployment, who, verdict, message, None)


def _event(deployment: Deployment, who: str, verdict: str, message: str, revision: int | None) -> AuditEvent:
    metadata, target = deployment.metadata, deployment.spec.target
    return AuditEvent(
        kind="release",
        namespace=metadata.namespace,
        task=metadata.name,
        uid=metadata.uid,
        who=who,
        attempt=f"revision {revision}" if revision is not None else "",
        argv=tuple(target.process.command) if target.process else (),
        verdict=verdict,
        message=message,
        node=NODE,
    )
