"""Derives alerts from tasks, Deployments and health checks. Pure: the time is an argument."""

from __future__ import annotations

import datetime
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from remit.api.duration import seconds_of
from remit.api.group import API_VERSION
from remit.notifications.alert import Alert, AlertKey, AlertName
from remit.notifications.config import NotificationConfig

Object = Mapping[str, Any]

MOST_ACTIVE: Final = 1000
"""Alerts that are known at once; beyond it the oldest of the namespace that has most are forgotten."""
_MOST_DENIALS: Final = 1000
"""Moments of denials that are remembered for one namespace."""
_MOST_SCHEDULES: Final = 10_000
"""Schedules of which the newest run is remembered."""
_FAILED: Final = frozenset({"Failed", "TimedOut"})
_OVER: Final = _FAILED | {"Succeeded", "Cancelled", "Denied"}
_LONGEST_MESSAGE: Final = 500
_NAME: Final = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_AHEAD: Final = datetime.timedelta(minutes=5)
"""How far the clock of a status' writer may be ahead."""
_UNHEALTHY_SECONDS: Final = 30
"""How long a health check must fail before somebody is notified."""


class ActiveAlerts:
    """The alerts there are. What it is told of may come in any order and more than once."""

    def __init__(self, config: NotificationConfig, told: Collection[AlertKey] = ()) -> None:
        """`told`: what an operator before this one told of. A check among it that still fails needs no 30 s."""
        self._config = config
        self._told = frozenset(told)
        self._active: OrderedDict[AlertKey, Alert] = OrderedDict()
        self._newest_run: OrderedDict[tuple[str, str], datetime.datetime] = OrderedDict()
        self._denials: dict[str, deque[tuple[datetime.datetime, str]]] = {}
        self._failing_since: dict[str, datetime.datetime] = {}

    def at(self, now: datetime.datetime) -> list[Alert]:
        """The active alerts, the oldest first."""
        self._count_denials(now)
        for key, alert in list(self._active.items()):
            if alert.ends_at is not None and alert.ends_at <= now:
                del self._active[key]
        return list(self._active.values())

    def observe_task(self, task: Object, now: datetime.datetime) -> None:
        status = task.get("status") or {}
        phase, ended = status.get("phase"), _moment(status.get("completionTime"), now)
        metadata = task["metadata"]
        if phase not in _OVER or ended is None or phase == "Cancelled" or metadata.get("deletionTimestamp"):
            return
        namespace, name = metadata["namespace"], metadata["name"]
        if phase == "Denied":
            self._denied(namespace, metadata["uid"], ended, now)
            return
        kind, owner = _controller(metadata)
        until = ended + datetime.timedelta(seconds=self._config.seconds("task_failed_for"))
        if until > now and (unusual := _unusual(status)):
            self._set(AlertName.TASK_UNUSUAL, namespace, f"task/{name}", unusual, ended, task, until)
        if kind == "ExecutionTask":
            self._run_ended(task, owner, failed=phase in _FAILED, ended=ended)
        elif kind != "Deployment" and phase in _FAILED and until > now:  # a release itself reports its failed hooks
            self._set(AlertName.TASK_FAILED, namespace, f"task/{name}", _why(status), ended, task, until)

    def forget_task(self, task: Object) -> None:
        """It was deleted. If it was a schedule, nothing runs by it any more."""
        namespace, name = task["metadata"]["namespace"], task["metadata"]["name"]
        self._clear(AlertName.TASK_FAILED, namespace, f"task/{name}")
        self._clear(AlertName.TASK_UNUSUAL, namespace, f"task/{name}")
        self._clear(AlertName.SCHEDULE_FAILING, namespace, f"schedule/{name}")
        self._newest_run.pop((namespace, name), None)

    def observe_deployment(self, deployment: Object, now: datetime.datetime) -> None:
        status, metadata = deployment.get("status") or {}, deployment["metadata"]
        found = _release_alert(status)
        subject = f"deployment/{metadata['name']}"
        for name in _OF_RELEASES:
            if name == found:
                self._set(name, metadata["namespace"], subject, _shortened(status.get("message", "")), now, deployment)
            else:
                self._clear(name, metadata["namespace"], subject)

    def forget_deployment(self, deployment: Object) -> None:
        for name in _OF_RELEASES:
            self._clear(name, deployment["metadata"]["namespace"], f"deployment/{deployment['metadata']['name']}")

    def observe_checks(self, failing: Mapping[str, str], now: datetime.datetime) -> None:
        """`failing`: the health checks that fail now, and why."""
        for check in [check for check in self._failing_since if check not in failing]:
            del self._failing_since[check]
            self._clear(_name_of_check(check), "", f"check/{check}")
        for check, why in failing.items():
            since = self._failing_since.setdefault(check, now)
            told = AlertKey(_name_of_check(check), "", f"check/{check}") in self._told
            if told or now - since >= datetime.timedelta(seconds=_UNHEALTHY_SECONDS):
                self._set(_name_of_check(check), "", f"check/{check}", _shortened(why), since)

    def _run_ended(self, run: Object, schedule: str, *, failed: bool, ended: datetime.datetime) -> None:
        namespace = run["metadata"]["namespace"]
        newest = self._newest_run.get((namespace, schedule))
        if newest is not None and ended < newest:
            return
        self._newest_run[(namespace, schedule)] = ended
        self._newest_run.move_to_end((namespace, schedule))
        if len(self._newest_run) > _MOST_SCHEDULES:
            self._newest_run.popitem(last=False)
        if failed:
            why = f"{run['metadata']['name']}: {_why(run['status'])}"
            self._set(AlertName.SCHEDULE_FAILING, namespace, f"schedule/{schedule}", _shortened(why), ended, run)
        else:
            self._clear(AlertName.SCHEDULE_FAILING, namespace, f"schedule/{schedule}")

    def _denied(self, namespace: str, uid: str, ended: datetime.datetime, now: datetime.datetime) -> None:
        if now - ended > datetime.timedelta(seconds=seconds_of(self._config.denials.within)):
            return
        denials = self._denials.setdefault(namespace, deque(maxlen=_MOST_DENIALS))
        if all(uid != known for _, known in denials):
            denials.append((ended, uid))

    def _count_denials(self, now: datetime.datetime) -> None:
        within = self._config.denials.within
        since = now - datetime.timedelta(seconds=seconds_of(within))
        for namespace, denials in list(self._denials.items()):
            while denials and denials[0][0] < since:
                denials.popleft()
            if len(denials) >= self._config.denials.count:
                message = f"policies denied {len(denials)} tasks within {within}"
                self._set(AlertName.POLICY_DENIALS, namespace, "policy", message, denials[0][0])
            else:
                self._clear(AlertName.POLICY_DENIALS, namespace, "policy")
            if not denials:
                del self._denials[namespace]

    def _set(
        self,
        name: AlertName,
        namespace: str,
        subject: str,
        message: str,
        started_at: datetime.datetime,
        about: Object | None = None,
        ends_at: datetime.datetime | None = None,
    ) -> None:
        key = AlertKey(name, namespace, subject)
        if (before := self._active.get(key)) is not None:
            started_at = before.started_at if ends_at is None else started_at
        labels = about["metadata"].get("labels") or {} if about else {}
        self._active[key] = Alert(key, message, started_at, ends_at, labels)
        if len(self._active) > MOST_ACTIVE:
            self._forget_one()

    def _forget_one(self) -> None:
        """Whoever has failing tasks without number must not have others told that all is well."""
        ((namespace, _),) = Counter(key.namespace for key in self._active).most_common(1)
        del self._active[next(key for key in self._active if key.namespace == namespace)]

    def _clear(self, name: AlertName, namespace: str, subject: str) -> None:
        self._active.pop(AlertKey(name, namespace, subject), None)


_OF_RELEASES: Final = (
    AlertName.RELEASE_WAITING,
    AlertName.RELEASE_ROLLED_BACK,
    AlertName.RELEASE_FAILED,
    AlertName.DEPLOYMENT_DEGRADED,
)


def _release_alert(status: Object) -> AlertName | None:
    """The one that a Deployment's status is about, the worst where there are several."""
    phase = status.get("phase")
    if phase == "AwaitingPromotion":
        return AlertName.RELEASE_WAITING
    if phase == "RollingBack":
        return AlertName.RELEASE_ROLLED_BACK
    if _is_true(status.get("conditions") or (), "Stalled") and phase in {"Degraded", "Failed"}:
        history = status.get("history") or []
        rolled_back = any(record.get("outcome") == "RolledBack" for record in history[:1])
        return AlertName.RELEASE_ROLLED_BACK if rolled_back else AlertName.RELEASE_FAILED
    return AlertName.DEPLOYMENT_DEGRADED if phase == "Degraded" else None


def _name_of_check(check: str) -> AlertName:
    return AlertName.AUDIT_UNAVAILABLE if check == "audit" else AlertName.OPERATOR_UNHEALTHY


def _is_true(conditions: Iterable[Object], type_: str) -> bool:
    return any(condition.get("type") == type_ and condition.get("status") == "True" for condition in conditions)


def _controller(metadata: Object) -> tuple[str, str]:
    """Kind and name of the object of ours that made it, if one did."""
    for owner in metadata.get("ownerReferences") or ():
        if owner.get("controller") and owner.get("apiVersion") == API_VERSION and _NAME.fullmatch(owner["name"]):
            return owner["kind"], owner["name"]
    return "", ""


def _why(status: Object) -> str:
    error = status.get("error") or {}
    return _shortened(error.get("message") or status.get("message") or "it failed")


def _unusual(status: Object) -> str:
    """How the task differs from earlier ones, if it does."""
    for condition in status.get("conditions") or ():
        if (condition.get("type"), condition.get("status")) == ("Unusual", "True"):
            return _shortened(condition.get("message") or "it took much more or less than those before")
    return ""


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_MESSAGE else f"{text[: _LONGEST_MESSAGE - 1]}…"


def _moment(text: str | None, now: datetime.datetime) -> datetime.datetime | None:
    """Parse a time. One without a zone is UTC, and one far after `now` is cut, because a schema accepts both."""
    if not text:
        return None
    moment = datetime.datetime.fromisoformat(text)
    return min(moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC), now + _AHEAD)
