"""Fewer rules for commands: those that differ in one argument become one rule. Pure.

Nothing is allowed by that which was not before. Where an argument has more values than a reader would go through, or
where that is asked for, it becomes a pattern that describes them; such a rule allows more, and says so in its notes.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from remit.policy.needs import MOST_PATTERN, exactly

MOST_VALUES: Final = 16
"""How many values of one argument are listed one by one."""
_WORD: Final = re.compile(r"[a-z][a-z-]*")
_TO_BOUNDARY: Final = re.compile(r".*[^A-Za-z0-9]|")
_FROM_BOUNDARY: Final = re.compile(r"[^A-Za-z0-9].*\Z|\Z")
_SHOWN: Final = 3
_MOST_REPEATS: Final = 1000


@dataclass(frozen=True)
class ExactRule:
    """One command that is to be allowed, as a policy's rule; `runs` are the numbers of those that it stands for."""

    rule: Mapping[str, Any]
    argv: tuple[str, ...]
    runs: frozenset[int]
    fixed: bool = False
    """It stays as it is: other values of an argument would be another program, or one is not known."""


@dataclass(frozen=True)
class FittedRule:
    """A rule for several commands. `notes` say what it allows beyond these."""

    rule: Mapping[str, Any]
    runs: frozenset[int]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Product:
    """Every combination of these values, of arguments of one program."""

    executable: str
    values: tuple[frozenset[str], ...]
    runs: frozenset[int] = field(compare=False)


def joined(rules: Sequence[ExactRule], *, generalize: bool = False, most_values: int = MOST_VALUES) -> list[FittedRule]:
    """The fewest rules that allow the same. `generalize`: fewer ones that allow more, as their notes say."""
    kept = [FittedRule(each.rule, each.runs) for each in rules if each.fixed or "executable" not in each.rule]
    products = [
        _Product(str(each.rule["executable"]), tuple(frozenset({word}) for word in each.argv[1:]), each.runs)
        for each in rules
        if not each.fixed and "executable" in each.rule
    ]
    found = _bounding(products) if generalize else _joined(products)
    fitted = [_fitted(each, generalize, most_values) for each in found]
    return sorted([*kept, *fitted], key=lambda each: json.dumps(each.rule))


def _joined(products: Iterable[_Product]) -> list[_Product]:
    """Join what differs in one argument, until nothing does. The last arguments first: they vary most."""
    found = list(products)
    while True:
        before = len(found)
        for place in reversed(range(max((len(each.values) for each in found), default=0))):
            alike: dict[tuple[Any, ...], list[_Product]] = defaultdict(list)
            for each in found:
                others = (*each.values[:place], *each.values[place + 1 :])
                alike[each.executable, len(each.values), place < len(each.values), others].append(each)
            found = []
            for (_, _, has_place, _), several in alike.items():
                found += [_union(several, [place])] if has_place else several
        if len(found) == before:
            return found


def _bounding(products: Iterable[_Product]) -> list[_Product]:
    alike: dict[tuple[str, int], list[_Product]] = defaultdict(list)
    for each in products:
        alike[each.executable, len(each.values)].append(each)
    return [_union(each, range(length)) for (_, length), each in alike.items()]


def _union(products: Sequence[_Product], places: Iterable[int]) -> _Product:
    values = list(products[0].values)
    for place in places:
        values[place] = frozenset().union(*(each.values[place] for each in products))
    runs = frozenset().union(*(each.runs for each in products))
    return replace(products[0], values=tuple(values), runs=runs)


def _fitted(product: _Product, generalize: bool, most_values: int) -> FittedRule:
    patterns, notes, several = [], [], 0
    for number, values in enumerate(product.values, start=1):
        several += len(values) > 1
        listed = "|".join(exactly(value) for value in sorted(values))
        described = None
        if len(values) > most_values or len(listed) > MOST_PATTERN or (generalize and not _are_words(values)):
            described = description(sorted(values)) if len(values) > 1 else None
        patterns.append(listed if described is None else described)
        if described is not None:
            shown = ", ".join(sorted(values)[:_SHOWN])
            notes.append(f"argument {number} had {len(values)} values ({shown} …): others of this form are allowed too")
    if generalize and several > 1:
        notes.append("any combination of these arguments is allowed")
    return FittedRule({"executable": product.executable, "args": patterns}, product.runs, tuple(notes))


def _are_words(values: Iterable[str]) -> bool:
    """Whether the values are words, such as subcommands, each of which does something else."""
    return all(_WORD.fullmatch(value) for value in values)


def description(values: Sequence[str]) -> str | None:
    """A pattern for `values` and others of their form: what all begin and end with, and in between characters of the
    kinds that are there, no part of a path beginning in a new way. None where they have no form that holds."""
    start = _TO_BOUNDARY.match(_common_start(values))
    prefix = start[0] if start else ""
    if "=" not in prefix and any(value.startswith("-") for value in values):
        return None  # options have different effects, so they are not generalized
    rests = [value[len(prefix) :] for value in values]
    end = _FROM_BOUNDARY.search(_common_start([rest[::-1] for rest in rests])[::-1])
    suffix = end[0] if end else ""
    cores = [rest[: len(rest) - len(suffix)] for rest in rests]
    parts = [core.split("/") for core in cores if core]
    if not parts or any("" in each for each in parts):
        return None
    if any(part[0] == "." or (part[0] == "-" and not prefix) for each in parts for part in each):
        return None  # any part could then begin with this character and become `..` or an option such as `-e`
    firsts = _kinds(part[0] for each in parts for part in each)
    rest = _kinds(character for each in parts for part in each for character in part[1:])
    longest = max(len(part) for each in parts for part in each)
    if longest > _MOST_REPEATS:
        return None
    shortest = min(len(part) for each in parts for part in each)
    part = f"{firsts}{rest}{{0,{longest - 1}}}"
    if firsts == rest:
        part = f"{firsts}{{{shortest}{f',{longest}' if shortest < longest else ''}}}"
    part = firsts if longest == 1 else part
    deepest = max(map(len, parts))
    middle = part if deepest == 1 else f"{part}(/{part}){{0,{deepest - 1}}}"
    middle = f"({middle})?" if "" in cores else middle
    return f"{exactly(prefix)}{middle}{exactly(suffix)}"


def _common_start(values: Sequence[str]) -> str:
    first, last = min(values), max(values)
    shorter = min(len(first), len(last))
    return first[: next((at for at in range(shorter) if first[at] != last[at]), shorter)]


def _kinds(characters: Iterable[str]) -> str:
    """A class of characters: digits and letters by their kind, all others by themselves."""
    seen = set(characters)
    kinds = ["0-9"] if any(each in "0123456789" for each in seen) else []
    kinds += ["A-Z"] if any("A" <= each <= "Z" for each in seen) else []
    kinds += ["a-z"] if any("a" <= each <= "z" for each in seen) else []
    others = sorted(each for each in seen if not (each.isascii() and each.isalnum()))
    escaped = "".join(f"\\{each}" if each in "\\]^[-" else each for each in others)
    return f"[{''.join(kinds)}{escaped}]" if seen else ""
