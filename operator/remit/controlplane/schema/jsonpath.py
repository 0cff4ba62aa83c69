"""The JSONPath that printer columns are written in: Kubernetes' own dialect, compiled to one function.

Understood: `.a.b`, `['a']`, `[0]`, `[-1]`, `[*]`, `.*` and filters such as `[?(@.type=="Ready")]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Step = Callable[[Any], Iterable[Any]]

_TOKEN = re.compile(
    r"""\.?(?:(?P<name>(?:[\w/-]|\\.)+)|(?P<star>\*))
      | \[(?: (?P<index>-?\d+) | (?P<all>\*) | '(?P<single>[^']*)' | "(?P<double>[^"]*)"
          | \?\(\s*@(?P<path>(?:\.[\w-]+)+)\s*(?P<operator>==|!=)\s*(?P<value>'[^']*'|"[^"]*"|[\w.-]+)\s*\) )\]""",
    re.VERBOSE,
)


def compile_path(text: str) -> Callable[[Any], list[Any]]:
    """A function from an object to what the path finds in it. Raises ValueError for a path it does not understand."""
    rest = text.strip().removeprefix("{").removesuffix("}").removeprefix("$")
    steps: list[Step] = []
    position = 0
    while position < len(rest):
        match = _TOKEN.match(rest, position)
        if match is None or match.end() == position:
            raise ValueError(f"cannot read {rest[position:]!r} in the JSONPath {text!r}")
        steps.append(_step(match))
        position = match.end()

    def find(obj: Any) -> list[Any]:
        found = [obj]
        for step in steps:
            found = [part for value in found for part in step(value)]
        return found

    return find


def _step(match: re.Match[str]) -> Step:
    parts = match.groupdict()
    if parts["star"] or parts["all"]:
        return _everything
    if parts["index"] is not None:
        return _at(int(parts["index"]))
    if parts["path"]:
        return _where(parts["path"], parts["operator"], parts["value"].strip("'\""))
    name = parts["name"] or parts["single"] or parts["double"] or ""
    return _field(re.sub(r"\\(.)", r"\1", name))


def _field(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _at(index: int) -> Step:
    def step(value: Any) -> Iterable[Any]:
        inside = isinstance(value, list) and -len(value) <= index < len(value)
        return (value[index],) if inside else ()

    return step


def _everything(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _where(path: str, operator: str, wanted: str) -> Step:
    find = compile_path(path)

    def holds(item: Any) -> bool:
        found = any(_text(value) == wanted for value in find(item))
        return found if operator == "==" else not found

    return lambda value: [item for item in value if holds(item)] if isinstance(value, list) else ()


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
