"""Reads the CustomResourceDefinitions from the file that `python -m remit.api` wrote. Generating them instead would add
a quarter of a second to each start of an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")


def crds() -> list[dict[str, Any]]:
    """Returns all CustomResourceDefinitions, as new dicts that the caller may change."""
    definitions: list[dict[str, Any]] = json.loads(FILE.read_bytes())
    return definitions
