"""Translates pydantic's validation errors into messages for the author of the document. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from remit.didyoumean import did_you_mean

_MOST_NAMED: Final = 8
"""The most fields that a message lists if no field resembles the unknown one."""


def first_mistake(error: ValidationError, model: type[BaseModel]) -> tuple[str, str]:
    """Returns the first invalid field, such as `spec.command.argv[0]`, and what is wrong with it."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = first["loc"]
    if first["type"] == "extra_forbidden" and location:
        return dotted(location), f"is not a known field{suggestion(str(location[-1]), _fields(model, location[:-1]))}"
    if first["type"] == "missing":
        return dotted(location), "is required"
    message = first["msg"].removeprefix("Value error, ")
    return dotted(location), re.sub(r"^(Input|String|List|Dictionary|Value) should ", "must ", message)


def dotted(location: Sequence[int | str]) -> str:
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return path


def suggestion(word: str, known: Sequence[str]) -> str:
    """Returns the end of a message that `word` is unknown: a similar word in `known`, or the list of known words."""
    if meant := did_you_mean(word, known):
        return meant
    return f"; known are {', '.join(known)}" if 0 < len(known) <= _MOST_NAMED else "" if known else "; it takes none"


def _fields(model: type[BaseModel], location: Iterable[int | str]) -> list[str]:
    """Returns the fields, by their names on the wire, of the part of `model` at `location`."""
    found: list[type[BaseModel]] = [model]
    for part in location:
        if isinstance(part, int):
            continue  # an index into a list; `_models` has already returned the models of its items
        fields = [item for each in found for item in each.model_fields.items()]
        annotations = [field.annotation for name, field in fields if part in {name, field.alias}]
        found = [each for annotation in annotations for each in _models(annotation)]
    return [field.alias or name for each in found for name, field in each.model_fields.items()]


def _models(annotation: Any) -> Iterable[type[BaseModel]]:
    """Returns the models that a field can contain, directly or in lists and dicts."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in {Annotated, Union, UnionType, list, tuple, dict}:
        for argument in get_args(annotation):
            yield from _models(argument)
