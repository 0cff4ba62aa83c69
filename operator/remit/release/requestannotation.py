"""Requests by hand: the annotation `remit.dev/request`, taken once, answered in status and removed."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Final, get_args

from pydantic import ConfigDict, Field, ValidationError

from remit.api.base import SpecModel
from remit.api.deploymentstatus import RequestKind
from remit.api.mistakes import first_mistake, suggestion
from remit.kube.client import Object
from remit.release.model import MalformedRequest, ReleaseRequest
from remit.telemetry.logs import escape

ANNOTATION: Final = "remit.dev/request"
_MAX_LENGTH: Final = 1024
"""Characters of the annotation. What is in it, or what is wrong with it, is copied into status."""
_VERBS: Final = get_args(RequestKind)

RequestId = Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]


class _Terms(SpecModel):
    """The terms of a verb that takes none."""

    model_config = ConfigDict(strict=True)


class _OfRevision(_Terms):
    revision: Annotated[int, Field(ge=1, lt=2**31)] | None = None


class _Promotion(_OfRevision):
    full: bool = False


class _WrittenRequest(_Terms):
    exactly_one = _VERBS

    id: RequestId | None = None
    promote: _Promotion | None = None
    abort: _OfRevision | None = None
    rollback: _OfRevision | None = None
    retry: _Terms | None = None
    pause: _Terms | None = None
    resume: _Terms | None = None


def pending(obj: Object) -> ReleaseRequest | MalformedRequest | None:
    """Read the request: a word such as `promote`, or an object such as `{"rollback": {"revision": 3}, "id": "…"}`.

    The same text written again, once it was answered and removed, is another request: when it was written counts.
    """
    text = (obj["metadata"].get("annotations") or {}).get(ANNOTATION)
    if text is None:
        return None
    made = hashlib.sha256(f"{obj['metadata']['uid']} {_written_at(obj)} {text}".encode()).hexdigest()[:12]
    asked: dict[str, Any] = {}
    try:
        asked = _read(text)
        written = _WrittenRequest.model_validate(asked)
    except ValidationError as error:
        given = asked.get("id")
        readable = "id" not in {each["loc"][0] for each in error.errors() if each["loc"]}
        name = given if readable and isinstance(given, str) else made
        return MalformedRequest(name, f"{ANNOTATION}: {escape(_first_problem(error))}")
    except ValueError as error:
        return MalformedRequest(made, f"{ANNOTATION}: {escape(str(error))}")
    kind = next(verb for verb in _VERBS if getattr(written, verb) is not None)
    terms = getattr(written, kind)
    return ReleaseRequest(written.id or made, kind, getattr(terms, "revision", None), getattr(terms, "full", False))


def requester(obj: Object) -> str:
    """Who wrote the annotation: the field manager, which is what a client calls itself."""
    entry = max(_writers(obj), key=lambda entry: str(entry.get("time", "")), default=None)
    return f"manager:{entry['manager']}" if entry and entry.get("manager") else ""


def _read(text: str) -> dict[str, Any]:
    """The annotation as an object. Raises ValueError."""
    if len(text) > _MAX_LENGTH:
        raise ValueError(f"has {len(text)} characters; a request has at most {_MAX_LENGTH}")
    if not text.lstrip().startswith("{"):
        word = text.strip()
        if word not in _VERBS:
            raise ValueError(f"{word!r} is not a request{suggestion(word, _VERBS)}")
        return {word: {}}
    try:
        asked: dict[str, Any] = json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON: {error}") from None
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    return asked


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name} is given twice")
        found[name] = value
    return found


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _first_problem(error: ValidationError) -> str:
    """The first mistake: where it is, and what is wrong."""
    where, message = first_mistake(error, _WrittenRequest)
    return f"{where}{' ' if message.startswith('is not a known field') else ': '}{message}" if where else message


def _written_at(obj: Object) -> str:
    return max((str(entry.get("time", "")) for entry in _writers(obj)), default="")


def _writers(obj: Object) -> list[Object]:
    field = f"f:{ANNOTATION}"
    return [
        entry
        for entry in obj["metadata"].get("managedFields") or ()
        if field in _part(_part(entry.get("fieldsV1"), "f:metadata"), "f:annotations")
    ]


def _part(fields: Any, name: str) -> dict[str, Any]:
    part = fields.get(name) if isinstance(fields, dict) else None
    return part if isinstance(part, dict) else {}
