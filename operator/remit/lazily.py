"""Rooms whose names are imported when they are first asked for.

There is a supervisor beside each supervised process, and it needs a few modules out of many rooms: importing all that
those rooms offer took most of the time until a program was started, and half of the supervisor's memory.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path


def lazily(room: str, file: str) -> Callable[[str], object]:
    """A `__getattr__` (PEP 562) for the package `room`, whose `__init__.py` is `file`.

    Which module has a name, its imports for the type checker say: they are written once, for both. No name may be that
    of its module, which would stand for it as soon as somebody imports the module.
    """
    imports = [node for node in ast.walk(ast.parse(Path(file).read_bytes())) if isinstance(node, ast.ImportFrom)]
    where = {
        name.asname or name.name: node.module
        for node in imports
        for name in node.names
        if node.module is not None and node.module.startswith(f"{room}.")
    }

    def get(name: str) -> object:
        if name not in where:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(where[name]), name)
        setattr(sys.modules[room], name, found)  # nobody asks for it again
        return found

    return get
