"""Durable objects with history: what etcd is to a kube-apiserver."""

from remit.controlplane.storage.collection import Collection, Subscription
from remit.controlplane.storage.records import Change, EventType, Object, Record, compact, object_key
from remit.controlplane.storage.store import Store, StoreFailed, WriteAbandoned

__all__ = [
    "Change",
    "Collection",
    "EventType",
    "Object",
    "Record",
    "Store",
    "StoreFailed",
    "Subscription",
    "WriteAbandoned",
    "compact",
    "object_key",
]
