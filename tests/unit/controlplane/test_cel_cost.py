"""Tests CEL rules that cost too much: the write is refused, and the server continues."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from remit.api.definitions import crds
from remit.controlplane.schema import Cause, Schema, celcost, celworker
from remit.controlplane.schema.celcost import MOST_STEPS, Shape
from remit.controlplane.schema.celworker import WORKER, Evaluation, Outcome
from remit.safeyaml import load_all

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(path for path in (ROOT / "manifests/examples").glob("*.yaml") if not path.match("*.test.yaml"))
SCHEMAS = {crd["spec"]["names"]["kind"]: crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for crd in crds()}

INTEGERS = {"type": "array", "items": {"type": "integer"}}
STRINGS = {"type": "array", "items": {"type": "string"}}
NESTED = "self.l.all(a, self.l.all(b, self.l.all(c, self.l.all(d, a + b + c + d >= 0))))"


def schema(rule: str, **declared: Any) -> Schema:
    spec = {
        "type": "object",
        "properties": {"l": INTEGERS, "s": {"type": "string"}, "t": {"type": "string"}, "strings": STRINGS},
        "x-kubernetes-validations": [{"rule": rule, **declared}],
    }
    return Schema.compile({"type": "object", "properties": {"spec": spec}})


def causes(rule: str, /, message: str = "", **spec: Any) -> list[Cause]:
    return schema(rule, **({"message": message} if message else {})).validate({"spec": spec})


COSTLY = {
    "nested macros": (NESTED, {"l": list(range(300))}),
    "joined texts": (f"size({' + '.join(['self.s'] * 400)}) > 0", {"s": "x" * 1_000_000}),
    "doubled texts": ("size([self.s]" + ".map(x, x + x)" * 60 + "[0]) > 0", {"s": "x" * 1000}),
    "replaced by itself": ("size(self.s.replace('x', self.s).replace('x', self.s)) > 0", {"s": "x" * 100_000}),
    "doubled lists": ("size([self.l]" + ".map(x, x + x)" * 60 + "[0]) > 0", {"l": list(range(1_000))}),
    "split texts": (
        "self.s.split('').all(a, self.s.split('').all(b, self.s.split('').all(c, a == b && b == c)))",
        {"s": "x" * 10_000},
    ),
    "padded numbers": ("size('%.999999999f'.format([1.0])) > 0", {"s": ""}),
}


@pytest.mark.parametrize(("rule", "spec"), COSTLY.values(), ids=COSTLY.keys())
def test_a_rule_that_costs_too_much_refuses_the_write(rule: str, spec: dict[str, Any]) -> None:
    (cause,) = causes(rule, **spec)
    assert cause.field == "spec" and rule in cause.message, cause
    assert causes("self.l.all(a, self.l.exists(b, a == b))", l=list(range(100))) == [], "the next rule is evaluated"


def test_a_refusal_names_the_rule_by_its_message() -> None:
    (cause,) = causes(NESTED, "the numbers must fit together", l=list(range(300)))
    assert cause.message == (
        'Invalid value: "object": operation cancelled: actual cost limit exceeded evaluating rule: '
        "the numbers must fit together"
    )


def test_the_rules_of_one_object_have_a_budget_together(monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"type": "string", "x-kubernetes-validations": [{"rule": f"size(self) >= {n}"} for n in range(-40, 0)]}
    strings = Schema.compile({"type": "object", "properties": {"spec": {"type": "array", "items": item}}})
    assert strings.validate({"spec": ["a"] * 100}) == []
    monkeypatch.setattr(celcost, "CPU_SECONDS_OF_A_CALL", 0.1)
    found = strings.validate({"spec": ["a"] * 10_000})
    assert [cause.message.partition(", ")[0] for cause in found] == [
        'Invalid value: "string": validation failed due to running out of cost budget'
    ]


def test_the_worker_evaluates_as_the_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    properties = {
        "when": {"type": "string", "format": "date-time"},
        "span": {"type": "string", "format": "duration"},
        "size": {"type": "integer"},
        "text": {"type": "string"},
    }
    rules = [
        {"rule": "self.when > timestamp('2020-01-01T00:00:00Z')", "message": "too old"},
        {"rule": "self.span < duration('1h')"},
        {"rule": "self.size >= oldSelf.size", "message": "only grows"},
        {"rule": "!oldSelf.hasValue() || self.size < 100", "optionalOldSelf": True},
        {"rule": "self.text.lowerAscii() == 'abc'", "messageExpression": "'not ' + self.text"},
        {"rule": "quantity(self.text).isGreaterThan(quantity('1'))"},
    ]
    spec = {"type": "object", "properties": properties, "x-kubernetes-validations": rules}
    compiled = Schema.compile({"type": "object", "properties": {"spec": spec}})
    good = {"when": "2026-01-01T00:00:00Z", "span": "5m", "size": 5, "text": "ABC"}
    bad = {"when": "2019-01-01T00:00:00Z", "span": "2h", "size": 500, "text": "x"}
    cases = [(bad, None), (bad, good), (good, None), (good, bad), (good, good | {"size": 9})]

    def validated() -> list[list[Cause]]:
        return [compiled.validate({"spec": new}, old and {"spec": old}) for new, old in cases]

    here = validated()
    monkeypatch.setattr("remit.controlplane.schema.celcost.MOST_STEPS", -1)
    assert validated() == here and any(here)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Provides the rules that the worker was asked to evaluate; it answers that each holds."""
    asked: list[str] = []

    def answer(evaluation: Evaluation) -> Outcome:
        asked.append(evaluation.source)
        return Outcome(holds=True)

    monkeypatch.setattr(WORKER, "evaluate", answer)
    return asked


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_our_own_rules_need_no_worker(example: Path, asked: list[str]) -> None:
    """A round trip to the worker costs as much as the rest of a write."""
    for document in load_all(example.read_text()):
        if (declared := SCHEMAS.get(document["kind"])) is not None:
            own = Schema.compile(declared)
            own.default(document)
            assert own.validate(document) == []
    assert asked == []


CUBIC = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"


@pytest.mark.parametrize(
    ("rule", "spec", "needed"),
    [
        (f"!has(self.l) || {CUBIC}", {"s": "x" * 100_000}, False),
        (f"!has(self.l) || {CUBIC}", {"l": list(range(60))}, True),
        ("self.s == '' || [1, 2].all(a, [1, 2].all(b, [1, 2].all(c, 'x'.matches(self.s))))", {"s": "x"}, True),
        ("!has(self.strings) || self.strings.all(a, a.matches('x'))", {"s": "x"}, False),
    ],
    ids=["reads little", "reads much", "goes over lists of its own", "goes over nothing"],
)
def test_a_rule_is_judged_by_what_it_reads(rule: str, spec: dict[str, Any], needed: bool, asked: list[str]) -> None:
    assert causes(rule, **spec) == []
    assert asked == ([rule] if needed else [])


def test_a_worker_that_died_is_started_again() -> None:
    rule = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"
    assert causes(rule, l=list(range(60))) == []
    process = WORKER._process
    assert process is not None
    process.kill()
    process.wait()
    assert causes(rule, l=list(range(60))) == []
    WORKER.close()
    assert causes(rule, l=list(range(60))) == []


def test_a_worker_that_takes_nothing_more_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request is larger than a pipe holds."""
    worker, much = celworker.Worker(), celworker.Evaluation("self.size() > 0", None, "x" * (4 << 20))
    assert worker.evaluate(much) is not None
    assert worker._process
    monkeypatch.setattr(celworker, "WALL_SECONDS", 0.5)
    os.kill(worker._process.pid, signal.SIGSTOP)
    assert worker.evaluate(much) is None
    monkeypatch.undo()
    again = worker.evaluate(much)
    assert again is not None and again.holds
    worker.close()


@pytest.mark.parametrize(
    ("source", "nodes", "depth", "joins"),
    [
        ("self.a == 1", 6, 0, 0),
        ("self.l.all(a, a > 0)", 12, 1, 0),
        ("self.l.all(a, self.l.exists(b, a == b)) && self.l.all(c, c)", None, 2, 0),
        ("self.l.map(a, a + 1).filter(b, b > 0)", None, 1, 1),
        ("((self.a))", 7, 0, 0),
    ],
)
def test_the_shape_of_an_expression(source: str, nodes: int | None, depth: int, joins: int) -> None:
    shape = Shape.of(source)
    assert (shape.depth, shape.joins) == (depth, joins)
    assert nodes is None or shape.nodes == nodes


def test_ordinary_rules_are_evaluated_in_the_server() -> None:
    assert Shape.of("self.low <= self.high").steps(1_000_000, 500_000) < MOST_STEPS
    assert Shape.of("self.all(s, !has(s.after) || self.exists(o, o.name == s.after))").steps(2_000, 30) < MOST_STEPS
    assert Shape.of("self.all(a, self.all(b, !b.path.startsWith(a.path + '')))").steps(1_000, 15) < MOST_STEPS
