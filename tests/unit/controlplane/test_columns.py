"""Tests printer columns: no value of one object may break the table of all objects."""

from __future__ import annotations

import datetime
from typing import Any

import orjson
import pytest

from remit.controlplane.schema import Columns

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
TYPES = ("string", "integer", "number", "boolean", "date")


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1,
        1.5,
        1e308,
        -1e308,
        float(2**70),
        "x",
        "2026-01-01",
        "2026-01-01T00:00:00",
        "20260101",
        [1],
        {"a": 1},
    ],
)
def test_every_value_has_a_cell(value: Any) -> None:
    columns = Columns([{"name": type_, "type": type_, "jsonPath": ".a"} for type_ in TYPES])
    assert len(orjson.loads(orjson.dumps(columns.cells({"metadata": {"name": "n"}, "a": value}, NOW)))) == 6


def test_an_age_needs_a_whole_time() -> None:
    column = Columns([{"name": "Age", "type": "date", "jsonPath": ".a"}])
    shown = [column.cells({"metadata": {"name": "n"}, "a": a}, NOW)[1] for a in ("2025-12-31T00:00:00Z", "2025-12-31")]
    assert shown == ["24h", "<invalid>"]
