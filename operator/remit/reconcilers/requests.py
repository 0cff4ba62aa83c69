"""Requests by hand: the annotation `remit.dev/request`, taken once, answered in status and removed."""

from __future__ import annotations

import hashlib
from typing import Final, get_args

import orjson

from remit.errors import InvalidInput
from remit.reconcilers.kube import Object
from remit.release import Request
from remit.release.model import RequestKind

ANNOTATION: Final = "remit.dev/request"


def pending(obj: Object) -> Request | None:
    """What is asked for: a word such as `promote`, or an object such as `{"rollback": {"revision": 3}, "id": "…"}`.

    The same text written again, once it was answered and removed, is another request: when it was written counts.

    Raises:
        InvalidInput: it cannot be read.
    """
    text = (obj["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None:
        return None
    try:
        asked = orjson.loads(text) if text.lstrip().startswith("{") else {text.strip(): {}}
    except orjson.JSONDecodeError:
        asked = {}
    name = asked.pop("id", None) if isinstance(asked, dict) else None
    if not isinstance(asked, dict) or len(asked) != 1 or next(iter(asked)) not in get_args(RequestKind):
        words = ", ".join(get_args(RequestKind))
        raise InvalidInput(
            f"{ANNOTATION} is one of {words}, or an object with one of these", field="metadata.annotations"
        )
    (kind, terms), *_ = asked.items()
    terms = terms if isinstance(terms, dict) else {}
    revision, full = terms.get("revision"), terms.get("full", False)
    if not (revision is None or (isinstance(revision, int) and revision > 0)) or not isinstance(full, bool):
        raise InvalidInput(
            f"{ANNOTATION}: revision is a number from 1, full is true or false", field="metadata.annotations"
        )
    made = hashlib.sha256(f"{obj['metadata']['uid']} {_written_at(obj)} {text}".encode()).hexdigest()[:12]
    return Request(str(name or made), kind, revision, full)


def requester(obj: Object) -> str:
    """Who wrote the annotation: the field manager, which is what a client calls itself."""
    entry = max(_writers(obj), key=lambda entry: str(entry.get("time", "")), default=None)
    return f"manager:{entry['manager']}" if entry else ""


def _written_at(obj: Object) -> str:
    return max((str(entry.get("time", "")) for entry in _writers(obj)), default="")


def _writers(obj: Object) -> list[Object]:
    field = f"f:{ANNOTATION}"
    return [
        entry
        for entry in obj["metadata"].get("managedFields", [])
        if field in entry.get("fieldsV1", {}).get("f:metadata", {}).get("f:annotations", {})
    ]
