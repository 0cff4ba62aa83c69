"""`make bench`, or `python -m bench [SECTION…]`: measures Remit beside comparable programs in the same run.

Nothing here passes or fails: the machine decides how fast is fast. Read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import signal
import sys

from rich.console import Console

from bench.figures import machine

SECTIONS = (
    "startup",
    "commands",
    "output",
    "system",
    "apiserver",
    "decisions",
    "queueing",
    "audit",
    "proxies",
    "releases",
    "jobs",
    "observing",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=f"of {', '.join(SECTIONS)}; all by default")
    chosen = parser.parse_args().sections or SECTIONS
    if unknown := set(chosen) - set(SECTIONS):
        parser.error(f"no section {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers that were started are stopped
    console = Console(highlight=False)
    console.print(machine(), "")
    for name in chosen:
        print(f"{name} …", file=sys.stderr, flush=True)  # some sections take minutes
        section = importlib.import_module(f"bench.{name}")
        asyncio.run(section.measure()).show(console)


if __name__ == "__main__":
    main()
