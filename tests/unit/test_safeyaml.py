"""Tests YAML from outside: only JSON values are loaded, and the cost is limited before objects are built."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import yaml

from remit import safeyaml

LETTERS = "abcdefghi"
BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise(LETTERS)
)
MERGE_BOMB = "a: &a {k: 1}\n" + "".join(
    f"{name}: &{name} {{<<: [{','.join([f'*{before}'] * 9)}]}}\n" for before, name in pairwise(LETTERS)
)
LONG_TEXT = f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 1_000)}]"

REFUSED = {
    "aliases of aliases": (BOMB, "excessive aliasing"),
    "merged aliases of aliases": (MERGE_BOMB, "excessive aliasing"),
    "aliases of a long text": (LONG_TEXT, "excessive aliasing"),
    "an alias of itself": ("a: &a [*a]", "contains itself"),
    "open brackets": ("[" * 100_000, "max depth"),
    "open braces": ("{a: " * 100_000, "max depth"),
    "dashes": ("- " * 100_000 + "x", "max depth"),
    "question marks": ("? " * 100_000 + "x", "max depth"),
    "too many values": (f"[{'1,' * 150_000}]", "more than 100000 values"),
    "an integer of 5,000 digits": ("a: " + "9" * 5_000, "cannot be read"),
    "an integer that is none": ('!!int ""', "cannot be read"),
    "a boolean that is none": ("!!bool x", "cannot be read"),
    "not a number": ("a: .nan", "finite"),
    "infinity": ("a: -.inf", "finite"),
    "bytes": ("a: !!binary aGk=", "tag"),
    "a set": ("!!set {a, b}", "tag"),
    "a python object": ("!!python/object/apply:os.system [ls]", "tag"),
    "a list as key": ("{[a]: b}", "unhashable"),
    "null as key": ("{~: a}", "unsupported map key"),
}


@pytest.mark.parametrize(("text", "why"), REFUSED.values(), ids=REFUSED.keys())
@pytest.mark.parametrize("load", [safeyaml.load, safeyaml.load_all])
def test_what_costs_too_much_or_is_no_json_is_refused(load: Any, text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        load(text)


@pytest.mark.parametrize(("text", "why"), [REFUSED["open brackets"], REFUSED["aliases of aliases"]])
def test_nodes_are_bounded_too(text: str, why: str) -> None:
    with pytest.raises(yaml.YAMLError, match=why):
        safeyaml.compose(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 2020-01-01", {"a": "2020-01-01"}),
        ("a: 2020-01-01T00:00:00Z", {"a": "2020-01-01T00:00:00Z"}),
        ("a: =", {"a": "="}),
        ("[1e3, -2.5E-1, 1e, e3, 0x1e3, 12e03]", [1000.0, -0.25, "1e", "e3", 483, 12000.0]),
        ("{2: a, yes: b, 1.5: c}", {"2": "a", "true": "b", "1.5": "c"}),
        ("{a: y, b: N, n: c, d: yes it is}", {"a": True, "b": False, "false": "c", "d": "yes it is"}),
        ("[0o17, -0o17, 0o18, 08, -019, 0_8, 0777]", [15, -15, "0o18", 8.0, -19.0, 8.0, 511]),
        ("a: &a {x: 1}\nb: {<<: *a, z: 2}", {"a": {"x": 1}, "b": {"x": 1, "z": 2}}),
        ("a: &a [1, 2]\nb: *a", {"a": [1, 2], "b": [1, 2]}),
        ("", None),
    ],
)
def test_yaml_is_read_as_kubernetes_reads_it(text: str, value: Any) -> None:
    assert safeyaml.load(text) == value


def test_text_is_written_so_that_it_is_read_as_text() -> None:
    texts = "y N yes ~ 08 0o17 -0o17 1e3 12E5 1_0 0x1f 1.5 .inf 2020-01-01 12:30"
    document = {text: text for text in texts.split()}
    assert safeyaml.load(yaml.dump(document, Dumper=safeyaml.Dumper)) == document


@pytest.mark.parametrize("text", ["12:30", "22:22", "1:30.5", "-190:20:30"])
def test_times_and_pairs_of_ports_stay_text_as_for_kubectl(text: str) -> None:
    assert safeyaml.load(f"a: {text}") == {"a": text}
    assert safeyaml.load("[017, 0x1f, -1.5, 1_000, .5]") == [15, 31, -1.5, 1000, 0.5]


def test_a_large_document_passes() -> None:
    items = "".join(f"- &a{number} {{name: item-{number}, size: {number}}}\n" for number in range(1_000))
    aliases = "".join(f"- *a{number}\n" for number in range(1_000))
    loaded = safeyaml.load(items + aliases)
    assert len(loaded) == 2_000 and loaded[1_999] == {"name": "item-999", "size": 999}
    assert safeyaml.load("[" * 250 + "]" * 250)


def test_the_bounds_are_those_of_one_document() -> None:
    assert len(safeyaml.load_all(f"[{'1,' * 60_000}]\n---\n[{'1,' * 60_000}]")) == 2
