"""Tests server-side apply and field ownership. The expected values are those of kube-apiserver 1.36."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.apply import ApplyConflict, server_side_apply
from remit.controlplane.schema.fieldset import compare, decode, encode, fields_of, object_schema
from remit.controlplane.schema.managedfields import track_update
from remit.errors import ApiError

NAMES = {"type": "object", "additionalProperties": {"type": "string"}}
SPEC = {
    "type": "object",
    "properties": {
        "a": {"type": "integer"},
        "m": NAMES,
        "am": {**NAMES, "x-kubernetes-map-type": "atomic"},
        "l": {"type": "array", "items": {"type": "string"}},
        "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "lm": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "v": {"type": "integer"}, "w": {"type": "integer"}},
            },
        },
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "n": {"type": "object", "properties": {"x": {"type": "integer"}, "y": NAMES}},
    },
}
SCHEMA = SimpleNamespace(raw={"type": "object", "properties": {"spec": SPEC, "status": {"type": "object"}}})
T1 = datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)
T2 = datetime(2026, 1, 1, 0, 0, 2, tzinfo=UTC)


def config(spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    obj = {"apiVersion": "p.io/v1", "kind": "W", "metadata": {"name": "a", "namespace": "n", **metadata}}
    return obj if spec is None else {**obj, "spec": spec}


def apply(live: Any, wanted: Any, manager: str, *, force: bool = False, now: datetime = T1, **more: Any) -> Any:
    before = copy.deepcopy((live, wanted))
    result = server_side_apply(
        live, wanted, manager=manager, force=force, schema=SCHEMA, api_version="p.io/v1", now=now, **more
    )
    assert (live, wanted) == before, "nothing given may be changed"
    return result


def update(old: Any, new: Any, manager: str, *, now: datetime = T2, subresource: str | None = None) -> Any:
    new = copy.deepcopy(new)
    track_update(old, new, manager=manager, schema=SCHEMA, api_version="p.io/v1", now=now, subresource=subresource)
    return new


def owners(obj: Any) -> dict[str, Any]:
    return {f"{e['manager']} {e['operation']}": e["fieldsV1"] for e in obj["metadata"].get("managedFields", [])}


FULL = {
    "a": 1,
    "m": {"x": "1"},
    "am": {"q": "1"},
    "l": ["1"],
    "s": ["u", "v"],
    "lm": [{"name": "p", "v": 1}],
    "free": {"z": [1], "y": {}, "j": {"i": 1}},
}


def test_create() -> None:
    obj = apply(None, config(FULL, labels={"l": "1"}, finalizers=["a/b"]), "one")
    assert obj["spec"] == FULL
    assert obj["metadata"]["managedFields"] == [
        {
            "manager": "one",
            "operation": "Apply",
            "apiVersion": "p.io/v1",
            "time": "2026-01-01T00:00:01Z",
            "fieldsType": "FieldsV1",
            "fieldsV1": {
                "f:metadata": {"f:finalizers": {'v:"a/b"': {}}, "f:labels": {"f:l": {}}},
                "f:spec": {
                    "f:a": {},
                    "f:am": {},
                    "f:free": {"f:y": {}, "f:z": {}, "f:j": {".": {}, "f:i": {}}},
                    "f:l": {},
                    "f:lm": {'k:{"name":"p"}': {".": {}, "f:name": {}, "f:v": {}}},
                    "f:m": {"f:x": {}},
                    "f:s": {'v:"u"': {}, 'v:"v"': {}},
                },
            },
        }
    ]


def test_sharing_a_value_is_no_conflict_and_no_change() -> None:
    one = apply(None, config({"a": 1}), "one")
    two = apply(one, config({"a": 1}), "two", now=T2)
    entry = two["metadata"]["managedFields"][0]
    assert (entry["manager"], "time" in entry) == ("two", False)
    assert owners(two) == {"two Apply": {"f:spec": {"f:a": {}}}, "one Apply": {"f:spec": {"f:a": {}}}}
    assert apply(two, config({"a": 1}), "one", now=T2) == two


def test_one_conflict() -> None:
    live = apply(None, config({"a": 1}), "one")
    with pytest.raises(ApplyConflict) as caught:
        apply(live, config({"a": 2}), "two")
    assert str(caught.value) == 'Apply failed with 1 conflict: conflict with "one": .spec.a'
    assert (caught.value.status, caught.value.reason) == (409, "Conflict")
    assert caught.value.causes == [("FieldManagerConflict", 'conflict with "one"', ".spec.a")]


def test_several_conflicts() -> None:
    live = apply(None, config(FULL), "one")
    with pytest.raises(ApplyConflict) as caught:
        apply(live, config({"a": 2, "lm": [{"name": "p", "v": 5}, {"name": "q", "w": 1}]}), "two")
    assert str(caught.value) == (
        'Apply failed with 2 conflicts: conflicts with "one":\n- .spec.a\n- .spec.lm[name="p"].v'
    )


def test_force_takes_the_field_away() -> None:
    live = apply(None, config({"a": 1, "m": {"x": "1"}}), "one")
    obj = apply(live, config({"a": 2}), "two", force=True, now=T2)
    assert obj["spec"] == {"a": 2, "m": {"x": "1"}}
    assert owners(obj) == {"one Apply": {"f:spec": {"f:m": {"f:x": {}}}}, "two Apply": {"f:spec": {"f:a": {}}}}


def test_a_status_conflict_names_the_subresource() -> None:
    untracked = update(config({"a": 1}), {**config({"a": 1}), "status": {"p": 1}}, "none")
    assert owners(untracked) == {}
    created = update(None, config({"a": 1}), "one")
    live = update(created, {**created, "status": {"phase": "Q"}}, "four", subresource="status")
    assert [entry.get("subresource") for entry in live["metadata"]["managedFields"]] == ["status", None]
    wanted = {**config({"a": 7}), "status": {"phase": "R"}}
    text = r'conflict with "four" with subresource "status" using p\.io/v1: \.status\.phase$'
    with pytest.raises(ApplyConflict, match=text):
        apply(live, wanted, "five", subresource="status")
    forced = apply(live, wanted, "five", subresource="status", force=True)
    assert (forced["spec"], forced["status"]) == ({"a": 1}, {"phase": "R"})
    assert owners(forced)["five Apply"] == {"f:status": {"f:phase": {}}}
    assert owners(forced)["four Update"] == {"f:status": {}}


def test_update_takes_only_what_it_changed() -> None:
    live = apply(None, config(FULL), "one")
    spec = {**FULL, "a": 3, "m": {"x": "1", "y": "2"}, "s": ["v", "w"], "lm": [{"name": "q", "w": 2}]}
    obj = update(live, {**live, "spec": spec}, "three")
    assert owners(obj) == {
        "one Apply": {
            "f:spec": {
                "f:am": {},
                "f:free": {"f:y": {}, "f:z": {}, "f:j": {".": {}, "f:i": {}}},
                "f:l": {},
                "f:m": {"f:x": {}},
                "f:s": {'v:"v"': {}},
            }
        },
        "three Update": {
            "f:spec": {
                "f:a": {},
                "f:lm": {'k:{"name":"q"}': {".": {}, "f:name": {}, "f:w": {}}},
                "f:m": {"f:y": {}},
                "f:s": {'v:"w"': {}},
            }
        },
    }
    assert update(obj, obj, "three", now=datetime(2027, 1, 1, tzinfo=UTC)) == obj
    gone = apply(obj, config({}), "one")
    assert gone["spec"] == {"a": 3, "m": {"y": "2"}, "s": ["w"], "lm": [{"name": "q", "w": 2}]}


def test_create_by_update_owns_the_containers_too() -> None:
    obj = update(None, config({"m": {"a": "1"}, "s": ["a"], "n": {"y": {}}}, labels={"a": "1"}), "cr")
    assert owners(obj)["cr Update"] == {
        "f:metadata": {"f:labels": {".": {}, "f:a": {}}},
        "f:spec": {
            ".": {},
            "f:m": {".": {}, "f:a": {}},
            "f:n": {".": {}, "f:y": {}},
            "f:s": {".": {}, 'v:"a"': {}},
        },
    }


def test_the_first_apply_to_an_untracked_object_meets_what_was_there() -> None:
    live = config({"m": {"a": "1"}}, managedFields=[])
    text = 'conflict with "before-first-apply" using p.io/v1: .spec.m.a'
    with pytest.raises(ApplyConflict, match=text):
        apply(live, config({"m": {"a": "2"}}), "one")


def test_ownership_can_be_given_up() -> None:
    live = update(None, config({"a": 1}), "one")
    given_up = update(live, config({"a": 1}, managedFields=[{}]), "two")
    assert "managedFields" not in given_up["metadata"]


def test_broken_managed_fields_count_as_none_given() -> None:
    live = update(None, config({"a": 1}), "one")
    for broken in ([{"manager": "x"}], "x", [5], [{"operation": "Nope", "fieldsType": "FieldsV1"}]):
        obj = update(live, config({"a": 1}, managedFields=broken), "two")
        assert obj["metadata"]["managedFields"] == live["metadata"]["managedFields"]


def test_list_order() -> None:
    live = apply(None, config({"s": ["c", "a"]}), "one")
    live = apply(live, config({"s": ["b", "a", "d"]}), "two")
    assert live["spec"]["s"] == ["c", "b", "a", "d"]
    assert apply(live, config({"s": ["z", "c"]}), "one")["spec"]["s"] == ["z", "c", "b", "a", "d"]


def test_kubectl_takes_over_what_it_applied_on_the_client_side() -> None:
    note = '{"apiVersion":"p.io/v1","kind":"W","metadata":{"name":"a","namespace":"n"},"spec":{"a":1}}'
    annotations = {"kubectl.kubernetes.io/last-applied-configuration": note}
    live = update(None, config({"a": 1}, annotations=annotations), "kubectl-client-side-apply")
    obj = apply(live, config({"a": 2}), "kubectl")
    assert obj["spec"] == {"a": 2}
    assert next(iter(obj["metadata"]["annotations"].values())) == note.replace("1}}", "2}}") + "\n"
    with pytest.raises(ApplyConflict):
        apply(live, config({"a": 2}), "someone")


def test_refused_configs() -> None:
    with pytest.raises(ApiError, match=r"^metadata\.managedFields must be nil$"):
        apply(None, config({}, managedFields=[{"manager": "x"}]), "one")
    where = r"^failed to create typed patch object \(n/a; p\.io/v1, Kind=W\): "
    with pytest.raises(ApiError, match=where + r'\.spec\.s: duplicate entries for key \[="a"\]$'):
        apply(None, config({"s": ["a", "a"]}), "one")
    with pytest.raises(ApiError, match=where + r"\.spec\.lm: element 0: associative list with keys has an element"):
        apply(None, config({"lm": [{"v": 1}]}), "one")


def test_many_updaters_are_folded() -> None:
    obj = update(None, config({"a": 0}), "m0", now=T1)
    for number in range(1, 15):
        spec = {**obj["spec"], "m": {**obj["spec"].get("m", {}), f"k{number}": "1"}}
        obj = update(obj, {**obj, "spec": spec}, f"m{number:02}", now=T1.replace(minute=number))
    found = owners(obj)
    assert len(found) == 10
    assert found["ancient-changes Update"]["f:spec"]["f:a"] == {}
    assert "m14 Update" in found


WORDS = st.sampled_from("abc")
MAPS = st.dictionaries(WORDS, WORDS, max_size=3)
SPECS = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(0, 2),
        "m": MAPS,
        "am": MAPS,
        "l": st.lists(WORDS, max_size=2),
        "s": st.lists(WORDS, min_size=1, max_size=3, unique=True),
        "lm": st.lists(
            st.fixed_dictionaries({"name": WORDS}, optional={"v": st.integers(0, 1)}),
            min_size=1,
            max_size=2,
            unique_by=lambda item: item["name"],
        ),
        "n": st.fixed_dictionaries({}, optional={"x": st.integers(0, 1), "y": MAPS}),
        "free": st.dictionaries(WORDS, MAPS | st.none() | st.lists(WORDS, max_size=2), max_size=2),
    },
)


@given(SPECS, SPECS)
def test_applying_twice_changes_nothing(mine: Any, theirs: Any) -> None:
    live = apply(update(None, config(theirs), "them"), config(mine), "me", force=True)
    assert apply(live, config(mine), "me", now=T2) == live


@given(SPECS)
def test_applying_nothing_removes_what_was_owned(spec: Any) -> None:
    live = apply(None, config(spec, labels={"a": "b"}), "me")
    bare = apply(live, config(), "me")
    assert bare == config()


@given(SPECS, SPECS)
def test_applying_nothing_leaves_what_others_apply(mine: Any, theirs: Any) -> None:
    alone = apply(None, config(theirs), "them")
    both = apply(apply(None, config(mine), "me"), config(theirs), "them", force=True)
    after = apply(both, config(), "me")
    rules = object_schema(SCHEMA.raw)
    assert fields_of(alone, rules) <= fields_of(after, rules)
    assert "me Apply" not in owners(after)


@given(SPECS)
def test_field_sets_survive_being_written(spec: Any) -> None:
    fields = fields_of(config(spec), object_schema(SCHEMA.raw)) - {()}
    assert decode(encode(fields)) == fields


@given(SPECS, SPECS)
def test_what_came_one_way_went_the_other(left: Any, right: Any) -> None:
    there = compare(left, right, SPEC)
    back = compare(right, left, SPEC)
    assert (there.added, there.removed, there.modified) == (back.removed, back.added, back.modified)
    assert not any(compare(left, left, SPEC))
