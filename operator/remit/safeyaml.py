"""YAML: the one loader for manifests, request bodies, policy tests and kubeconfigs, and the dumper for others.

The result is what JSON could hold, as Kubernetes reads YAML: dates and times of day stay text and keys are strings.
Before anything is built, the parser's events are counted, because a few hundred bytes of aliases can stand for
gigabytes and deep nesting overflows the stack of the C parser.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, Final

import yaml

from remit.errors import InvalidInput

DEEPEST: Final = 250
"""Levels of nesting. An object that is nested deeper cannot be written as JSON by the embedded control plane."""
MOST_VALUES: Final = 100_000
"""Values in one document, an alias counting as all that it stands for."""
MOST_ALIASED: Final = 3 * 1024 * 1024
"""Characters that the aliases of one document may add to it."""
_JSON_TAGS: Final = ("null", "bool", "int", "float", "str", "seq", "map")


def _without_base_60(pattern: re.Pattern[str]) -> re.Pattern[str]:
    """What a plain value must match to be something else than text. `12:30` is a number to PyYAML alone."""
    return re.compile(f"(?![^:]*:)(?:{pattern.pattern})", pattern.flags)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader of what JSON can hold."""

    bool_values: ClassVar = yaml.SafeLoader.bool_values | {"y": True, "n": False}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if all(type(key) is str for key in mapping):
            return mapping
        return {_key(key, node): value for key, value in mapping.items()}

    def construct_json_float(self, node: yaml.ScalarNode) -> float:
        value: float = self.construct_yaml_float(node)
        if not math.isfinite(value):
            raise yaml.constructor.ConstructorError(problem="a number must be finite", problem_mark=node.start_mark)
        return value


_Loader.yaml_constructors = {
    tag: constructor
    for tag, constructor in _Loader.yaml_constructors.items()
    if tag is None or tag.rpartition(":")[2] in _JSON_TAGS
}
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_json_float)
_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, _without_base_60(pattern))
        for tag, pattern in resolvers
        if tag.rpartition(":")[2] in (*_JSON_TAGS, "merge")
    ]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


class Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """A safe dumper that puts text in quotes which `load`, or kubectl, would take for something else."""


for _tag, _pattern, _first in (
    ("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)[eE][-+]?[0-9]+\Z", "-+.0123456789"),
    ("bool", r"[yYnN]\Z", "yYnN"),
    ("int", r"[-+]?0o[0-7]+\Z", "-+0"),
    ("float", r"[-+]?0[0-7_]*[89][0-9_]*\Z", "-+0"),  # a number that looks octal but is not is decimal
):  # only PyYAML reads `1e3`, `y`, `0o17` and `08` as text
    for _each in (_Loader, Dumper):
        _each.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


def load(text: str | bytes) -> Any:
    """The value of a single document; None when there is none. Raises `yaml.YAMLError`."""
    _check(text)
    with _values_as_errors():
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader


def load_all(text: str | bytes) -> list[Any]:
    """The values of all documents. Raises `yaml.YAMLError`."""
    _check(text)
    with _values_as_errors():
        return list(yaml.load_all(text, Loader=_Loader))


def load_documents(text: str) -> list[Any]:
    """The documents in YAML text, empty ones left out. Raises `InvalidInput` with the line and the column."""
    try:
        return [document for document in load_all(text) if document is not None]
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise InvalidInput(f"not valid YAML: {where}{error.problem or error.context}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"not valid YAML: {' '.join(str(error).split())}") from None


def compose(text: str | bytes) -> yaml.Node | None:
    """The nodes of a single document. Raises `yaml.YAMLError`."""
    _check(text)
    node: yaml.Node | None = yaml.compose(text, Loader=_Loader)
    return node


def _check(text: str | bytes) -> None:
    """Count what the text stands for, event by event. Raises `yaml.MarkedYAMLError` for more than the bounds."""
    sizes: dict[str, tuple[int, int]] = {}
    nested: list[tuple[str | None, int, int]] = []
    values = characters = aliased = 0
    for event in yaml.parse(text, Loader=_Loader):
        match event:
            case yaml.ScalarEvent():
                values += 1
                characters += len(event.value)
                if event.anchor is not None:
                    sizes[event.anchor] = (1, len(event.value))
            case yaml.AliasEvent():
                if any(anchor == event.anchor for anchor, _, _ in nested):
                    raise _refused(event, f"anchor '{event.anchor}' value contains itself")
                more_values, more_characters = sizes.get(event.anchor or "", (0, 0))
                values += more_values
                characters += more_characters
                aliased += more_values + more_characters
                if aliased > MOST_ALIASED:
                    raise _refused(event, "document contains excessive aliasing")
            case yaml.CollectionStartEvent():
                values += 1
                nested.append((event.anchor, values - 1, characters))
                if len(nested) > DEEPEST:
                    raise _refused(event, f"exceeded max depth of {DEEPEST}")
            case yaml.CollectionEndEvent():
                anchor, values_before, characters_before = nested.pop()
                if anchor is not None:
                    sizes[anchor] = (values - values_before, characters - characters_before)
            case yaml.DocumentStartEvent():
                sizes.clear()
                values = characters = aliased = 0
        if values > MOST_VALUES:
            why = "document contains excessive aliasing" if aliased else f"document has more than {MOST_VALUES} values"
            raise _refused(event, why)


def _refused(event: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=event.start_mark)


@contextmanager
def _values_as_errors() -> Iterator[None]:
    """A scalar that is not of its tag, such as an integer of 5,000 digits, is a mistake in the YAML."""
    try:
        yield
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None


def _key(key: Any, node: yaml.MappingNode) -> str:
    """The JSON key of a YAML key, as Kubernetes converts it."""
    match key:
        case str():
            return key
        case bool():
            return "true" if key else "false"
        case int() | float():
            return str(key)
    raise yaml.constructor.ConstructorError(problem=f"unsupported map key: {key}", problem_mark=node.start_mark)
