"""Events are news, not records: they go an hour after their last occurrence, as kube-apiserver's do."""

from __future__ import annotations

from datetime import datetime, timedelta

from remit.controlplane.storage import Object
from remit.controlplane.verbs.cluster import Cluster

EVENT_LIFE = timedelta(hours=1)


def expire_events(cluster: Cluster, life: timedelta = EVENT_LIFE) -> int:
    """Remove events that are older than `life`; the number removed."""
    limit = cluster.now() - life
    expired = 0
    for record in list(cluster.store.collection("events").records.values()):
        event = record.load()
        try:
            old = _last_seen(event) < limit
        except (AttributeError, KeyError, TypeError, ValueError):
            old = True  # the age cannot be determined, and the server would refuse such an Event today
        if old and cluster.store.latest("events", record.namespace, record.name) is record:
            cluster.store.remove("events", event)
            expired += 1
    return expired


def _last_seen(event: Object) -> datetime:
    series = event.get("series") or {}
    times = (
        event["metadata"]["creationTimestamp"],
        event.get("lastTimestamp"),
        event.get("eventTime"),
        series.get("lastObservedTime"),
    )
    return max(datetime.fromisoformat(text) for text in times if text)
