"""The catalogue as docs/errors.md, and the page of one code. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from remit.reasons import CATEGORIES, SECTIONS, Category, Code

_INTRODUCTION: Final = """\
# Errors and other codes

Generated from `operator/remit/reasons` by `make crds`. Do not edit.

A code is one stable CamelCase word for what went wrong, or for where something stands. The same codes are the reason of
[conditions](tasks.md#reasons), of `status.error` and `status.attempts[]`, of Events, of audit records, of the metric
`remit_task_finished_total`, and of exceptions in Python (`error.code`, `error.category`, `error.remedy`). The message
beside a code says what happened in the case at hand; `remit errors CODE` prints what this page has of it, and
`remit errors` counts what failed.

An API server on a cluster has further reasons of its own, such as `Forbidden`, and so have programs in a pod: those are
not here.

## Categories

A closed set, with the same words everywhere.

| category | means |
| --- | --- |
"""


def render() -> str:
    """The whole document, as Markdown."""
    rows = [f"| `{name}` | {meaning} |" for name, meaning in CATEGORIES.items()]
    parts = [_INTRODUCTION + "\n".join(rows) + "\n"]
    for title, codes in SECTIONS.items():
        parts.append(f"## {title}\n\n" + "\n".join(_section(codes)))
    return "\n".join(parts)


def _section(codes: tuple[Code, ...]) -> Iterator[str]:
    failures = [code for code in codes if code.category is not Category.NONE]
    states = [code for code in codes if code.category is Category.NONE]
    yield "| code | category | means | tried again | what to do |"
    yield "| --- | --- | --- | --- | --- |"
    for code in sorted(failures, key=lambda code: code.name):
        yield f"| `{code.name}` | {code.category} | {code.meaning} | {code.retried} | {code.remedy} |"
    yield ""
    if states:
        yield "| no failure | means | what to do |"
        yield "| --- | --- | --- |"
        for code in sorted(states, key=lambda code: code.name):
            yield f"| `{code.name}` | {code.meaning} | {code.remedy or '–'} |"
        yield ""


def page(code: Code) -> str:
    """The text about one code for a terminal."""
    told = [(f"{code.name}", code.meaning), (f"Category {code.category}", CATEGORIES[code.category])]
    told += [("Tried again", f"{code.retried}.")] if code.retried else []
    told += [("What to do", code.remedy)] if code.remedy else []
    return "\n".join(f"{name}: {text}" for name, text in told).replace("`", "'")


def as_dict(code: Code) -> dict[str, str]:
    """The same for programs."""
    told = {"code": code.name, "category": str(code.category), "meaning": code.meaning}
    return told | {"retried": code.retried, "remedy": code.remedy}
