"""The JSONPath that printer columns are written in: client-go's dialect, compiled to one function.

Understood: `.a.b`, `['a']`, `[0]`, `[-1]`, `[1:3]`, `[*]`, `[]`, `[0,2]`, `.*`, `..a`, and filters such as
`[?(@.type=="Ready")]`, `[?(@.size>1)]` and `[?(@.name)]`.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final

Step = Callable[[Any], Iterable[Any]]

_MOST_FOUND: Final = 20_000
"""Values between two steps. Of more only the first are looked at further: only the first result is shown."""
_FIELD: Final = re.compile(r"(?:\\.|[^\s.,\[\]$@{}\\])*", re.DOTALL)
_FILTER: Final = re.compile(r"\[\?\(((?:\"(?:\\.|[^\"])*\"|'(?:\\.|[^'])*'|[^\"')])*)\)\]")
_COMPARISON: Final = re.compile(r"([^!<>=]+)([!<>=]+)(.+)", re.DOTALL)
_SLICE: Final = re.compile(r"(-?\d*)(:-?\d*)?(:-?\d*)?", re.ASCII)
_WORD: Final = re.compile(r"\w")
_LITERAL: Final = re.compile(r"\w[^\s.,\[\]$@{}]*|[+-][\d.]*|'(?:\\.|[^'])*'|\"(?:\\.|[^\"])*\"", re.DOTALL)
_KEY: Final = re.compile(r"'([^']*)'")
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class _Nothing(Exception):
    """The path cannot be followed in this object, which shows nothing then."""


def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """A function from an object to what the path finds in it. Raises ValueError for a path it does not understand."""
    rest = text.strip().removeprefix("{").removesuffix("}")
    try:
        steps = list(_steps(rest))
    except ValueError as error:
        raise ValueError(f"{error} in the JSONPath {text!r}") from None

    def find(obj: Any) -> list[Any]:
        try:
            return _follow(steps, obj)
        except _Nothing:
            return []

    return find


def _follow(steps: list[Step], obj: Any) -> list[Any]:
    found = [obj]
    for step in steps:
        found = list(islice((part for value in found for part in step(value)), _MOST_FOUND))
    return found


def _steps(rest: str) -> Iterator[Step]:
    while rest:
        if rest[0] in " @$":
            rest = rest[1:]
        elif match := _FILTER.match(rest):
            yield _filter(match[1])
            rest = rest[match.end() :]
        elif rest.startswith(".."):
            yield _descend
            rest = rest[2:]
            if rest[:2] == "..":
                raise ValueError(f"cannot read {rest!r}")
            if _WORD.match(rest):
                rest = f".{rest}"
        elif rest[0] == ".":
            match = _FIELD.match(rest, 1)
            name = match[0] if match else ""
            yield _everything if name == "*" else _field(name.replace("\\", ""))
            rest = rest[1 + len(name) :]
        elif rest[0] == "[" and "]" in rest and not rest.startswith("[?("):
            inside, _, rest = rest[1:].partition("]")
            yield _bracket(inside)
        elif match := _LITERAL.match(rest):
            yield _literal(match[0])
            rest = rest[match.end() :]
        else:
            raise ValueError(f"cannot read {rest!r}")


def _bracket(inside: str) -> Step:
    parts = inside.split(",")
    if len(parts) > 1:
        steps = [_bracket(part.strip()) for part in parts]
        return lambda value: (found for step in steps for found in step(value))
    if match := _KEY.fullmatch(inside):
        inner = list(_steps(f".{match[1]}"))
        return lambda value: _follow(inner, value)
    match = _SLICE.fullmatch(":" if inside == "*" else inside)
    if match is None:
        raise ValueError(f"cannot read '[{inside}]'")
    return _slice(*match.groups())


def _slice(first: str, end: str | None, step: str | None) -> Step:
    start, single = int(first or 0), end is None and first != ""
    stop = int(end[1:]) if end and end[1:] else None
    by = int(step[1:]) if step and step[1:] else 1

    def take(value: Any) -> Iterable[Any]:
        if value is None:
            return ()
        if not isinstance(value, list) or by <= 0:
            raise _Nothing
        from_ = start + len(value) if start < 0 else start
        to = from_ + 1 if single else len(value) if stop is None else stop + len(value) if stop < 0 else stop
        if to == from_:
            return ()
        if not (0 <= from_ < len(value) and from_ <= to <= len(value)):
            raise _Nothing
        return value[from_:to:by]

    return take


def _field(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _everything(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else value.encode() if isinstance(value, str) else ()


def _descend(value: Any) -> Iterator[Any]:
    """Everything within, and the value itself, that has something in it."""
    left = [value]
    while left:
        part = left.pop()
        inside = list(_everything(part)) if isinstance(part, dict | list) else []
        if inside:
            yield part
            left += reversed(inside)


def _filter(inside: str) -> Step:
    match = _COMPARISON.fullmatch(inside)
    if match is None:
        wanted = list(_steps(inside))
        return _where(lambda item: bool(_followed(wanted, item)))
    left, sign, right = match.groups()
    compare, operands = _COMPARE.get(sign), (list(_steps(left)), list(_steps(right)))

    def holds(item: Any) -> bool:
        values = [_follow(operand, item) for operand in operands]
        if not all(values):
            return False
        if compare is None or any(len(found) > 1 for found in values):
            raise _Nothing
        return _compared(compare, values[0][0], values[1][0])

    return _where(holds)


def _nothing(value: Any) -> Iterable[Any]:
    raise _Nothing


def _followed(steps: list[Step], item: Any) -> list[Any]:
    try:
        return _follow(steps, item)
    except _Nothing:
        return []


def _literal(text: str) -> Step:
    """A value that stands in a filter. Any other word is one of kubectl's templates, and shows nothing here."""
    if text[0] in "'\"":
        word = re.sub(r"\\(.)", r"\1", text[1:-1])
        return lambda _: [word]
    if text in ("true", "false"):
        return lambda _: [text == "true"]
    if text[0] in "+-" or text[0].isdigit():
        number = float(text) if "." in text else int(text)
        return lambda _: [number]
    return _nothing


def _compared(compare: Callable[[Any, Any], bool], left: Any, right: Any) -> bool:
    """Only values of the same type can be compared: with others the path shows nothing."""
    if type(left) is not type(right) or not isinstance(left, int | float | str):
        raise _Nothing
    return compare(left, right)


def _where(holds: Callable[[Any], bool]) -> Step:
    def step(value: Any) -> Iterable[Any]:
        if not isinstance(value, list):
            raise _Nothing
        return [item for item in value if holds(item)]

    return step
