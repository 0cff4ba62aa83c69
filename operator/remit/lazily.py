"""Packages whose names are imported on first use: those that users import from.

Remit's own modules import from the module that defines a name, and only what they need: a supervisor runs beside each
supervised process, and a command that imports everything takes seconds.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast


def lazily(package: str, file: str) -> Callable[[str], object]:
    """A `__getattr__` (PEP 562) for the package `package`, whose `__init__.py` is `file`.

    The imports for the type checker say which module defines a name, so they are written once for both. A name must
    differ from that of its module: the import of the module would replace it.
    """
    imports = [node for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.ImportFrom)]
    where = {
        name.asname or name.name: node.module
        for node in imports
        for name in node.names
        if node.module is not None and node.module.startswith(f"{package}.")
    }

    def get(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[package], name, found)  # later accesses do not call `__getattr__`
        return found

    return get


@contextmanager
def without(*packages: str) -> Iterator[None]:
    """What is imported meanwhile finds none of these packages, unless they are imported already.

    For libraries that import whatever optional package is there: structlog takes 0.05 s longer with rich.
    """
    missing = [name for name in packages if name not in sys.modules]
    modules = cast("dict[str, object]", sys.modules)
    modules.update(dict.fromkeys(missing))
    try:
        yield
    finally:
        for name in missing:
            if modules.get(name) is None:
                modules.pop(name, None)
