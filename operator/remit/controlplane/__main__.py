"""`python -m remit.controlplane --state DIR --port N`: serve alone until SIGTERM or SIGINT. For tests."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import structlog

from remit.controlplane.server import ControlPlane
from remit.controlplane.startup import return_freed_memory
from remit.errors import RemitError


async def serve(state: Path, host: str, port: int) -> None:
    """Print `ready URL KUBECONFIG` when requests are answered, then serve until told to stop."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with ControlPlane(state, host, port) as control_plane:
        print(f"ready {control_plane.url} {control_plane.kubeconfig}", flush=True)  # noqa: T201 - the ready line
        stopped = asyncio.create_task(stop.wait())
        waiting: set[asyncio.Future[Any]] = {stopped, control_plane.failed}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if control_plane.failed.done():
            control_plane.failed.result()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m remit.controlplane", description=serve.__doc__)
    parser.add_argument("--state", type=Path, required=True, help="directory for state, certificates and kubeconfig")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    arguments = parser.parse_args()
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,  # without local variables, which may contain secrets
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),  # stdout carries only the ready line
    )
    return_freed_memory()
    try:
        asyncio.run(serve(arguments.state, arguments.host, arguments.port))
    except RemitError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
