"""What YAML may not do to whoever loads it."""

from __future__ import annotations

import pytest
import yaml

from remit.yamlsafe import MOST_DEPTH, MOST_VALUES, load_all


def bomb(levels: int, width: int = 10) -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


def merges(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


def chain(levels: int) -> str:
    return "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, levels))])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 200_000, "nested deeper than 100 levels"),
        ("{a: " * 200_000, "nested deeper than 100 levels"),
        ("- " * 200_000, "nested deeper than 100 levels"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "nested deeper than 100 levels"),
        (chain(200), "nested deeper than 100 levels"),
        (bomb(9), "more than 200000 values"),
        (merges(7), "more than 200000 values"),
        ("[" + "x," * MOST_VALUES + "x]", "more than 200000 values"),
        ("a: &a [*a]", "an alias refers to what it is part of"),
        ("a: 2026-13-45", "this is no timestamp"),
        ("a: !!int x", "this is no int"),
        ("a: !!bool x", "this is no bool"),
        ("a: !!timestamp x", "this is no timestamp"),
        (f"a: {'1' * 5000}", "this is no int"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("[", "expected the node content"),
    ],
)
def test_what_is_refused(text: str, told: str) -> None:
    with pytest.raises(yaml.YAMLError, match=told):
        load_all(text)


def test_what_is_loaded() -> None:
    text = "a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]\n---\n---\nz: " + "[" * 98 + "]" * 98
    first, second, third = load_all(text)
    assert first == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}, {"x": 1}]}
    assert second is None
    assert list(third) == ["z"]
    assert load_all("") == []


def test_the_bounds_are_of_each_document() -> None:
    half = "[" + "x," * (MOST_VALUES // 2) + "x]"
    assert len(load_all(f"{half}\n---\n{half}\n---\n{half}")) == 3
