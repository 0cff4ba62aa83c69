"""Tests selectors. Grammar and errors are those of kube-apiserver 1.36."""

from __future__ import annotations

import pytest

from remit.controlplane.schema.selectors import parse_field_selector, parse_label_selector

LABELS = {"app": "web", "tier": "front", "size": "7", "empty": ""}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("", True),
        ("app", True),
        ("!app", False),
        ("!nope,app=web", True),
        ("app=web", True),
        ("app==web", True),
        ("app = web , tier != back", True),
        ("app!=web", False),
        ("nope!=web", True),
        ("app in (api, web)", True),
        ("app notin (api,web)", False),
        ("nope notin (a)", True),
        ("nope in (a)", False),
        ("empty=", True),
        ("empty in ()", True),
        ("empty in (,x)", True),
        ("empty in (x,)", True),
        ("app=", False),
        ("size>6", True),
        ("size > 7", False),
        ("size<8", True),
        ("app>1", False),
        ("nope<1", False),
        ("in in (in)", False),
        ("example.com/a notin (b)", True),
    ],
)
def test_labels_match(text: str, matches: bool) -> None:
    assert parse_label_selector(text).matches(LABELS) is matches


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        ("a notin (b", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("a,", "found '', expected: identifier after ','"),
        ("a=b=c", "found '=', expected: ',' or 'end of string'"),
        ("=b", "found '=', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a!b", "unable to parse requirement: found '!', expected: in, notin, =, ==, !=, gt, lt"),
        ("!a=b", "found '=', expected: ',' or 'end of string'"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("()", "found '(', expected: !, identifier, or 'end of string'"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a in (b))", "found ')', expected: ',' or 'end of string'"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, "
            "the value must be an integer",
        ),
        (
            "x" * 64,
            f'unable to parse requirement: <nil>: Invalid value: "{"x" * 64}": name part must be no more than 63 bytes',
        ),
        (
            "a=" + "x" * 64,
            f'unable to parse requirement: values[0][a]: Invalid value: "{"x" * 64}": must be no more than 63 bytes',
        ),
    ],
)
def test_label_mistakes(text: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_label_selector(text)
    assert str(caught.value) == error


ALLOWED = ("metadata.name", "metadata.namespace")


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=a", True),
        ("metadata.name==a,", True),
        ("metadata.name!=a", False),
        (",", True),
        ("metadata.name=a\\,b", False),
        ("metadata.namespace=n,metadata.name!=b", True),
    ],
)
def test_fields_match(text: str, matches: bool) -> None:
    selector = parse_field_selector(text, ALLOWED)
    assert selector.matches({"metadata.name": "a", "metadata.namespace": "n"}) is matches


def test_an_escaped_value_is_plain() -> None:
    selector = parse_field_selector(r"metadata.name=a\,b\=c\\d", ALLOWED)
    assert selector.matches({"metadata.name": r"a,b=c\d"})
    assert selector.keys == {"metadata.name"}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        ("spec.x=1", '"spec.x" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ("metadata.name=a\\x", "invalid field selector: invalid escape sequence: \\x"),
        (
            "metadata.name in (a)",
            "invalid selector: 'metadata.name in (a)'; can't understand 'metadata.name in (a)'",
        ),
    ],
)
def test_field_mistakes(text: str, error: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_field_selector(text, ALLOWED)
    assert str(caught.value) == error


def test_selectable_fields_have_their_own_refusal() -> None:
    with pytest.raises(ValueError, match=r"^field label not supported: spec\.y$"):
        parse_field_selector("spec.y=1", (*ALLOWED, "spec.x"))
