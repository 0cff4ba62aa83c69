from __future__ import annotations

from typing import Any

from remit.kube.cache import Cache


def obj(name: str, version: int, uid: str = "1") -> dict[str, Any]:
    return {"metadata": {"namespace": "ns", "name": name, "uid": uid, "resourceVersion": str(version)}}


def test_an_older_form_never_replaces_a_newer_one() -> None:
    cache = Cache()
    assert cache.store("tasks", obj("a", 5))
    assert not cache.store("tasks", obj("a", 4))
    assert not cache.store("tasks", obj("a", 5))
    assert cache.store("tasks", obj("a", 6))


def test_another_object_of_the_same_name_replaces_it() -> None:
    cache = Cache()
    cache.store("tasks", obj("a", 5))
    assert cache.store("tasks", obj("a", 3, uid="2"))
    assert cache.remove("tasks", "ns/a", uid="1") is None
    assert cache.remove("tasks", "ns/a", uid="2") is not None
    assert cache.get("tasks", "ns/a") is None


def test_a_list_tells_what_changed_and_what_is_gone() -> None:
    cache = Cache()
    for name in "abc":
        cache.store("tasks", obj(name, 1))
    known = cache.keys("tasks")
    cache.store("tasks", obj("d", 9))  # came while the list was on its way
    changed = cache.replace("tasks", [obj("a", 1), obj("b", 2)], known)
    assert changed == {"ns/b", "ns/c"}
    assert cache.keys("tasks") == {"ns/a", "ns/b", "ns/d"}


def test_objects_by_namespace() -> None:
    cache = Cache()
    cache.store("tasks", obj("a", 1))
    assert [found["metadata"]["name"] for found in cache.all("tasks", "ns")] == ["a"]
    assert list(cache.all("tasks", "n")) == []
