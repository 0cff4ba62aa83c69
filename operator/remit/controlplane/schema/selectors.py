"""Label and field selectors: the strings after `-l` and `--field-selector`, parsed into predicates.

Grammar and error texts are those of `k8s.io/apimachinery/pkg/labels` and `…/fields`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

from remit.controlplane.schema import naming

_TOKEN = re.compile(r"\s*(==|!=|[=!(),<>]|[^\s=!(),<>]+)")
_SYMBOLS = frozenset({"=", "==", "!=", "!", "(", ")", ",", "<", ">"})
_OPERATORS = frozenset({"in", "notin", "=", "==", "!=", "<", ">"})
_END = ""


@dataclass(frozen=True)
class Requirement:
    """One term. `operator` is `in`, `notin`, `exists`, `!`, `<` or `>`; `=` is an `in` of one value."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, values: Mapping[str, str]) -> bool:
        value = values.get(self.key)
        match self.operator:
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
            case _:
                return self._compares(value)

    def _compares(self, value: str | None) -> bool:
        number = _integer(value or "")
        bound = _integer(next(iter(self.values)))
        if number is None or bound is None:
            return False
        return number > bound if self.operator == ">" else number < bound


@dataclass(frozen=True)
class Selector:
    """All requirements must hold; none hold for everything."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, values: Mapping[str, str]) -> bool:
        """`values` are the labels, or the selectable fields by their dotted path."""
        return all(requirement.matches(values) for requirement in self.requirements)

    @property
    def keys(self) -> frozenset[str]:
        """The labels or fields that are looked at."""
        return frozenset(requirement.key for requirement in self.requirements)


def parse_label_selector(text: str) -> Selector:
    """Raises ValueError with Kubernetes' text."""
    return Selector(tuple(_LabelParser(text).requirements()))


def parse_field_selector(text: str, allowed: Collection[str]) -> Selector:
    """Only equality is known to fields; give `matches` every field in `Selector.keys`, empty where the object has none.

    Raises ValueError with Kubernetes' text; `allowed` are the fields that the resource can be selected by.
    """
    requirements = []
    for term in filter(None, _split_unescaped(text)):
        found = re.match(r"((?:\\.|[^\\=!]|!(?!=))*)(!=|==|=)(.*)", term, re.DOTALL)
        if not found:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        key, operator, value = found.groups()
        requirements.append(Requirement(key, "notin" if operator == "!=" else "in", frozenset({_unescape(value)})))
    for requirement in requirements:
        if requirement.key not in allowed:
            raise ValueError(_unknown_field(requirement.key, allowed))
    return Selector(tuple(requirements))


def _unknown_field(key: str, allowed: Collection[str]) -> str:
    if all(field.startswith("metadata.") for field in allowed):
        known = ", ".join(f'"{field}"' for field in sorted(allowed))
        return f'"{key}" is not a known field selector: only {known}'
    return f"field label not supported: {key}"


def _split_unescaped(text: str) -> list[str]:
    return re.findall(r"(?:\\.|[^\\,]|\\$)+", text, re.DOTALL)


def _unescape(value: str) -> str:
    def plain(found: re.Match[str]) -> str:
        escape, bare = found.groups()
        if bare:
            raise ValueError(f"invalid field selector: unescaped character in value: {ord(bare)}")
        if escape not in ("\\\\", "\\,", "\\="):
            raise ValueError(f"invalid field selector: invalid escape sequence: {escape}")
        return escape[1]

    return re.sub(r"(\\.?)|([,=])", plain, value)


def _integer(text: str) -> int | None:
    return int(text) if re.fullmatch(r"[+-]?[0-9]+", text) else None


class _LabelParser:
    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [*_TOKEN.findall(text), _END]
        self._next = 0

    def requirements(self) -> list[Requirement]:
        found: list[Requirement] = []
        if self._peek() == _END:
            return found
        if self._peek() in _SYMBOLS - {"!"}:
            self._expected(self._peek(), ", expected: !, identifier, or 'end of string'")
        while True:
            try:
                found.append(self._requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from None
            word = self._take()
            if word == _END:
                return found
            if word != ",":
                self._expected(word, ", expected: ',' or 'end of string'")
            if self._peek() == _END or self._peek() in _SYMBOLS - {"!"}:
                self._expected(self._peek(), ", expected: identifier after ','")

    def _requirement(self) -> Requirement:
        absent = self._peek() == "!"
        if absent:
            self._take()
        key = self._identifier()
        _check(naming.qualified_name(key), key, "<nil>")
        if absent:
            return Requirement(key, "!")
        if self._peek() in (_END, ","):
            return Requirement(key, "exists")
        operator = self._take()
        if operator not in _OPERATORS:
            self._expected(operator, ", expected: in, notin, =, ==, !=, gt, lt")
        if operator in ("in", "notin"):
            values = self._values()
        else:
            values = {_END} if self._peek() in (_END, ",") else {self._identifier()}
        if operator in "<>" and any(_integer(value) is None for value in values):
            (value,) = values
            raise ValueError(
                f"values[0]: Invalid value: \"{value}\": for 'Gt', 'Lt' operators, the value must be an integer"
            )
        for value in sorted(values):
            _check(naming.label_value(value), value, f"values[0][{key}]")
        canonical = {"=": "in", "==": "in", "!=": "notin"}.get(operator, operator)
        return Requirement(key, canonical, frozenset(values))

    def _values(self) -> set[str]:
        word = self._take()
        if word != "(":
            self._expected(word, " expected: '('")
        values: set[str] = set()
        expects_value = True
        while True:
            word = self._take()
            if word in (",", ")"):
                if expects_value:
                    values.add("")
                if word == ")":
                    return values
                expects_value = True
            elif expects_value and word != _END and word not in _SYMBOLS:
                values.add(word)
                expects_value = False
            else:
                wanted = "',', ')' or identifier" if expects_value else "',' or ')'"
                self._expected(word, f", expected: {wanted}")

    def _identifier(self) -> str:
        word = self._take()
        if word == _END or word in _SYMBOLS:
            self._expected(word, ", expected: identifier")
        return word

    def _peek(self) -> str:
        return self._tokens[self._next]

    def _take(self) -> str:
        word = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return word

    @staticmethod
    def _expected(word: str, what: str) -> NoReturn:
        raise ValueError(f"found '{word}'{what}")


def _check(mistakes: list[str], value: str, where: str) -> None:
    if mistakes:
        raise ValueError(f'{where}: Invalid value: "{value}": {"; ".join(mistakes)}')
