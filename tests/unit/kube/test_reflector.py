"""Tests cases of the reflector outside the model: opaque versions, a server whose history went back, and handlers."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from remit.api.endpoint import Resource
from remit.kube.client import Kube
from remit.kube.indexer import Indexer, by_controller
from remit.kube.reflector import Reflector, ResourceEventHandler

THINGS = Resource("example.com", "v1", "things")
Object = dict[str, Any]


def obj(name: str, version: str, uid: str = "", **metadata: Any) -> Object:
    return {"metadata": {"namespace": "ns", "name": name, "uid": uid or name, "resourceVersion": version, **metadata}}


class Told:
    """Records the calls of a reflector's handlers."""

    def __init__(self, reflector: Reflector) -> None:
        self.news: list[str] = []
        reflector.add_handler(
            ResourceEventHandler(
                lambda new: self.news.append(f"+{new['metadata']['uid']}"),
                lambda old, new: self.news.append(f"~{new['metadata']['uid']}@{new['metadata']['resourceVersion']}"),
                lambda old: self.news.append(f"-{old['metadata']['uid']}@{old['metadata']['resourceVersion']}"),
            )
        )


class Api:
    """Answers a list with the given response."""

    def __init__(self, version: str, *objects: Object) -> None:
        self.version, self.objects = version, list(objects)

    async def snapshot(self, *_: Any, **__: Any) -> tuple[list[Object], str]:
        return self.objects, self.version


def names(reflector: Reflector) -> list[str]:
    return sorted(found["metadata"]["uid"] for found in reflector.objects.list())


async def listed(reflector: Reflector, version: str, *objects: Object) -> None:
    await reflector.list(cast(Kube, Api(version, *objects)))


async def test_opaque_versions_are_ordered_by_arrival() -> None:
    reflector = Reflector(THINGS)
    told = Told(reflector)
    reflector.observe(obj("a", "x"))
    reflector.observe(obj("a", "x"))
    reflector.observe(obj("a", "w"))
    begun = reflector.begin_list()
    reflector.observe(obj("b", "v"))
    reflector.observe(obj("c", "u", "c1"))
    reflector.observe(obj("c", "t", "c2"))
    await reflector.replace([obj("c", "u", "c1")], "z", begun)  # it was read before c2 arrived
    assert names(reflector) == ["b", "c2"]
    reflector.observe_deletion(obj("b", "s"))
    reflector.observe(obj("b", "v"))
    await listed(reflector, "y", obj("c", "u", "c1"))
    assert names(reflector) == ["c1"], "what was replaced without proof can come back"
    assert told.news == ["+a", "~a@w", "+b", "+c1", "-c1@u", "+c2", "-a@w", "~b@s", "-b@s", "-c2@t", "+c1"]


@pytest.mark.parametrize("version", ["", "x", "-1", "٣", "9" * 5000])
def test_what_is_no_number_is_opaque(version: str) -> None:
    reflector = Reflector(THINGS)
    reflector.observe(obj("a", "5"))
    reflector.observe(obj("a", version))
    found = reflector.objects.get("ns/a")
    assert found is not None and found["metadata"]["resourceVersion"] == version


async def test_what_is_just_not_there_any_more_is_told_as_vanished() -> None:
    """A list, a 404 or another object with the name shows that it is missing. If its deletion is observed later, that
    is reported too."""
    reflector, told = Reflector(THINGS), list[str]()
    reflector.add_handler(
        ResourceEventHandler(
            on_delete=lambda gone: told.append(f"-{gone['metadata']['uid']}"),
            on_vanish=lambda gone: told.append(f"?{gone['metadata']['uid']}"),
        )
    )
    plain = Told(reflector)
    await listed(reflector, "10", *(obj(name, "5") for name in "abcd"))
    reflector.observe_deletion(obj("a", "11"))
    await listed(reflector, "12", *(obj(name, "5") for name in "cd"))
    reflector.observe_absence(obj("c", "5"))
    reflector.observe(obj("d", "13", "d2"))
    assert told == ["-a", "?b", "?c", "?d"]
    for _ in range(2):
        reflector.observe_deletion(obj("b", "11"))
    assert told == ["-a", "?b", "?c", "?d", "-b"]
    assert plain.news == ["+a", "+b", "+c", "+d", "~a@11", "-a@11", "-b@5", "-c@5", "-d@5", "+d2"]


async def test_no_more_of_what_vanished_is_remembered_than_of_deletions() -> None:
    reflector, told = Reflector(THINGS, max_tombstones=1), list[str]()
    reflector.add_handler(
        ResourceEventHandler(on_delete=lambda gone: told.append(gone["metadata"]["uid"]), on_vanish=lambda gone: None)
    )
    await listed(reflector, "10", obj("a", "5"), obj("b", "6"))
    await listed(reflector, "12")
    reflector.observe_deletion(obj("a", "11"))
    reflector.observe_deletion(obj("b", "11"))
    assert told == ["b"]


async def test_a_server_whose_history_went_back_is_believed() -> None:
    """`remit up` with an empty state directory, or etcd restored from a backup, has such a history."""
    reflector = Reflector(THINGS)
    told = Told(reflector)
    await listed(reflector, "100", obj("a", "90"), obj("b", "95"))
    reflector.observe_deletion(obj("b", "101"))
    with capture_logs() as logs:
        await listed(reflector, "50", obj("b", "40"), obj("a", "45", "a2"), obj("c", "50"))
    assert names(reflector) == ["a2", "b", "c"]
    assert told.news == ["+a", "+b", "~b@101", "-b@101", "+b", "-a@90", "+a2", "+c"]
    assert len(logs) == 1
    reflector.observe(obj("c", "51"))
    await listed(reflector, "52", obj("c", "51"))
    assert names(reflector) == ["c"]


async def test_a_list_that_was_asked_for_before_is_not_taken_for_a_history_that_went_back() -> None:
    reflector = Reflector(THINGS)
    begun = reflector.begin_list()
    reflector.observe(obj("a", "90"))
    await reflector.replace([obj("b", "40")], "50", begun)
    assert names(reflector) == ["a", "b"]


async def test_what_an_older_list_still_holds_and_a_newer_one_does_not_is_dropped() -> None:
    reflector = Reflector(THINGS)
    told = Told(reflector)
    older, newer = reflector.begin_list(), reflector.begin_list()
    await reflector.replace([obj("kept", "4")], "20", newer)
    await reflector.replace([obj("kept", "4"), obj("gone", "5")], "10", older)
    assert names(reflector) == ["kept"] and told.news == ["+kept"]


async def test_after_a_history_that_went_back_a_version_means_something_else() -> None:
    reflector = Reflector(THINGS)
    await listed(reflector, "100", obj("a", "50", generation=2))
    await listed(reflector, "60", obj("a", "50", generation=1))
    found = reflector.objects.get("ns/a")
    assert found is not None and found["metadata"]["generation"] == 1


async def test_a_long_list_lets_others_have_their_turn() -> None:
    reflector, turns = Reflector(THINGS), 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    await listed(reflector, "9999", *(obj(f"o{number}", str(number)) for number in range(5000)))
    assert turns >= 100
    beside.cancel()


def test_a_handler_hears_of_what_is_there_and_of_changes_in_their_order() -> None:
    reflector = Reflector(THINGS)
    reflector.observe(obj("a", "1"))

    def write_back(new: Object) -> None:
        if new["metadata"]["name"] == "b":
            reflector.observe(obj("b", "3"))

    reflector.add_handler(ResourceEventHandler(on_add=write_back))
    told = Told(reflector)
    reflector.observe(obj("b", "2"))
    assert told.news == ["+a", "+b", "~b@3"]


def test_a_handler_that_fails_keeps_nothing_from_the_others() -> None:
    reflector = Reflector(THINGS)

    def fail(_: Object) -> None:
        raise RuntimeError("a mistake")

    reflector.add_handler(ResourceEventHandler(on_add=fail))
    told = Told(reflector)
    with capture_logs() as logs:
        reflector.observe(obj("a", "1"))
    assert told.news == ["+a"] and [entry["log_level"] for entry in logs] == ["error"]


def test_objects_may_change_while_somebody_goes_through_them() -> None:
    reflector = Reflector(THINGS)
    for number in range(3):
        reflector.observe(obj(f"o{number}", str(number + 1)))
    for found in reflector.objects.list():
        reflector.observe_deletion(found)
    assert names(reflector) == []


@pytest.mark.parametrize(
    "references", [None, "x", [None], [{"controller": True}], [{"controller": True, "uid": ["u"]}], [{"uid": "u"}]]
)
def test_an_odd_owner_reference_is_no_owner(references: Any) -> None:
    assert by_controller(obj("a", "1", ownerReferences=references)) == []


def test_two_objects_of_one_name_are_a_mistake() -> None:
    indexer = Indexer()
    indexer.put(obj("a", "1", "u1"))
    with pytest.raises(ValueError, match="two objects"):
        indexer.put(obj("a", "2", "u2"))
    assert "u1" in indexer and len(indexer) == indexer.count("ns") == 1
