"""The one catalogue of codes: every stable CamelCase word that says where something stands or why it failed.

Status, Events, the audit trail, metrics, the command line and exceptions speak of the same codes, and docs/errors.md is
generated from here. A test holds the catalogue against what the source can raise.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from remit.reasons import operations, policies, releases, services, tasks
from remit.reasons.code import CATEGORIES, Category, Code

__all__ = ["CATALOGUE", "CATEGORIES", "SECTIONS", "Category", "Code", "category_of", "find"]

SECTIONS: Final[Mapping[str, tuple[Code, ...]]] = MappingProxyType(
    {
        "Tasks": tasks.CODES,
        "Policies": policies.CODES,
        "Operations": operations.CODES,
        "Releases": releases.CODES,
        "API and Python": services.CODES,
    }
)
CATALOGUE: Final[Mapping[str, Code]] = MappingProxyType(
    {code.name: code for code in itertools.chain.from_iterable(SECTIONS.values())}
)


def find(name: str) -> Code | None:
    """Find the description of the code; None for one that is not Remit's own, such as an API server's `Forbidden`."""
    return CATALOGUE.get(name)


def category_of(name: str) -> str:
    """The category of a failure with this code: `Infrastructure` where it is not Remit's own, empty where it is no
    failure."""
    found = CATALOGUE.get(name)
    if found is None:
        return str(Category.INFRASTRUCTURE)
    return "" if found.category is Category.NONE else str(found.category)
