"""Makes the responses of two servers comparable: values that must differ are replaced by names that express their
relations.

A uid becomes `uid#1`, the next one seen `uid#2`; an object's resourceVersion becomes `rv#1`, and stays `rv#1` for as
long as the object is unchanged. So "unchanged", "changed" and "the same as before" are compared and values are not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from conformance.harness.client import Answer

HEADERS = ("content-type", "warning", "cache-control", "www-authenticate", "allow", "location")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?Z")
_CHOSEN = re.compile(r"(resourceVersion=(?![01](?:&|$))|(?:continue|hash)=(?=..))[^&]+")
_AGE = re.compile(r"\d+(ms|[smhd])")
_CAUSES = re.compile(r"is invalid: .*$", re.DOTALL)
_VERSIONS_IN_TEXT = re.compile(r"((?:resource version|ResourceVersion)[^:(]*[:(] ?)\d+(?: \(\d+\)|, current: \d+)?")


@dataclass
class Relations:
    """The values of one transcript that have a name."""

    names: dict[str, str] = field(default_factory=dict)

    def name(self, kind: str, value: str) -> str:
        if value not in self.names:
            self.names[value] = f"{kind}#{1 + sum(name.startswith(kind + '#') for name in self.names.values())}"
        return self.names[value]


def request(answer: Answer) -> str:
    """Returns the request without the values that a server chose."""
    return _CHOSEN.sub(r"\1<…>", answer.request)


def normal(answer: Answer, relations: Relations) -> dict[str, Any]:
    """Returns the comparable part of a response: status, headers and body."""
    headers = {name: answer.headers[name] for name in HEADERS if name in answer.headers}
    if answer.warnings:
        headers["warning"] = sorted(answer.warnings)
    if answer.view is None:
        return {"status": answer.status, "headers": headers}
    return {"status": answer.status, "headers": headers, "body": _value("", answer.view(answer.body), relations)}


def _value(key: str, value: Any, relations: Relations) -> Any:
    match value:
        case dict():
            return _object(value, relations)
        case list():
            return _list(key, [_value(key, item, relations) for item in value])
        case str():
            return _text(key, value, relations)
        case _:
            return value


def _object(value: dict[str, Any], relations: Relations) -> dict[str, Any]:
    known = {}
    for key in sorted(value, key=lambda key: (key not in {"metadata", "uid"}, key)):
        # The ownership of list items is keyed by their content: `k:{"uid":"…"}`.
        known[_text("", key, relations)] = _value(key, value[key], relations)
    if (prefix := value.get("generateName", "")[:58]) and value.get("name", "").startswith(prefix):
        known["name"] = prefix + "*" * (len(value["name"]) - len(prefix))
    version = value.get("resourceVersion")
    if isinstance(version, str) and version.isdigit() and version != "0":
        # A list has the version of the store, which also changes with writes outside the scenario.
        known["resourceVersion"] = relations.name("rv", version) if "uid" in value else "<current>"
    if len((known.get("details") or {}).get("causes", [])) > 1:
        known["message"] = _CAUSES.sub("is invalid: (see causes)", known["message"])
    return known


def _list(key: str, items: list[Any]) -> list[Any]:
    """Sorts lists whose order is arbitrary on a real server, and removes causes that it repeats."""
    if key == "causes":
        return sorted({repr(item): item for item in items}.values(), key=repr)
    if key in {"managedFields", "verbs"}:
        return sorted(items, key=repr)
    if key == "cells":
        return ["<age>" if isinstance(item, str) and _AGE.fullmatch(item) else item for item in items]
    return items


def _text(key: str, text: str, relations: Relations) -> str:
    if key == "uid" and text:
        return relations.name("uid", text)
    if key == "continue" and text:
        return "<token>"
    if moment := _TIME.fullmatch(text):
        age = datetime.now(UTC) - datetime.fromisoformat(moment[1] + "+00:00")
        return text if abs(age.days) > 1 else "<microtime>" if moment[2] else "<time>"
    for value, name in relations.names.items():
        if name.startswith("uid#"):
            text = text.replace(value, name)
    return _VERSIONS_IN_TEXT.sub(r"\1<version>", text)
