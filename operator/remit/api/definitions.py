"""The CustomResourceDefinitions that `python -m remit.api` has written: to generate them took a quarter of a second of
each start of an operator."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

FILE: Final = Path(__file__).with_suffix(".json")


def crds() -> list[dict[str, Any]]:
    """All of them, as fresh dicts that a caller may change."""
    definitions: list[dict[str, Any]] = json.loads(FILE.read_bytes())
    return definitions
