"""Build the program that Jobs start with: `launch-amd64` and `launch-arm64`, as static as they can be.

The compiler is Zig's, which builds for either architecture on any machine. Where it is not installed the machine's own
`cc` builds for its own architecture.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import shutil
import subprocess
import sys
from pathlib import Path

SOURCES = sorted(map(str, Path(__file__).parent.glob("*.c")))
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
FLAGS = ("-std=gnu11", "-Os", "-static", "-s", "-Wall", "-Wextra", "-Werror")
_LONGEST_SECONDS = 300


def compilers(chosen: str) -> dict[str, list[str]]:
    """The compiler for each architecture, as Kubernetes calls it. `chosen`: `zig`, `cc`, or empty for what is here."""
    if chosen == "zig" or (not chosen and importlib.util.find_spec("ziglang")):
        zig = [sys.executable, "-m", "ziglang", "cc"]
        return {name: [*zig, "-target", f"{machine}-linux-musl"] for name, machine in MACHINES.items()}
    own = next((name for name, machine in MACHINES.items() if machine == platform.machine()), "")
    cc = shutil.which("cc")
    if not (own and cc):
        sys.exit("a compiler is needed: install .[launcher], or (on Debian) gcc and libc6-dev")
    return {own: [cc]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, default=Path("build/launchers"), metavar="FOLDER")
    parser.add_argument("--with", dest="chosen", choices=("zig", "cc"), default="")
    arguments = parser.parse_args()
    arguments.into.mkdir(parents=True, exist_ok=True)
    for name, compiler in compilers(arguments.chosen).items():
        program = arguments.into / f"launch-{name}"
        subprocess.run(
            [*compiler, *FLAGS, "-o", str(program), *SOURCES],
            check=True,
            timeout=_LONGEST_SECONDS,
        )
        sys.stdout.write(f"{program} ({program.stat().st_size} bytes)\n")


if __name__ == "__main__":
    main()
