"""The audit records of a task: how it was decided, and how each attempt ended; and what was asked, read back. Pure."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel

from remit import reasons
from remit.api.executiontask import ExecutionTask, Network
from remit.api.operations import ContainerOperation, HttpMethod, HttpOperation
from remit.api.pods import PodOptions
from remit.api.volumes import Artifact, Volume, VolumeFile, VolumeMount
from remit.backends.outcome import Outcome
from remit.execution.admission import Admitted, Refused
from remit.execution.attemptstatus import destinations, usage_status
from remit.policy.limits import Limits
from remit.policy.match import Command
from remit.policy.request import PolicyRequest, request_for
from remit.policy.rules import describe
from remit.policy.verdict import Denial
from remit.sandboxpaths import WORKSPACE
from remit.telemetry.chain import MAX_TEXT, AuditEvent

NODE: Final = os.environ.get("NODE_NAME") or os.uname().nodename
"""The name of the node on which this process runs."""
M = TypeVar("M", bound=BaseModel)
_LIMITS: Final = tuple(each.name for each in dataclasses.fields(Limits))


def decision(task: ExecutionTask, who: str, verdict: Admitted | Refused, attempt: str = "") -> AuditEvent:
    """`who` asked; `attempt` is the id of what was let in."""
    status, command = verdict.status, verdict.command
    refused = verdict.finish if isinstance(verdict, Refused) else None
    withheld = isinstance(verdict, Refused) and verdict.withheld
    return AuditEvent(
        kind="decision",
        **_about(task, who, attempt),
        what="" if withheld else _what(task, command),
        argv=command.argv if command else (),
        asks=_asks(verdict.grant.request if isinstance(verdict, Admitted) else verdict.request),
        executable=command.program if command else "",
        resolved=(command.resolved or "") if command else "",
        policy=status.name if status else "",
        rule=status.rule if status else "",
        verdict="Denied" if refused else "Allowed",
        reason=refused.reason if refused else "",
        category=refused.category if refused else "",
        message=refused.message if refused else "",
        audited=[_would_be(denial, task.metadata.namespace) for denial in verdict.audited],
        output="raw" if task.spec.output.raw else "",
    )


def execution(task: ExecutionTask, who: str, attempt: str, outcome: Outcome) -> AuditEvent:
    """How the attempt with this id ended."""
    usage = usage_status(outcome)
    return AuditEvent(
        kind="execution",
        **_about(task, who, attempt),
        verdict=str(outcome.reason),
        category=outcome.category or reasons.category_of(outcome.reason),
        message=outcome.message,
        exit_code=outcome.exit_code,
        exceeded=[str(limit) for limit in outcome.exceeded],
        usage=usage.model_dump(by_alias=True) if usage else {},
        network=destinations(outcome),
        output_digest=outcome.output_digest,
        layers=[str(layer) for layer in outcome.layers],
    )


def request_on_record(record: Mapping[str, Any]) -> PolicyRequest | None:
    """Read the policy request from the decision `record`; None if the record does not have enough of it."""
    try:
        return _request(record)
    except (ValueError, TypeError, AttributeError):  # written by another version
        return None


def _request(record: Mapping[str, Any]) -> PolicyRequest | None:
    asks, argv, operation = record.get("asks"), record.get("argv"), record.get("operation")
    if not isinstance(asks, dict) or asks.get("network") not in get_args(Network) or "argv_digest" in record:
        return None
    command, subject = None, None
    if operation == "command" and isinstance(argv, list) and argv:
        command = Command(tuple(map(str, argv)), record.get("resolved") or None)
    elif operation == "http":
        subject = _http(str(record.get("what", "")))
    if command is None and subject is None:
        return None
    limits = asks.get("limits")
    numbers = {name: limits[name] for name in _LIMITS if name in limits} if isinstance(limits, dict) else {}
    return PolicyRequest(
        namespace=str(record.get("namespace")),
        labels={str(key): str(value) for key, value in (asks.get("labels") or {}).items()},
        operation="command" if command else "http",
        command=command,
        subject=subject,
        backend=str(record.get("backend")),
        network=asks["network"],
        environment=frozenset(map(str, asks.get("environment") or ())),
        private_files=frozenset(map(str, asks.get("privateFiles") or ())),
        volumes=_parsed(Volume, asks.get("volumes")),
        mounts=_parsed(VolumeMount, asks.get("volumeMounts")),
        stdin_file=next(iter(_parsed(VolumeFile, asks.get("stdinFile"))), None),
        artifacts=_parsed(Artifact, asks.get("artifacts")),
        working_dir=str(asks.get("workingDir") or WORKSPACE),
        raw_output=record.get("output") == "raw",
        image=asks.get("image"),
        pod=PodOptions.model_validate(asks["pod"]) if asks.get("pod") else None,
        limits=Limits(**numbers),
    )


def _would_be(denial: Denial, namespace: str) -> dict[str, str]:
    """A denial by a policy in Audit enforcement, which is named as one that decides is."""
    told = {
        "policy": denial.policy.removeprefix(f"{namespace}/"),
        "rule": denial.rule,
        "reason": str(denial.reason),
        "message": denial.message,
    }
    return {name: text for name, text in told.items() if text}


def _asks(request: PolicyRequest | None) -> dict[str, Any]:
    """The other inputs of rules. Left out where they are more than any other text on record may be."""
    if request is None:
        return {}
    limits = {name: value for name, value in dataclasses.asdict(request.limits).items() if value is not None}
    told = {
        "network": request.network,
        "labels": dict(request.labels),
        "environment": sorted(request.environment),
        "privateFiles": sorted(request.private_files),
        "volumes": _dumped(request.volumes),
        "volumeMounts": _dumped(request.mounts),
        "stdinFile": _dumped([request.stdin_file] if request.stdin_file else []),
        "artifacts": _dumped(request.artifacts),
        "workingDir": _working_dir(request),
        "image": request.image or "",
        "pod": next(iter(_dumped([request.pod] if request.pod else [])), None),
        "limits": limits,
    }
    found = {name: value for name, value in told.items() if value}
    return found if len(json.dumps(found)) <= MAX_TEXT else {}


def _working_dir(request: PolicyRequest) -> str:
    """Returns the folder in which the program starts, in a container or in its sandbox; empty for the default."""
    if isinstance(request.subject, ContainerOperation):
        return request.subject.working_dir or ""
    return request.working_dir if request.working_dir != WORKSPACE else ""


def _dumped(models: Sequence[BaseModel]) -> list[Any]:
    return [each.model_dump(mode="json", by_alias=True, exclude_unset=True) for each in models]


def _parsed(model: type[M], found: Any) -> tuple[M, ...]:
    """Raises `ValueError`."""
    return tuple(model.model_validate(each) for each in found or ())


def _http(what: str) -> HttpOperation | None:
    method, _, url = what.partition(" ")
    return HttpOperation.model_validate({"url": url, "method": method}) if method in get_args(HttpMethod) else None


def _what(task: ExecutionTask, command: Command | None) -> str:
    """A command's argument list says it by itself."""
    return "" if task.spec.operation == "command" else describe(request_for(task, command))


def _about(task: ExecutionTask, who: str, attempt: str) -> dict[str, Any]:
    metadata = task.metadata
    return {
        "namespace": metadata.namespace,
        "task": metadata.name,
        "uid": metadata.uid,
        "who": who,
        "attempt": attempt,
        "operation": task.spec.operation,
        "backend": task.status.backend,
        "node": NODE,
    }
