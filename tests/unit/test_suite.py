"""Tests the output of `make test`, how tests are distributed, and which are left to `make soak`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import parts
import progress
from distribution import longest_first, scope
from support import repetitions

CONFTEST = Path(__file__).parents[1] / "conftest.py"
ROOT = CONFTEST.parents[1]


def test_a_part_that_is_missing_is_reported_with_what_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(parts, "PARTS", (parts.Part("a", "this", lambda: "/a"), parts.Part("b", "that", lambda: None)))
    assert [line.split(maxsplit=1)[1] for line in parts.report()] == ["here", "missing, skipping that"]
    monkeypatch.setenv("CI", "true")
    monkeypatch.setenv("REMIT_REQUIRE", "b")
    assert next(line for line in parts.report() if " b " in line).endswith("which must not be")


def test_lines_fit_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tuple(parts.Part(part.name, part.uses, lambda: None) for part in parts.PARTS)
    monkeypatch.setattr(parts, "PARTS", nothing)
    assert max(map(len, parts.report())) <= 80
    assert len(progress.line(99_999, 99_999, 0.5, 36_000)) <= 80


def test_what_is_left_is_reported_once_it_is_known() -> None:
    assert progress.line(5, 100, 0.25, 60) == " 25%  1:00 elapsed, about 3:00 left  (5 of 100 tests)"
    assert "left" not in progress.line(1, 100, 0.01, 60)
    assert "left" not in progress.line(100, 100, 1, 60)


def test_tests_count_by_what_they_take() -> None:
    assert progress.weight("tests/e2e/test_a.py::test") > progress.weight("tests/unit/test_a.py::test")


def test_what_takes_longest_comes_first_and_files_stay_whole() -> None:
    def item(path: str, *markers: str) -> SimpleNamespace:
        found = dict.fromkeys(markers, True)
        return SimpleNamespace(nodeid=f"{path}::test", get_closest_marker=found.get)

    quick, slow = item("tests/unit/a.py"), item("tests/unit/b.py", "slow")
    few, many = [item("tests/e2e/a.py")], [item("tests/e2e/b.py")] * 2
    shared = [item(f"tests/conformance/{name}.py") for name in "ab"] * 20
    assert longest_first([quick, *few, *many, slow, *shared]) == [*shared, slow, *many, *few, quick]


def test_a_file_or_a_shared_folder_goes_to_one_worker() -> None:
    assert scope("tests/unit/a.py::One::test[x::y]") == "tests/unit/a.py"
    assert scope("tests/conformance/a.py::t") == scope("tests/conformance/b.py::t")


def test_one_worker_computes_while_the_others_wait(tmp_path: Path) -> None:
    for path in ("tests/e2e/test_a.py", "tests/e2e/test_b.py", "tests/unit/test_a.py", "tests/unit/test_b.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text("def test_it(worker_id): open(f'{__file__}.worker', 'w').write(worker_id)\n")
    told_of(tmp_path, "--numprocesses=2", "--dist=loadfile", "--no-loadscope-reorder")
    worker = {path.parent.name + path.name[5]: path.read_text() for path in tmp_path.rglob("*.worker")}
    assert worker["unita"] == worker["unitb"] != worker["e2ea"] == worker["e2eb"]


def test_workers_tell_how_each_test_has_ended(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.fixture\ndef bad(): raise KeyError('set-up')\n"
        "@pytest.fixture\ndef left(): yield; raise KeyError('teardown')\n"
        "def test_good(): print('unseen')\n"
        "def test_wrong(): print('seen'); assert 1 == 2\n"
        "def test_bad(bad): pass\n"
        "def test_left(left): pass\n"
        "def test_skipped(): pytest.skip('why')\n"
        "@pytest.mark.xfail\ndef test_expected(): assert False\n"
    )
    told = told_of(tmp_path, "--progress", "--numprocesses=1", "--dist=loadfile")
    for each in ("KeyError: 'set-up'", "KeyError: 'teardown'", "assert 1 == 2", "seen", "why", "(6 of 6 tests)"):
        assert each in told
    assert "1 failed, 2 passed, 1 skipped, 1 xfailed, 2 errors" in told


@pytest.mark.parametrize(("soak", "outcome"), [("0", "1 passed, 1 deselected"), ("1", "2 passed")])
def test_only_soak_runs_what_is_marked_so(tmp_path: Path, soak: str, outcome: str) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_usual(): pass\n@pytest.mark.soak\ndef test_long(): pass\n"
    )
    assert outcome in told_of(tmp_path, REMIT_SOAK=soak)


def test_nothing_is_measured_where_a_test_or_a_fixture_says_so(tmp_path: Path) -> None:
    """This includes fixtures of such a test and workers. Measuring takes half as long again."""
    (tmp_path / "test_of_tests.py").write_text(
        "import pytest\nfrom coverage import Coverage\n"
        "@pytest.fixture\n"
        "def measured():\n"
        "    found = [bool(Coverage.current())]\n"
        "    yield found\n"
        "    assert bool(Coverage.current()) == found[0]\n"
        "def test_usual(measured): assert measured == [True]\n"
        "@pytest.mark.no_cover\ndef test_long(measured): assert measured == [False] and not Coverage.current()\n"
        "def test_usual_again(measured): assert measured == [True]\n"
    )
    (tmp_path / "test_of_fixtures.py").write_text(
        "import pytest\nfrom support import unmeasured\nfrom coverage import Coverage\n"
        "@pytest.fixture\n"
        "def measured(request):\n"
        "    with unmeasured(request.config):\n"
        "        with unmeasured(request.config): pass\n"
        "        assert not Coverage.current()\n"
        "    return bool(Coverage.current())\n"
        "def test_usual(measured): assert measured and Coverage.current()\n"
        "@pytest.mark.no_cover\ndef test_long(measured): assert not measured\n"
    )
    assert "5 passed" in told_of(tmp_path, "--numprocesses=1", "--cov=.", "--cov-report=")


def test_a_failure_whose_source_cannot_be_parsed_is_reported(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import _pytest._code.source, types\n"
        "def parse(*_): raise SystemError('AST constructor recursion depth mismatch')\n"
        "_pytest._code.source.ast = types.SimpleNamespace(parse=parse)\n"
        "def test_one(): assert 1 == 2, 'the reason'\n"
        "def test_another(): pass\n"
    )
    told = told_of(tmp_path)
    assert "AssertionError: the reason" in told
    assert "1 failed, 1 passed" in told


def told_of(folder: Path, *options: str, **environment: str) -> str:
    """Returns the output of a test run in a folder, with the configuration of Remit's tests."""
    argv = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
    argv += ["--rootdir", str(folder), "-p", "no:cacheprovider", "-p", "conftest", *options, str(folder)]
    environment = {"PYTHONPATH": str(CONFTEST.parent), "PATH": "", **environment}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, cwd=folder, timeout=100)
    return done.stdout + done.stderr


def test_no_plugin_is_imported_that_no_test_uses(tmp_path: Path) -> None:
    """The plugin of Schemathesis takes most of a second, for each worker."""
    (tmp_path / "test_it.py").write_text(
        "import sys\ndef test_it(): assert not {'schemathesis', 'valkey'} & sys.modules.keys()\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")]
    argv += ["--rootdir", str(tmp_path), "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(argv, env={"PATH": ""}, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert "1 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("environment", "percent"),
    [
        ({}, 85),
        ({"CI": "true", "REMIT_REQUIRE": "bwrap,docker,kube-apiserver"}, 85),
        ({"REMIT_REQUIRE": "docker,kube-apiserver,cluster"}, 85),
        ({"CI": "true", "REMIT_REQUIRE": "bwrap,kube-apiserver,docker,postgres,cluster,audit-log"}, 93),
    ],
)
def test_what_must_be_covered_depends_on_what_is_here(environment: dict[str, str], percent: int) -> None:
    argv = [shutil.which("make") or "make", "--dry-run", "test"]
    done = subprocess.run(argv, env={"PATH": os.defpath, **environment}, capture_output=True, text=True, cwd=ROOT)
    assert f"--cov-fail-under {percent}\n" in done.stdout, done.stdout + done.stderr


def test_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REMIT_SOAK", raising=False)
    assert repetitions(2, 200) == 2
    monkeypatch.setenv("REMIT_SOAK", "1")
    assert repetitions(2, 200) == 200
