"""Tests which notification is sent to which receiver, and when."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.notifications.alert import Alert, AlertKey, AlertName
from remit.notifications.config import NotificationConfig
from remit.notifications.grouping import GroupKey, Groups, Notification, receivers_of
from remit.notifications.message import body, title

NOW = datetime.datetime(2030, 1, 2, 3, 0, tzinfo=datetime.UTC)


def config(*routes: dict[str, Any], **rest: Any) -> NotificationConfig:
    receivers = [{"name": name, "apprise": {"urls": ["json://localhost"]}} for name in ("ops", "shop")]
    receivers.append({"name": "am", "alertmanager": {"url": "http://am:9093"}})
    return NotificationConfig.model_validate(
        {"receivers": receivers, "routes": list(routes) or [{"receivers": ["ops"]}], **rest}
    )


def alert(
    subject: str = "deployment/web",
    name: AlertName = AlertName.DEPLOYMENT_DEGRADED,
    namespace: str = "shop",
    ends_at: datetime.datetime | None = None,
    **labels: str,
) -> Alert:
    return Alert(AlertKey(name, namespace, subject), f"{subject} is not well", NOW, ends_at, labels)


def at(**span: float) -> datetime.datetime:
    return NOW + datetime.timedelta(**span)


def told(groups: Groups, alerts: list[Alert], now: datetime.datetime) -> list[str]:
    """Delivers all notifications that are due, and returns them."""
    due = groups.update(alerts, now)
    for notification in due:
        groups.delivered(notification, now)
    return [f"{title(notification)}: {body(notification)}" for notification in due]


@pytest.mark.parametrize(
    ("route", "matches"),
    [
        ({}, True),
        ({"alerts": ["DeploymentDegraded"]}, True),
        ({"alerts": ["TaskFailed"]}, False),
        ({"severity": "warning"}, True),
        ({"severity": "critical"}, False),
        ({"namespaces": ["sh*"]}, True),
        ({"namespaces": ["prod-*"]}, False),
        ({"selector": {"matchLabels": {"team": "a"}}}, True),
        ({"selector": {"matchLabels": {"team": "b"}}}, False),
    ],
)
def test_routes(route: dict[str, Any], matches: bool) -> None:
    routes = config({"receivers": ["ops"], **route}, {"receivers": ["shop"], "alerts": ["TaskFailed"]}).routes
    assert receivers_of(alert(team="a"), routes) == ({"ops"} if matches else set())


def test_a_route_by_namespace_leaves_out_the_operator() -> None:
    routes = config({"receivers": ["ops"], "namespaces": ["*"]}).routes
    assert receivers_of(alert(name=AlertName.OPERATOR_UNHEALTHY, namespace=""), routes) == set()


def test_alerts_of_a_group_come_together() -> None:
    groups, first, second = Groups(config()), alert(), alert("deployment/api")
    assert told(groups, [first], NOW) == []
    assert told(groups, [first, second], at(seconds=5)) == []
    assert told(groups, [first, second], at(seconds=10)) == [
        "[2 firing] DeploymentDegraded in shop: deployment/web: deployment/web is not well\n"
        "deployment/api: deployment/api is not well"
    ]
    assert told(groups, [first, second], at(minutes=10)) == []


def test_what_changes_waits_for_the_interval_and_what_does_not_is_repeated() -> None:
    groups, first, second = Groups(config()), alert(), alert("deployment/api")
    told(groups, [first], NOW)
    assert told(groups, [first], at(seconds=10))
    assert told(groups, [first, second], at(minutes=5)) == []
    assert told(groups, [first, second], at(minutes=5, seconds=10))
    assert told(groups, [first, second], at(hours=4, minutes=5)) == []
    assert told(groups, [first, second], at(hours=4, minutes=5, seconds=10))


def test_the_end_is_reported_once() -> None:
    groups, first = Groups(config()), alert()
    told(groups, [first], NOW)
    told(groups, [first], at(seconds=10))
    assert told(groups, [], at(minutes=1)) == []
    assert told(groups, [], at(minutes=6)) == ["[1 resolved] DeploymentDegraded in shop: deployment/web: resolved"]
    assert told(groups, [], at(days=1)) == []
    assert groups.as_json() == []


def test_a_problem_that_ended_before_its_report_is_not_reported() -> None:
    groups = Groups(config())
    assert told(groups, [alert()], NOW) == []
    assert told(groups, [], at(seconds=10)) == []


def test_the_end_of_a_transient_problem_is_not_reported() -> None:
    groups, failed = Groups(config()), alert("task/a", AlertName.TASK_FAILED, ends_at=at(hours=1))
    told(groups, [failed], NOW)
    assert told(groups, [failed], at(seconds=10))
    assert told(groups, [], at(hours=1)) == []


def test_a_problem_that_returns_before_its_end_was_reported_is_not_reported_again() -> None:
    groups, first = Groups(config()), alert()
    told(groups, [first], NOW)
    told(groups, [first], at(seconds=10))
    assert told(groups, [], at(minutes=1)) == []
    assert told(groups, [first], at(minutes=6)) == []


def test_each_receiver_gets_one_message_at_a_time() -> None:
    groups = Groups(config({"receivers": ["ops", "shop", "am"]}))
    alerts = [alert(), alert(namespace="bank")]
    groups.update(alerts, NOW)
    for namespace in ("shop", "bank"):
        due = groups.update(alerts, at(seconds=10))
        assert {one.group.receiver for one in due} == {"ops", "shop"}
        assert {one.group.namespace for one in due} == {namespace}
        for notification in due:
            groups.delivered(notification, at(seconds=10))
    assert groups.update(alerts, at(seconds=10)) == []


def test_a_failed_delivery_is_tried_again_less_and_less_often() -> None:
    groups, first = Groups(config()), alert()
    groups.update([first], NOW)
    now, waits = at(seconds=10), []
    for _ in range(9):
        (notification,) = groups.update([first], now)
        groups.failed(notification, now)
        begun = now
        while not groups.update([first], now):
            now += datetime.timedelta(seconds=1)
        waits.append((now - begun).total_seconds())
    assert waits == [15, 30, 60, 120, 240, 480, 600, 600, 600]
    (notification,) = groups.update([first], now)
    groups.delivered(notification, now)
    assert groups.update([first], now) == []


def test_at_most_so_many_an_hour() -> None:
    groups = Groups(config(mostAnHour=2))
    alerts = [alert(namespace=f"ns{number}") for number in range(5)]
    sent = [minutes for minutes in range(181) if told(groups, alerts, at(minutes=minutes))]
    assert sent == [1, 2, 61, 62, 121]


def test_a_restart_tells_nothing_twice_and_no_end_is_lost() -> None:
    groups, first, second = Groups(config()), alert(), alert("deployment/api")
    told(groups, [first, second], NOW)
    told(groups, [first, second], at(seconds=10))
    again = Groups.from_json(config(), groups.as_json())
    assert told(again, [first, second], at(minutes=1)) == []
    assert told(again, [first], at(minutes=6)) == [
        "[1 firing, 1 resolved] DeploymentDegraded in shop: deployment/web: deployment/web is not well\n"
        "deployment/api: resolved"
    ]


def test_a_receiver_that_is_gone_is_forgotten() -> None:
    groups, first = Groups(config()), alert()
    told(groups, [first], NOW)
    told(groups, [first], at(seconds=10))
    stored = [entry | {"receiver": "gone"} for entry in groups.as_json()]
    assert Groups.from_json(config(), stored).as_json() == []


def test_a_long_message_names_the_first() -> None:
    groups = Groups(config())
    alerts = [alert(f"deployment/d{number}") for number in range(30)]
    groups.update(alerts, NOW)
    (notification,) = groups.update(alerts, at(seconds=10))
    assert title(notification) == "[30 firing] DeploymentDegraded in shop"
    assert body(notification).splitlines()[-1] == "and 10 more"
    assert isinstance(notification, Notification)


def test_a_problem_that_ends_during_its_delivery_is_reported_as_ended() -> None:
    """A delivery may take longer than the time between two observations."""
    groups = Groups(config())
    groups.update([alert()], NOW)
    (sending,) = groups.update([alert()], at(seconds=10))
    assert groups.update([], at(seconds=15)) == []
    groups.delivered(sending, at(seconds=16))
    assert told(groups, [], at(minutes=6)) == ["[1 resolved] DeploymentDegraded in shop: deployment/web: resolved"]


def test_a_problem_that_ended_during_failed_deliveries_is_forgotten() -> None:
    groups = Groups(config())
    groups.update([alert()], NOW)
    (sending,) = groups.update([alert()], at(seconds=10))
    groups.update([], at(seconds=15))
    groups.failed(sending, at(seconds=16))
    assert told(groups, [], at(minutes=6)) == []


def test_a_clock_that_was_ahead_suppresses_no_notification() -> None:
    groups = Groups(config(most_an_hour=1))
    ahead = NOW + datetime.timedelta(days=30)
    told(groups, [alert()], ahead)
    assert told(groups, [alert()], ahead + datetime.timedelta(seconds=10))
    groups.update([alert("deployment/api"), alert()], NOW)
    (failing,) = groups.update([alert("deployment/api"), alert()], at(hours=1, minutes=1))
    groups.failed(failing, ahead)
    groups.update([alert("deployment/api"), alert()], at(hours=1, minutes=2))
    assert told(groups, [alert("deployment/api"), alert()], at(hours=1, minutes=13))


def test_a_moment_without_a_zone_is_no_memory() -> None:
    told_before = [{"receiver": "ops", "name": "TaskFailed", "namespace": "shop", "told": [], "toldAt": "2030-01-01"}]
    with pytest.raises(ValueError, match="zone"):
        Groups.from_json(config(), told_before)


def test_a_message_has_one_line_for_each_alert() -> None:
    lying = Alert(alert().key, "down\ntask/other: resolved\x1b[2J\r\u2028x", NOW)
    notification = Notification(GroupKey("ops", lying.key.name, "shop"), (lying,), ())
    assert body(notification) == "deployment/web: down task/other: resolved\\x1b[2J x"


def test_a_storm_in_many_namespaces_does_not_silence_the_operator() -> None:
    groups = Groups(config(most_an_hour=3))
    storm = [alert(name=AlertName.TASK_FAILED, namespace=f"n{number}") for number in range(50)]
    for second in range(0, 60, 5):
        told(groups, storm, at(seconds=second))
    own = alert("check/audit", AlertName.AUDIT_UNAVAILABLE, "")
    assert told(groups, [*storm, own], at(minutes=2)) == []
    assert told(groups, [*storm, own], at(minutes=2, seconds=10)) == [
        "[1 firing] AuditUnavailable: check/audit: check/audit is not well"
    ]
