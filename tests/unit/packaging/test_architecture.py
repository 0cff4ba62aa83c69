"""Tests that the table of packages in docs/architecture.md matches import-linter's contract, and that there are no
other packages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "operator/remit"


def contract() -> list[set[str]]:
    """Returns the layers of the strict contract, the lowest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract for contract in settings["contracts"] if contract["type"] == "layers")
    assert layers["containers"] == ["remit"]
    assert layers["exhaustive"] is True
    return [set(re.split(r"\s*\|\s*", layer)) for layer in reversed(layers["layers"])]


def test_the_documented_layers_are_the_enforced_ones() -> None:
    page = (ROOT / "docs/architecture.md").read_text()
    documented = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, flags=re.MULTILINE)
    expected = {(str(number), name) for number, layer in enumerate(contract()) for name in layer}
    assert set(documented) == expected
    assert len(documented) == len(expected)


def test_every_package_and_module_has_a_layer() -> None:
    found = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert found - {"__init__"} == set().union(*contract())


def test_no_two_packages_share_a_layer_and_import_each_other() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = (contract for contract in settings["contracts"] if contract["type"] == "layers")
    assert not [layer for layer in layers["layers"] if ":" in layer]
