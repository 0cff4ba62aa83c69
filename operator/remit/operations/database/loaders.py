"""PostgreSQL's values as JSON, exactly: where JSON has no word for a value, it is the text that PostgreSQL writes.

psycopg's own loaders raise for what Python's types do not hold (infinite and ancient dates), and make a double of a
number in `json`.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import orjson
import psycopg
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader

SETTINGS: Final = {"datestyle": "ISO", "intervalstyle": "postgres", "bytea_output": "hex", "extra_float_digits": "1"}
"""PostgreSQL's settings that the texts of values depend on."""
_TIMESTAMP: Final = re.compile(r"(\d{4,}-\d\d-\d\d) (\d\d:\d\d:[\d.]+)([+-]\d\d)?(:.+?)?( BC)?")
_OWN_LOADERS: Final = frozenset({"bool", "int2", "int4", "int8", "oid"})
"""Types whose every value psycopg makes an integer or a boolean of."""


def json_text(data: bytes) -> Any:
    """A text, or its bytes in base16 under a name that says so where they are not UTF-8."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"hex": data.hex()}


class _TextLoader(Loader):
    def load(self, data: Buffer) -> Any:
        return json_text(bytes(data))


class _FloatLoader(Loader):
    def load(self, data: Buffer) -> Any:
        value = float(data)
        return value if math.isfinite(value) else bytes(data).decode()


class _TimestampLoader(Loader):
    """Loads a timestamp as PostgreSQL's `to_json` writes it: ISO 8601, except for `infinity` and years BC."""

    def load(self, data: Buffer) -> Any:
        text = bytes(data).decode()
        parts = _TIMESTAMP.fullmatch(text)
        if parts is None:
            return text
        day, time, zone, rest, era = parts.groups(default="")
        return f"{day}T{time}{zone}{rest or (':00' if zone else '')}{era}"


class _JsonLoader(Loader):
    """Loads JSON as it is in the column, with all digits of its numbers, but on one line."""

    def load(self, data: Buffer) -> Any:
        text = json_text(bytes(data))
        return text if isinstance(text, dict) else orjson.Fragment(text.replace("\n", " ").replace("\r", " "))


_LOADERS: Final[dict[str, type[Loader]]] = {
    "float4": _FloatLoader,
    "float8": _FloatLoader,
    "timestamp": _TimestampLoader,
    "timestamptz": _TimestampLoader,
    "json": _JsonLoader,
    "jsonb": _JsonLoader,
}


def _exact() -> AdaptersMap:
    adapters = AdaptersMap(psycopg.adapters)
    adapters.register_loader(0, _TextLoader)  # the loader for types that psycopg does not know
    for info in psycopg.adapters.types:
        if info.name not in _OWN_LOADERS:
            adapters.register_loader(info.oid, _LOADERS.get(info.name, _TextLoader))
    return adapters


ADAPTERS: Final = _exact()
"""For connections whose rows become JSON. Arrays of PostgreSQL's own types are lists, of items that are loaded so."""
