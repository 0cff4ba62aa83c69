"""Tests that updates that are our own writes of status are distinguished from those of other clients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from remit.api.commandpolicy import CommandPolicyStatus
from remit.api.endpoint import Resource
from remit.kube.client import Kube, Object
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.kube.status import StatusWriter
from remit.telemetry.metrics import Metrics

THINGS = Resource("example.com", "v1", "things")


def thing(version: str, **status: Any) -> Object:
    metadata = {"namespace": "ns", "name": "a", "uid": "u", "resourceVersion": version}
    return {"metadata": metadata, "status": status}


class Server:
    """Accepts one write. `before_the_answer` is called between the write and its response."""

    def __init__(self, before_the_answer: Callable[[], None] = lambda: None) -> None:
        self.before_the_answer = before_the_answer

    async def patch(self, resource: Any, namespace: str, name: str, body: Object, **_: Any) -> Object:
        self.before_the_answer()
        return thing("2", **body["status"])


def updates(reflector: Reflector, writer: StatusWriter) -> list[bool]:
    """Returns for each update whether it is reported as one of another client."""
    told: list[bool] = []
    reflector.add_handler(
        ResourceEventHandler(on_update=lambda before, after: told.append(writer.by_others(before, after)))
    )
    return told


async def test_a_write_is_told_from_the_updates_of_others() -> None:
    reflector = Reflector(THINGS)
    writer = StatusWriter(cast(Kube, Server()), reflector, Metrics(), "Thing")
    told = updates(reflector, writer)
    reflector.observe(thing("1"))
    await writer.write(thing("1"), CommandPolicyStatus(allowed=1))
    reflector.observe(thing("2", allowed=1))  # the watch delivers it too
    reflector.observe(thing("3", allowed=1))
    assert told == [False, True]


async def test_a_write_that_the_watch_brings_first_is_taken_for_that_of_another() -> None:
    reflector = Reflector(THINGS)
    server = Server(lambda: reflector.observe(thing("2", allowed=1)))
    writer = StatusWriter(cast(Kube, server), reflector, Metrics(), "Thing")
    told = updates(reflector, writer)
    reflector.observe(thing("1"))
    await writer.write(thing("1"), CommandPolicyStatus(allowed=1))
    assert told == [True]
