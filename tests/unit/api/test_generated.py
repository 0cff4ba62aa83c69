from __future__ import annotations

from pathlib import Path

import pytest

from remit.api import __main__ as generator
from remit.api import reference

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    """Provides the generated files once; they are not generated when tests are only collected."""
    return generator.generated()


def test_generated_files_are_what_the_models_say(generated: dict[Path, str]) -> None:
    drifted = [str(path) for path, text in generated.items() if (ROOT / path).read_text() != text]
    assert drifted == [], "run `make crds` and commit what it writes"


def test_drift_is_told_and_mended(
    generated: dict[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "generated", lambda: generated)
    monkeypatch.chdir(tmp_path)
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    drifted = tmp_path / "crds" / "remit.dev_executiontasks.yaml"
    drifted.write_text(drifted.read_text().replace("maxLength: 8192", "maxLength: 1"))
    assert generator.main(["--check"]) == 1
    assert "crds/remit.dev_executiontasks.yaml differs" in capsys.readouterr().err
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0


def test_wrong_usage_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert generator.main(["--wrong"]) == 2
    assert "usage" in capsys.readouterr().err


def test_the_reference_names_fields_with_their_bounds_and_defaults() -> None:
    lines = reference.render().splitlines()
    assert "## ExecutionTask" in lines
    factor = next(line for line in lines if line.startswith("| `spec.retry.backoff.factor`"))
    assert "At least 1, at most 10." in factor
    assert "Default: `2`." in factor
    assert any(line.startswith("| `spec.env[].name` *") for line in lines)
    assert "- `spec`: cancel cannot be taken back; create another task instead." in lines


def test_the_reference_does_not_repeat_a_task_within_a_hook() -> None:
    assert "prePromotion[].task.command" not in reference.render()
