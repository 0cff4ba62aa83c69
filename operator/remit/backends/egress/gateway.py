"""The proxy as a program of its own, beside an attempt that the operator cannot listen for: a Job's.

    python -I -m remit.backends.egress.gateway CONFIG

CONFIG is a file with a `GatewayConfig`. Standard output gets a `GatewayRecord` when connections are accepted, then at
most every second where something went over, and a last one after SIGTERM. It ends with 0 then, and with 1 and a
sentence on standard error where it cannot begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
from pathlib import Path
from typing import Final

import structlog

from remit import threads
from remit.backends.egress.gatewayconfig import GatewayConfig
from remit.backends.egress.gatewayrecords import GatewayRecord
from remit.backends.egress.listener import PORT
from remit.backends.egress.proxy import EgressProxy

_TELL_SECONDS: Final = 1.0
_BACKLOG: Final = 128


def main(arguments: list[str]) -> int:
    # A container's log combines both streams. Text that a client puts into a message stays within one line.
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    try:
        (path, *rest) = arguments
        config = GatewayConfig.load(Path(path).read_bytes())
        listener = _listener(int(rest[0]) if rest else PORT)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"the egress gateway cannot begin: {error}\n")
        return 1
    threads.run(serve(config, listener))
    return 0


async def serve(config: GatewayConfig, listener: socket.socket) -> None:
    """Serve until SIGTERM."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    proxy = EgressProxy(config.egress, bytes_per_second=config.bytes_per_second, token=config.token)
    await proxy.start(listener)
    told = proxy.use
    _tell(GatewayRecord(told))
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TELL_SECONDS):
                await stop.wait()
        if (use := proxy.use) != told and not stop.is_set():
            told = use
            _tell(GatewayRecord(told))
    await proxy.close()
    _tell(GatewayRecord(proxy.use, over=True))


def _listener(port: int) -> socket.socket:
    """A socket that listens on every address. Raises OSError."""
    both = socket.has_dualstack_ipv6()
    family, address = (socket.AF_INET6, "::") if both else (socket.AF_INET, "0.0.0.0")  # noqa: S104
    return socket.create_server((address, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)


def _tell(record: GatewayRecord) -> None:
    sys.stdout.buffer.write(record.line())
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
