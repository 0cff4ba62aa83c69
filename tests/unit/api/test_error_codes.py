"""Tests that the catalogue of codes matches the source: it contains every code that can be raised, and no others."""

from __future__ import annotations

import inspect
import textwrap
from pathlib import Path
from typing import get_args

import pytest

from raisedcodes import Scan
from remit import errors, reasons
from remit.api.deploymentstatus import STAGES, Outcome
from remit.backends.failure import OperationFailed
from remit.errors import ApiError, BackendError, DeploymentError, PolicyDenied, RemitError, TimeoutError
from remit.reasons import CATALOGUE, SECTIONS, Category, reference

STAGES_AND_ENDS = {*STAGES, *get_args(Outcome)}
"""Conditions of a release have its stage as the reason, and Events its outcome."""
FOLLOWED = {
    ("backends/ending.py", "ending.stopped"): "an ExitReason, which whoever stops an attempt passes",
    ("controllers/policies.py", "why[:1024]"): "`lastDenied.reason` of a policy, which is a sentence",
    ("describe/explained.py", "next(conditions, '')"): "a condition's, read back",
    (
        "describe/releasetree.py",
        "next((each.reason for each in status.conditions if each.type == 'Reconciling'), '')",
    ): "the same",
    ("operations/process/supervisor.py", "ExitReason(outcome.reason)"): "another process's, read back",
    ("operations/process/supervisor.py", "type(error).__name__"): "a supervisor's own log",
    ("release/status.py", "release.stage"): "STAGES_AND_ENDS",
    ("web/overview.py", "reason"): "a status's, read back",
    (
        "web/rows.py",
        "sys.intern(_text(error.get('reason')) or _text(queue.get('reason')) or _finished(status))",
    ): "the same",
}
"""Places that the scan cannot follow, and why no code comes from them or where it is found otherwise."""


@pytest.fixture(scope="module")
def scan() -> Scan:
    return Scan()


@pytest.mark.no_cover
def test_every_code_that_is_raised_is_in_the_catalogue_and_no_other(scan: Scan) -> None:
    raised = {found.code: found.where for found in scan.codes} | dict.fromkeys(STAGES_AND_ENDS, "STAGES_AND_ENDS")
    missing = {code: where for code, where in raised.items() if code not in CATALOGUE}
    assert not missing, f"add these to operator/remit/reasons: {missing}"
    unused = set(CATALOGUE) - set(raised)
    assert not unused, f"nothing raises these; remove them from operator/remit/reasons: {unused}"


@pytest.mark.no_cover
def test_whatever_the_scan_cannot_follow_is_accounted_for(scan: Scan) -> None:
    assert {(found.where, found.code) for found in scan.unknown} == set(FOLLOWED)


@pytest.mark.parametrize(
    ("source", "codes", "unknown"),
    [
        ("raise OperationFailed('Given', 'text')", {"Given"}, set[str]()),
        ("raise OperationFailed(reason='Named', message='text')", {"Named"}, set()),
        ("raise OperationFailed('One' if late else 'Other', 'text')", {"One", "Other"}, set()),
        ("word = 'Kept'\n    raise OperationFailed(word, 'text')", {"Kept"}, set()),
        ("raise OperationFailed(_WORDS[1][0], 'text')", set(), {"_WORDS[1][0]"}),
        (
            "word, text = _WORDS.get(1, ('Fallback', ''))\n    raise OperationFailed(word, text)",
            {"InTable", "Fallback"},
            set(),
        ),
        ("raise OperationFailed(_word(), 'text')", {"Returned"}, set()),
        ("raise OperationFailed(error.reason, 'text')", set(), set()),
        ("raise OperationFailed(type(error).__name__, 'text')", set(), {"type(error).__name__"}),
        ("return {'reason': 'Written'}", {"Written"}, set()),
        ("return Kind.MEMBER", set(), set()),
        ("raise OperationFailed(Kind.MEMBER, 'text')", {"Member"}, set()),
        ("log.info('text', reason='Logged')", set(), set()),
        ("self.record('Warning', 'Told', 'text')", {"Told"}, set()),
    ],
)  # fmt: skip
def test_the_scan_follows_what_is_passed_for_a_reason(
    source: str, codes: set[str], unknown: set[str], tmp_path: Path
) -> None:
    (tmp_path / "module.py").write_text(
        textwrap.dedent("""\
            class Kind(StrEnum):
                MEMBER = "Member"
            class OperationFailed(Exception):
                def __init__(self, reason, message): ...
            _WORDS = {1: ("InTable", "text")}
            def _word():
                return "Returned"
            class Events:
                def record(self, type_, reason, message): ...
            def function(error, late, log, self):
        """)
        + f"    {source}\n"
    )
    found = Scan(tmp_path)
    assert ({each.code for each in found.codes}, {each.code for each in found.unknown}) == (codes, unknown)


def test_each_code_is_told_of_once_and_in_full() -> None:
    names = [code.name for section in SECTIONS.values() for code in section]
    assert sorted(names) == sorted(set(names))
    for code in CATALOGUE.values():
        assert code.meaning.endswith("."), code
        assert not code.remedy or code.remedy.endswith("."), code
        failure = code.category is not Category.NONE
        assert not failure or (code.retried and code.remedy), f"{code.name} does not say what to do"
        assert failure or not code.retried or code.name in {"RunSkipped", "WaitingForReference"}, code
        assert "|" not in code.meaning + code.retried + code.remedy, "it would end a cell of docs/errors.md"


def test_the_categories_are_a_closed_set_that_is_used_in_full() -> None:
    assert set(reasons.CATEGORIES) == set(Category) == {code.category for code in CATALOGUE.values()}


def _family() -> list[type[RemitError]]:
    return [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RemitError)]


@pytest.mark.parametrize("kind", _family())
def test_each_class_of_the_family_has_a_code_of_its_own(kind: type[RemitError]) -> None:
    assert "default_code" in vars(kind)
    assert kind.default_code in CATALOGUE


@pytest.mark.parametrize(
    ("error", "code", "category"),
    [
        (TimeoutError("it took long"), "Timeout", "Timeout"),
        (BackendError("it was away", reason="NodeLost"), "NodeLost", "Interrupted"),
        (PolicyDenied("no", reason="NoPolicy"), "NoPolicy", "Denied"),
        (PolicyDenied("no"), "PolicyDenied", "Denied"),
        (DeploymentError("no", reason="PortTaken"), "PortTaken", "Invalid"),
        (OperationFailed("NotReady", "not now"), "NotReady", "Operation"),
        (OperationFailed("NotReady", "not now", category="Infrastructure"), "NotReady", "Infrastructure"),
        (ApiError("no", status=403, reason="Forbidden"), "Forbidden", "Infrastructure"),
        (ApiError("no", status=500), "ApiError", "Infrastructure"),
    ],
)
def test_exceptions_speak_of_the_same_codes(error: RemitError, code: str, category: str) -> None:
    assert (error.code, error.category) == (code, category)
    found = CATALOGUE.get(code)
    assert error.remedy == (found.remedy if found else "")


def test_the_page_of_a_code_says_what_the_catalogue_has_of_it() -> None:
    page = reference.page(CATALOGUE["OOMKilled"])
    assert page.startswith("OOMKilled: It used more memory than its limit.")
    assert "Resources" in page
    assert "Raise 'resources.memory'" in page
    text = reference.render()
    assert all(f"| `{name}` |" in text for name in CATALOGUE)
