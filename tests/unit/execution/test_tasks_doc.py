"""Tests that docs/errors.md, tasks.md and releases.md document every word that programs may find in status."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from remit.api.phases import Phase
from remit.backends.outcome import ExitReason
from remit.execution.admission import BASE_ENVIRONMENT

pytestmark = pytest.mark.no_cover

ROOT = Path(__file__).parents[3]
PAGE = "".join((ROOT / "docs" / page).read_text() for page in ("errors.md", "tasks.md", "releases.md"))
WRITERS = [
    *sorted((ROOT / "operator/remit/execution").glob("*.py")),
    *(ROOT / "operator/remit/controllers" / f"{name}.py" for name in ("deployments", "policies", "tasks", "taskstore")),
]
OF_OTHER_FIELDS = {
    "Allowed",
    "Always",
    "Apply",
    "Audited",
    "CommandPolicy",
    "Cpu",
    "Duration",
    "ExecutionTask",
    "False",
    "Memory",
    "Namespace",
    "Normal",
    "ReadOnly",
    "ReadWrite",
    "True",
    "Warning",
}
"""Policy decisions and their metrics, quantities of unusual runs, kinds, truth values, types of Events, and values of
specs and managed fields."""
WORD = re.compile(r"[A-Z][a-z]+([A-Z][a-z]+)*|OOMKilled")


def _words() -> set[str]:
    """Returns every string in the code that writes status that has the form of a reason."""
    nodes = (node for path in WRITERS for node in ast.walk(ast.parse(path.read_text())))
    texts = {node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text for text in texts if WORD.fullmatch(text)} - OF_OTHER_FIELDS


def _untold(words: set[str]) -> list[str]:
    return sorted(word for word in words if f"`{word}`" not in PAGE)


def test_the_words_are_found():
    assert {"Cancelled", "Backoff", "BackOff", "DeadlineExceeded", "NotSupported", "Compiled"} <= _words()


def test_every_reason_is_documented():
    assert _untold(_words() | set(map(str, ExitReason))) == []


def test_every_reason_of_an_operation_is_documented():
    trees = [ast.parse(path.read_text()) for path in (ROOT / "operator/remit/operations").rglob("*.py")]
    calls = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args]
    failures = [call.args[0] for call in calls if isinstance(call.func, ast.Name) and call.func.id == "OperationFailed"]
    reasons = {reason.value for reason in failures if isinstance(reason, ast.Constant)}
    assert {"ConnectFailed", "NotRunning", "ReplyTooLarge"} <= reasons
    assert _untold(reasons) == []


def test_every_phase_is_documented():
    assert _untold(set(map(str, Phase))) == []


def test_every_variable_that_a_run_is_given_is_documented():
    source = (ROOT / "operator/remit/execution/admission.py").read_text()
    given = set(re.findall(r'"(REMIT_[A-Z_]+)":', source))
    assert given
    assert _untold(given | set(BASE_ENVIRONMENT)) == []
