"""Tests the JSONPath of printer columns, and the columns that it fills."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema import Columns
from remit.controlplane.schema.columns import human_duration
from remit.controlplane.schema.jsonpath import compile_path

Raw = dict[str, Any]

OBJECT: Raw = {
    "spec": {"a.b": 1, "rows": [{"n": 1}, {"n": 2}, {"n": 3}]},
    "status": {
        "conditions": [
            {"type": "Ready", "status": "True", "on": True},
            {"type": "Stalled", "status": "False", "on": False},
        ]
    },
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.rows[0].n", [1]),
        ("{.spec.rows[-1].n}", [3]),
        ("$.spec.rows[*].n", [1, 2, 3]),
        (".spec.rows[3].n", []),
        (".spec.rows[-4].n", []),
        (r".spec['a\.b']", [1]),
        (".spec['a.b']", []),
        (r".spec.a\.b", [1]),
        (".spec.a.b", []),
        (".spec.rows.n", []),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type != 'Ready')].status", ["False"]),
        (".status.conditions[?(@.on==true)].type", ["Ready"]),
        (".status.*[0].type", ["Ready"]),
        (".nothing.there", []),
        ("", [OBJECT]),
        (".spec.rows[].n", [1, 2, 3]),
        (".spec.rows[1:].n", [2, 3]),
        (".spec.rows[:2].n", [1, 2]),
        (".spec.rows[-2:].n", [2, 3]),
        (".spec.rows[::2].n", [1, 3]),
        (".spec.rows[2,0].n", [3, 1]),
        (".spec.rows[0:9].n", []),
        (".spec.rows[?(@.n>1)].n", [2, 3]),
        (".spec.rows[?(@.n<=2)].n", [1, 2]),
        (".spec.rows[?(@.n)].n", [1, 2, 3]),
        (".spec.rows[?(@.m)].n", []),
        ('.spec.rows[?(@.n>"1")].n', []),
        (".spec..n", [1, 2, 3]),
        (".spec.rows[0].", []),
        (".spec.rows n", []),
    ],
)
def test_paths(path: str, found: list[Any]) -> None:
    assert compile_path(path)(OBJECT) == found


@pytest.mark.parametrize("path", [".a[", ".a]", ".a[x]", '.a["b"]', ".a[-]", "....a", ".a..*", ".a[?(@.b", "!"])
def test_paths_that_cannot_be_read(path: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"in the JSONPath {path!r}")):
        compile_path(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["spec", "rows", "type"]) | st.text(), inner),
)
PATHS = (".spec.rows[0]", ".*[*].type", ".spec[?(@.type==1)]", ".rows[-1].rows")


@given(JSON)
def test_a_path_is_at_home_in_any_object(obj: Any) -> None:
    assert all(isinstance(compile_path(path)(obj), list) for path in PATHS)


NOW = datetime.datetime(2024, 5, 1, 12, tzinfo=datetime.UTC)


@pytest.mark.parametrize(
    ("type_", "value", "shown"),
    [
        ("string", "x", "x"),
        ("string", 5, "5"),
        ("string", {"a": [1]}, '{"a":[1]}'),
        ("integer", 5, 5),
        ("integer", "5", None),
        ("integer", True, None),
        ("number", 5, 5.0),
        ("number", "x", None),
        ("boolean", True, True),
        ("boolean", "true", None),
        ("date", "2024-05-01T11:00:00Z", "60m"),
        ("date", "yesterday", "<invalid>"),
        ("date", None, "<unknown>"),
        ("date", 5, "<invalid>"),
    ],
)
def test_a_column_shows_values_of_its_type(type_: str, value: Any, shown: Any) -> None:
    columns = Columns([{"name": "X", "type": type_, "jsonPath": ".x"}])
    assert columns.cells({"metadata": {"name": "n"}, "x": value}, NOW) == ["n", shown]


def test_a_column_shows_the_first_of_what_it_finds_and_is_empty_without() -> None:
    columns = Columns([{"name": "X", "type": "string", "jsonPath": ".x[*]"}])
    assert columns.cells({"metadata": {"name": "n"}, "x": ["a", 1]}, NOW) == ["n", "a"]
    assert columns.cells({"metadata": {"name": "n"}}, NOW) == ["n", None]


def test_without_columns_there_is_the_age() -> None:
    columns = Columns([])
    assert [column["name"] for column in columns.definitions] == ["Name", "Age"]
    obj = {"metadata": {"name": "n", "creationTimestamp": "2024-04-29T12:00:00Z"}}
    assert columns.cells(obj, NOW) == ["n", "2d"]


META = {"name": "n", "creationTimestamp": "2024-05-01T11:59:00Z"}


@pytest.mark.parametrize(
    ("kind", "obj", "cells"),
    [
        ("ConfigMap", {"data": {"a": ""}, "binaryData": {"b": ""}}, [2, "60s"]),
        ("Secret", {"type": "Opaque", "data": None}, ["Opaque", 0, "60s"]),
        ("Lease", {"spec": {"holderIdentity": "me"}}, ["me", "60s"]),
        ("Namespace", {"status": {"phase": "Active"}}, ["Active", "60s"]),
        ("ControllerRevision", {}, ["<none>", 0, "60s"]),
        ("Unlisted", {}, ["60s"]),
        (
            "Event",
            {
                "involvedObject": {"kind": "Task", "name": "t", "fieldPath": "spec"},
                "lastTimestamp": "2024-05-01T11:58:00Z",
                "firstTimestamp": "2024-05-01T11:00:00Z",
                "type": "Normal",
                "reason": "Ran",
                "message": " done\n",
                "source": {"component": "remit", "host": "h"},
                "count": 4,
            },
            ["2m", "Normal", "Ran", "task/t", "spec", "remit, h", "done", "60m", 4],
        ),
        (
            "Event",
            {
                "regarding": {"kind": "Task", "name": "t"},
                "eventTime": "2024-05-01T11:00:00Z",
                "series": {"count": 7, "lastObservedTime": "2024-05-01T11:59:30Z"},
                "note": "again",
                "reportingController": "remit",
            },
            ["30s", "", "", "task/t", "", "remit", "again", "60m", 7],
        ),
    ],
)
def test_columns_of_the_built_in_kinds(kind: str, obj: Raw, cells: list[Any]) -> None:
    row = Columns(kind).cells({"metadata": META, **obj}, NOW)
    # Kubectl shows the age of an Event from when it first occurred.
    assert row == ([*cells, "n"] if kind == "Event" else ["n", *cells])


def test_a_revision_names_its_controller() -> None:
    owner = {"kind": "CommandDeployment", "apiVersion": "ops.example.com/v1", "name": "web", "controller": True}
    obj = {"metadata": {**META, "ownerReferences": [{"kind": "X"}, owner]}, "revision": 3}
    assert Columns("ControllerRevision").cells(obj, NOW)[1:3] == ["commanddeployment.ops.example.com/web", 3]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (-5, "<invalid>"), (-1, "0s"), (0, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (600, "10m"),
        (10_799, "179m"), (10_800, "3h"), (11_460, "3h11m"), (28_800, "8h"), (172_799, "47h"), (172_800, "2d"),
        (176_400, "2d1h"), (691_200, "8d"), (63_071_999, "729d"), (63_072_000, "2y"), (63_158_400, "2y1d"),
        (252_288_000, "8y"),
    ],
)  # fmt: skip
def test_ages_as_kubectl_writes_them(seconds: int, shown: str) -> None:
    assert human_duration(datetime.timedelta(seconds=seconds)) == shown


def _read(text: str) -> int:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "y": 31_536_000}
    return sum(int(number) * units[unit] for number, unit in re.findall(r"(\d+)([smhdy])", text))


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_an_older_thing_never_reads_younger(a: int, b: int) -> None:
    younger, older = (_read(human_duration(datetime.timedelta(seconds=span))) for span in sorted((a, b)))
    assert younger <= older
