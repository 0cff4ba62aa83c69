"""Reads what ran, or was denied, from the API server and the audit trail: the runs that `remit policy suggest` is
about."""

from __future__ import annotations

import contextlib
import datetime
import threading
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from remit.api.controllerref import controller_of
from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.api.group import API_VERSION
from remit.backends.egress.usage import OTHERS
from remit.controllers.policies import compile_object
from remit.controllers.values import Source, secrets_of
from remit.describe.connection import Connection
from remit.errors import ApiError, InvalidInput, MissingReference, RemitError
from remit.execution.recording import request_on_record
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Object
from remit.operations.command import look_up
from remit.policy.compile import CompiledPolicy
from remit.policy.hosts import BadHost, Destination
from remit.policy.request import PolicyRequest
from remit.policy.suggestion import LeftOut, Options, Run, Suggestion, suggest, written
from remit.policy.testing import request_of
from remit.release import configuration
from remit.release.judging import requests
from remit.telemetry.redact import MASK, Redactor
from remit.telemetry.trail import Filter, read

_NOTHING: Final = PolicyRequest(namespace="")
_NOT_HERE: Final = (
    "where it wanted to connect is on the audit trail, which is not on this machine; suggest on the operator's host, or"
    " list what lastDenied of its status says"
)
Reached = Mapping[str, Collection[str]]
"""Destinations such as `api.example.com:443`, by the uid of the task."""


@dataclass(frozen=True)
class Wanted:
    """Selects runs."""

    since: datetime.datetime | None
    task: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    deployment: str | None = None
    """Only what this one runs."""

    def takes(self, name: str, schedule: str | None, labels: Mapping[str, str], moment: datetime.datetime) -> bool:
        named = self.deployment is None and (self.task is None or self.task in {name, schedule})
        timely = self.since is None or moment >= self.since
        return named and timely and self.labels.items() <= labels.items()


@dataclass
class ObservedRuns:
    """The runs that were found, and those of which too little is known."""

    runs: list[Run] = field(default_factory=list)
    unclear: list[LeftOut] = field(default_factory=list)
    uids: set[str] = field(default_factory=set)
    """Uids of all existing tasks, wanted or not."""

    def leave_out(self, name: str, why: str) -> None:
        self.unclear.append(LeftOut(Run(name=name, request=_NOTHING), why))


@dataclass(frozen=True)
class Today:
    """The policies of the namespace, and the ceilings."""

    policies: Sequence[CompiledPolicy]
    ceilings: Sequence[CompiledPolicy]

    @property
    def specs(self) -> dict[str, dict[str, Any]]:
        """Specs by the name of the namespace's own policies."""
        return {policy.name: written(policy) for policy in self.policies}


async def suggested(
    connection: Connection, wanted: Wanted, operator_namespace: str, trail: Path | None, options: Options
) -> tuple[Suggestion, Today]:
    """Raises `RemitError`, and for a task of a name that is nowhere, too."""
    namespace = connection.namespace
    today = await policies_of(connection, operator_namespace)
    if wanted.deployment is not None:
        await connection.find(DEPLOYMENTS, wanted.deployment)
    reached = reached_by(trail, namespace) if trail is not None else None
    seen = await tasks_of(connection, wanted, reached)
    if trail is not None and wanted.deployment is None:
        add_recorded(seen, trail, namespace, wanted, reached)
    if wanted.task is None:
        await add_deployments(seen, connection, wanted)
    if wanted.task is not None and not seen.runs and not seen.unclear:
        await connection.find(TASKS, wanted.task)
        raise RemitError(f"task {wanted.task} of namespace {namespace} does not have the labels that are asked for")
    found = suggest(seen.runs, namespace, today.policies, today.ceilings, options)
    return replace(found, left_out=(*seen.unclear, *found.left_out)), today


async def policies_of(connection: Connection, operator_namespace: str) -> Today:
    namespace = connection.namespace
    if namespace == operator_namespace:
        raise RemitError(
            f"a policy in {namespace} is a ceiling for every namespace, and whatever it does not allow is denied in all"
            " of them; write that one by hand"
        )
    objects = await connection.kube.list(POLICIES, namespace)
    ceilings = await connection.kube.list(POLICIES, operator_namespace)
    return Today([compile_object(obj) for obj in objects], [compile_object(obj) for obj in ceilings])


async def tasks_of(connection: Connection, wanted: Wanted, reached: Reached | None = None) -> ObservedRuns:
    """The tasks on the API server, with the names that `envFrom` brings, and their Secrets looked for. `reached` is
    None where it is not known where they connected to."""
    seen, source = ObservedRuns(), Source(connection.kube, connection.namespace)
    objects = await connection.kube.list(TASKS, connection.namespace)
    with_runs = {controller_of(obj, API_VERSION, "ExecutionTask") for obj in objects}
    for obj in sorted(objects, key=lambda each: str(each["metadata"]["name"])):
        metadata = obj["metadata"]
        seen.uids.add(metadata["uid"])
        schedule = controller_of(obj, API_VERSION, "ExecutionTask")
        labels = metadata.get("labels") or {}
        if not wanted.takes(metadata["name"], schedule, labels, _moment(obj)):
            continue
        if (obj.get("spec") or {}).get("schedule") and metadata["name"] in with_runs:
            continue  # the runs of the schedule are added instead
        await _add(seen, source, obj, reached)
    return seen


async def task_of(connection: Connection, obj: Object, reached: Reached | None) -> ObservedRuns:
    """The run of one task alone."""
    seen = ObservedRuns()
    await _add(seen, Source(connection.kube, connection.namespace), obj, reached)
    return seen


async def _add(seen: ObservedRuns, source: Source, obj: Object, reached: Reached | None) -> None:
    name = _name(obj)
    if reached is None and any((each.get("network") or {}).get("denied") for each in _attempts(obj)):
        seen.leave_out(name, _NOT_HERE)
    with _unreadable_left_out(seen, name):
        task = ExecutionTask.parse(obj)
        environment = await _environment(source, task)
        secrets = await secrets_of(source.kube, source.namespace, task.spec, source)
        request = _as_found(request_of(task, None, environment))
        stdin, mask = bool(task.spec.stdin or task.spec.stdin_from), Redactor(secrets).redact_cut
        destinations = _destinations(seen, name, (reached or {}).get(obj["metadata"]["uid"]))
        run = Run(name=name, request=request, destinations=destinations, stdin=stdin, mask=mask, masked=MASK)
        seen.runs.append(run)


@contextlib.contextmanager
def _unreadable_left_out(seen: ObservedRuns, name: str) -> Iterator[None]:
    """Leave out `name` if it cannot be read, with the reason."""
    try:
        yield
    except (InvalidInput, MissingReference) as error:
        seen.leave_out(name, str(error))
    except ApiError as error:
        if error.status != 403:
            raise
        seen.leave_out(name, f"{error}; who suggests its policy must be able to tell its secrets from all else")


def _attempts(obj: Object) -> list[dict[str, Any]]:
    return (obj.get("status") or {}).get("attempts") or []


def _destinations(seen: ObservedRuns, name: str, recorded: Collection[str] | None) -> frozenset[Destination]:
    """The destinations that rules can name. A request that named none is refused whatever policies say."""
    found = set()
    for text in recorded or ():
        if text == OTHERS:
            seen.leave_out(name, "it wanted more destinations than are on record; run it again with those allowed")
        with contextlib.suppress(BadHost):
            found.add(Destination.parse(text))
    return frozenset(found)


async def add_deployments(seen: ObservedRuns, connection: Connection, wanted: Wanted) -> None:
    """Add what Deployments run, or are kept from running, as they are declared now; none for who may not list them."""
    try:
        objects = await connection.kube.list(DEPLOYMENTS, connection.namespace)
    except ApiError as error:
        if error.status != 403 or wanted.deployment is not None:
            raise
        return
    for obj in objects:
        metadata = obj["metadata"]
        labelled = wanted.labels.items() <= (metadata.get("labels") or {}).items()
        if labelled and wanted.deployment in {None, metadata["name"]}:
            await _add_deployment(seen, Source(connection.kube, connection.namespace), obj)


async def _add_deployment(seen: ObservedRuns, source: Source, obj: Object) -> None:
    name = f"Deployment {obj['metadata']['name']}"
    with _unreadable_left_out(seen, name):
        deployment = Deployment.parse(obj)
        _, material = await configuration.read(source, deployment.spec)
        asked = [_as_found(request) for request in requests(deployment, material)]
        mask = Redactor(material.secrets).redact_cut
        seen.runs += [Run(name=name, request=request, mask=mask, masked=MASK) for request in asked]


async def _environment(source: Source, task: ExecutionTask) -> dict[str, str | None]:
    """The variables of `envFrom`, by name; a value that is no text is not known."""
    found: dict[str, str | None] = {}
    for bundle in task.spec.env_from:
        reference = bundle.secret_ref or bundle.config_map_ref
        if reference is not None:
            data = await source.data(bundle.secret_ref is not None, reference.name, reference.optional)
            found |= {f"{bundle.prefix}{key}": _text(value) for key, value in data.items()}
    return found


def _text(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def _as_found(request: PolicyRequest) -> PolicyRequest:
    """The command with the path at which its program is found here, if it is: on the operator's own host, `deny` rules
    know its links."""
    command = request.command
    if command is None or not request.beside_the_operator:
        return request
    found = look_up(command.argv)
    return replace(request, command=found) if found.resolved else request


def _name(obj: Object) -> str:
    name = obj["metadata"]["name"]
    if (obj.get("spec") or {}).get("schedule"):
        return f"schedule {name}"
    if schedule := controller_of(obj, API_VERSION, "ExecutionTask"):
        return f"schedule {schedule}"
    if deployment := controller_of(obj, API_VERSION, "Deployment"):
        return f"hooks of Deployment {deployment}"
    return f"task {name}"


def _moment(obj: Object) -> datetime.datetime:
    """When it last did something, as far as it says."""
    status = obj.get("status") or {}
    told = [obj["metadata"].get("creationTimestamp"), status.get("completionTime"), status.get("startTime")]
    told.append(status.get("lastScheduleTime"))
    moments = [datetime.datetime.fromisoformat(text) for text in told if isinstance(text, str)]
    return max(moments, default=datetime.datetime.max.replace(tzinfo=datetime.UTC))


def reached_by(trail: Path, namespace: str, stop: threading.Event | None = None) -> Reached:
    """The destinations that tasks of the namespace connected to or wanted to, as the ends of their attempts have it on
    record. Raises `ReadCancelled` once `stop` is set."""
    found: dict[str, set[str]] = defaultdict(set)
    ended = Filter(namespace=namespace, kind="execution")
    for _, record in read(trail, stop):
        if record is not None and ended(record) and isinstance(record.get("network"), list):
            found[str(record.get("uid"))] |= {str(each.get("destination")) for each in record["network"]}
    return found


def add_recorded(
    seen: ObservedRuns, trail: Path, namespace: str, wanted: Wanted, reached: Reached | None = None
) -> None:
    """Add what the audit trail has of tasks that do not exist any more: the last decision on each."""
    wanted_records = Filter(since=wanted.since, namespace=namespace, task=wanted.task, kind="decision")
    last = {
        str(record["uid"]): record
        for _, record in read(trail)
        if record is not None and wanted_records(record) and record.get("uid") and record["uid"] not in seen.uids
    }
    for record in last.values():
        request = request_on_record(record)
        name = f"task {record.get('task')} (deleted)"
        if request is None:
            what = record.get("what") or record.get("operation") or "it"
            seen.leave_out(name, f"the audit trail does not tell enough of {what}; run it once more, and keep the task")
        elif wanted.labels.items() <= request.labels.items():
            destinations = _destinations(seen, name, (reached or {}).get(str(record["uid"])))
            seen.runs.append(Run(name=name, request=request, destinations=destinations, masked=MASK, hidden=True))
