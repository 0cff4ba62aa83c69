"""CEL rules (`x-kubernetes-validations`): compiled with the CRD, evaluated on no more than what they read.

Converting an object costs far more than a rule does, so a rule that only reads `self.a` and `oldSelf.b` is given just
those. A rule that cannot be evaluated, or that takes too long, has failed: validation is never skipped silently.

Not in the expression library: optional field selection (`self.?a`) and `cel.bind`, which are refused with the CRD, and
macros of two variables, whose rules fail when they are evaluated. Types and estimated cost are a real server's affair.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from remit.controlplane.schema.causes import Cause
from remit.controlplane.schema.celcost import Budget, NotOnLoop, Shape, is_cheap, is_cheap_by_size
from remit.controlplane.schema.celfunctions import FUNCTIONS, NATIVE
from remit.controlplane.schema.celworker import (
    CPU_SECONDS,
    WORKER,
    Evaluation,
    Expression,
    Outcome,
    compile_expression,
    evaluate,
)
from remit.controlplane.schema.fieldpath import follow
from remit.controlplane.schema.formats import parse_date_time, parse_duration
from remit.controlplane.schema.jsontypes import json_type

ToCel = Callable[[Any, "frozenset[str] | None"], Any]

_LONGEST: Final = 4000
"""Characters in an expression. The library recurses over long chains (`a + a + …`) and overflows the stack of the whole
process, from 8,000 characters on where threads have 2 MiB. Real rules have a few hundred."""
_OPAQUE: Final = re.compile(
    r"""
    //[^\n]*
    | (?<!\w)(?:[rR][bB]?|[bB][rR]) (?: \"{3}.*?\"{3} | \'{3}.*?\'{3} | "[^"\n]*" | '[^'\n]*' )
    | \"{3}(?:[^\\]|\\.)*?\"{3} | \'{3}(?:[^\\]|\\.)*?\'{3}
    | "(?:[^"\\\n]|\\.)*" | '(?:[^'\\\n]|\\.)*'
    """,
    re.VERBOSE | re.DOTALL,
)
"""Comments and string literals of CEL, raw ones first. A field that hides behind one would not reach its rule."""
_ROOT: Final = re.compile(r"(?<![\w.])(self|oldSelf)\b(?:\.(\w+)(\s*\()?)?")
_ESCAPES: Final = {"__underscores__": "__", "__dot__": ".", "__dash__": "-", "__slash__": "/"}
_RESERVED: Final = frozenset(
    [
        "true",
        "false",
        "null",
        "in",
        "as",
        "break",
        "const",
        "continue",
        "else",
        "for",
        "function",
        "if",
        "import",
        "let",
        "loop",
        "package",
        "namespace",
        "return",
        "var",
        "void",
        "while",
    ]
)
_REASONS: Final = {
    "FieldValueInvalid": "Invalid value",
    "FieldValueForbidden": "Forbidden",
    "FieldValueRequired": "Required value",
    "FieldValueDuplicate": "Duplicate value",
}


class Inconvertible(Exception):
    """A value is not of the type that its schema promises to CEL."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A compiled rule. `fields` and `old_fields` are what it reads of an object; None: everything."""

    source: str
    shape: Shape
    expression: Expression
    message: str
    message_source: str | None
    message_expression: Expression | None
    field_path: str
    reason: str
    fields: frozenset[str] | None
    old_fields: frozenset[str] | None
    transition: bool
    optional_old: bool

    def evaluate(
        self, value: Any, old: Any, path: str, to_cel: ToCel, *, known_old: bool, size: int, budget: Budget
    ) -> Cause | None:
        """None when it holds or has nothing to say. `size` is that of `value` and `old` as JSON."""
        if self.transition and not known_old and not self.optional_old:
            return None
        evaluation = Evaluation(self.source, self.message_source, None, self.transition, self.optional_old, known_old)
        try:
            evaluation = evaluation._replace(value=to_cel(value, self.fields))
            if self.transition and known_old:
                evaluation = evaluation._replace(old=to_cel(old, self.old_fields))
        except Inconvertible as error:
            return self._failed(value, str(error), path)
        started = time.thread_time()
        if is_cheap_by_size(self.shape, size) or self._is_cheap(value, old):
            outcome: Outcome | None = evaluate(evaluation, self.expression, self.message_expression)
        elif budget.on_loop:
            raise NotOnLoop
        else:
            outcome = WORKER.evaluate(evaluation)
            budget.spend(outcome.cpu_seconds if outcome else CPU_SECONDS)
        budget.spend(time.thread_time() - started)
        if outcome is None:
            return self._failed(value, "operation cancelled: actual cost limit exceeded", path)
        if outcome.error:
            return self._failed(value, outcome.error, path)
        if outcome.holds:
            return None
        message = outcome.message or self.message or f"failed rule: {self.source}"
        where = f"{path}{self.field_path}" if path else self.field_path.lstrip(".")
        if self.reason == "FieldValueInvalid" and not isinstance(value, dict | list):
            message = f"{orjson.dumps(value).decode()}: {message}"
        return Cause(self.reason, f"{_REASONS[self.reason]}: {message}", where)

    def _is_cheap(self, value: Any, old: Any) -> bool:
        return is_cheap(self.shape, _only(value, self.fields), _only(old, self.old_fields))

    def _failed(self, value: Any, error: str, path: str) -> Cause:
        text = f'Invalid value: "{json_type(value)}": {error} evaluating rule: {self.message or self.source}'
        return Cause("FieldValueInvalid", text, path)


def compile_rules(schema: Mapping[str, Any], path: str, causes: list[Cause]) -> tuple[Rule, ...]:
    """The rules of one schema. One that does not compile is a cause for refusing the CRD."""
    rules = []
    for index, declared in enumerate(schema.get("x-kubernetes-validations", ())):
        rule = _compile_rule(declared, schema, f"{path}[{index}]", causes)
        if rule is not None:
            rules.append(rule)
    return tuple(rules)


def _compile_rule(
    declared: Mapping[str, Any], schema: Mapping[str, Any], path: str, causes: list[Cause]
) -> Rule | None:
    source = declared.get("rule", "")
    if not source.strip():
        causes.append(Cause("FieldValueRequired", "Required value: rule is not specified", f"{path}.rule"))
        return None
    reason = declared.get("reason") or "FieldValueInvalid"
    expression = _compile(source, schema, f"{path}.rule", causes)
    message_source = declared.get("messageExpression")
    message = _compile(message_source, schema, f"{path}.messageExpression", causes) if message_source else None
    if expression is None:
        return None
    reads = _reads(source, message_source)
    return Rule(
        source=source,
        shape=Shape.of(_OPAQUE.sub(" '' ", f"{source} {message_source or ''}")),
        expression=expression,
        message=declared.get("message", ""),
        message_source=message_source,
        message_expression=message,
        field_path=_known_path(declared.get("fieldPath", ""), schema),
        reason=reason if reason in _REASONS else "FieldValueInvalid",
        fields=reads["self"] if schema.get("properties") else None,
        old_fields=reads["oldSelf"] if schema.get("properties") else None,
        transition="oldSelf" in expression.program.variables(),
        optional_old=bool(declared.get("optionalOldSelf")),
    )


def _known_path(path: str, schema: Mapping[str, Any]) -> str:
    """A stored rule may name a field that is not there: then its object is named instead."""
    try:
        follow(path, schema)
    except ValueError:
        return ""
    return path


def _compile(source: str, schema: Mapping[str, Any], path: str, causes: list[Cause]) -> Expression | None:
    """One whose every function is known and that reads no field that is not there."""

    def refuse(why: str) -> None:
        shown = orjson.dumps({"rule": source}).decode() if path.endswith(".rule") else orjson.dumps(source).decode()
        causes.append(Cause("FieldValueInvalid", f"Invalid value: {shown}: compilation failed: {why}", path))

    if len(source) > _LONGEST:
        refuse(f"it has {len(source)} characters; this control plane takes at most {_LONGEST}")
        return None
    try:
        expression = compile_expression(source)
    except ValueError as error:
        refuse(str(error).partition(": ")[2] or str(error))
        return None
    unknown = [
        name
        for name in expression.program.functions()
        if name.isidentifier() and name not in FUNCTIONS and name not in NATIVE
    ]
    if unknown:
        refuse(f"ERROR: <input>: undeclared reference to '{unknown[0]}' (in container '')")
        return None
    fields = _reads(source)["self"]
    properties = schema.get("properties")
    if properties and fields and not schema.get("x-kubernetes-preserve-unknown-fields"):
        known = {escape(name) for name in properties} | {"apiVersion", "kind", "metadata"}
        if missing := sorted(fields - known):
            refuse(f"ERROR: <input>: undefined field '{missing[0]}'")
            return None
    return expression


def _reads(*sources: str | None) -> dict[str, frozenset[str] | None]:
    """The fields of `self` and `oldSelf` that expressions name; None where one is used as a whole."""
    found: dict[str, set[str] | None] = {"self": set(), "oldSelf": set()}
    for source in sources:
        for match in _ROOT.finditer(_OPAQUE.sub(" '' ", source or "")):
            name, field, call = match.groups()
            fields = found[name]
            if field is None or call:
                found[name] = None
            elif fields is not None:
                fields.add(field)
    return {name: None if fields is None else frozenset(fields) for name, fields in found.items()}


def _only(value: Any, fields: frozenset[str] | None) -> Any:
    if fields is None or not isinstance(value, dict):
        return value
    return {name: part for name, part in value.items() if escape(name) in fields}


@functools.lru_cache(maxsize=4096)
def escape(name: str) -> str:
    """A property's name as CEL spells it."""
    if name in _RESERVED:
        return f"__{name}__"
    for spelled, character in _ESCAPES.items():
        name = name.replace(character, spelled)
    return name


def to_cel(node: Any, value: Any, fields: frozenset[str] | None = None) -> Any:
    """A value as CEL sees it: only the fields named, where `fields` is given."""
    if value is None:
        return None
    if isinstance(value, dict):
        return _object(node, value, fields)
    if isinstance(value, list):
        return [to_cel(node.items, item) for item in value] if node.items is not None else value
    if node.type == "number":
        return float(value)
    if node.type == "integer" and isinstance(value, float):
        raise Inconvertible("invalid data, expected int, got float64")
    if isinstance(value, str) and node.type == "string":
        return _text(value, node.raw.get("format"))
    return value


def _object(node: Any, value: dict[str, Any], fields: frozenset[str] | None) -> dict[str, Any]:
    converted = {}
    for key, part in value.items():
        if (child := node.properties.get(key)) is not None:
            name = escape(key)
            if fields is None or name in fields:
                converted[name] = to_cel(child, part)
        elif node.additional is not None:
            converted[key] = to_cel(node.additional, part) if node.additional.raw else part
    if node.resource:
        metadata = value.get("metadata") or {}
        converted |= {name: value[name] for name in ("apiVersion", "kind") if name in value}
        converted["metadata"] = {name: metadata[name] for name in ("name", "generateName") if name in metadata}
    return converted


def _text(value: str, format_: str | None) -> Any:
    try:
        match format_:
            case "date-time":
                return parse_date_time(value)
            case "duration":
                return parse_duration(value)
    except ValueError:
        wanted = "Timestamp" if format_ == "date-time" else "Duration"
        raise Inconvertible(f"type conversion error from 'string' to 'google.protobuf.{wanted}'") from None
    return value
