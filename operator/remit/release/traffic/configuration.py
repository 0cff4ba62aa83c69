"""HAProxy's configuration of a route, as text. Everything in it is a number or was checked by `Route`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from remit.api.deploymentstatus import Slot
from remit.release.traffic.route import SLOTS, Entry, Route

HARD_STOP_SECONDS: Final = 30
"""How long a proxy that was asked to end may finish what is in flight."""
PROBE_HEADER: Final = "Remit-Probe"
"""A request that has it is told by `SIDE_HEADER` which side answered; replicas do not see it."""
SIDE_HEADER: Final = "Remit-Side"
WEIGHTS: Final = "weights"
"""The file of a map from port to the percentage of green. Negative: closed."""

_CHECK: Final = "check inter 1s downinter 200ms fall 3 rise 1"


@dataclass(frozen=True)
class Process:
    """How the proxy itself runs. `uid`: the user that it becomes, for an operator that is root."""

    threads: int = 2
    uid: int | None = None


def render(route: Route, process: Process) -> str:
    # The socket has a name of its own, because a proxy that takes over sockets takes all that are named alike.
    socket = f"global\n  stats socket unix@{digest(route, process)} mode 600 level admin expose-fd listeners\n"
    backends = [_backend(entry, slot) for entry in route.entries for slot in SLOTS]
    return "".join([socket, frame(route, process), *backends])


def frame(route: Route, process: Process) -> str:
    """What cannot be changed in a running proxy: everything but addresses and weights."""
    return _settings(process) + "".join(_frontend(entry) for entry in route.entries)


def digest(route: Route, process: Process) -> str:
    """Names the frame, and the socket of the runtime API of a proxy that has it."""
    return hashlib.sha256(frame(route, process).encode()).hexdigest()[:12]


def render_weights(route: Route) -> str:
    return "".join(f"{entry.port} {weight(entry)}\n" for entry in route.entries)


def weight(entry: Entry) -> int:
    return -1 if entry.green_percent is None else entry.green_percent


def backend(port: int, slot: Slot) -> str:
    return f"{port}.{slot}"


def server(address: str) -> str:
    """A name made of the address, so that what runs can be compared with what is wanted."""
    return address.replace("[", "").replace("]", "")


def added(address: str) -> str:
    """How a server is described, in a file and to a running proxy."""
    return f"{address} {_CHECK}"


def _settings(process: Process) -> str:
    # noreuseport: a second proxy must not get a share of the first one's connections in silence.
    # idle-close-on-response: a kept connection is closed after its next answer, not under its next request.
    # redispatch 1, and retries for failed connects only (the default): a request that a replica may have seen is
    # never sent twice.
    user = "" if process.uid is None else f"  uid {process.uid}\n  gid {process.uid}\n  chroot empty\n"
    return (
        "global\n"
        f"{user}"
        f"  nbthread {process.threads}\n"
        "  fd-hard-limit 65536\n"
        f"  hard-stop-after {HARD_STOP_SECONDS}s\n"
        "  noreuseport\n"
        "defaults\n"
        "  mode http\n"
        "  balance roundrobin\n"
        "  option redispatch 1\n"
        "  option forwardfor\n"
        "  option idle-close-on-response\n"
        "  retries 3\n"
        "  timeout connect 2s\n"
        "  timeout http-request 30s\n"
        "  timeout http-keep-alive 60s\n"
        "  timeout client 10m\n"
        "  timeout server 10m\n"
        "  timeout tunnel 24h\n"
    )


def _frontend(entry: Entry) -> str:
    """The side is chosen by one look into a map, so that one command switches all replicas at once."""
    port, blue, green = entry.port, backend(entry.port, "blue"), backend(entry.port, "green")
    return (
        f"frontend {port}\n"
        f"  bind *:{port}\n"
        f"  http-request set-var(txn.probe) req.hdr({PROBE_HEADER})\n"
        f"  http-request del-header {PROBE_HEADER}\n"
        f"  http-request set-var(txn.green) str({port}),map_str_int({WEIGHTS},-1)\n"
        "  http-request return status 503 if { var(txn.green) -m int lt 0 }\n"
        "  http-request set-var(txn.dice) rand(100),sub(txn.green)\n"
        f"  use_backend {green} if {{ var(txn.green) -m int 100 }}\n"
        f"  use_backend {blue} if {{ var(txn.green) -m int 0 }}\n"
        f"  use_backend {green} if {{ var(txn.dice) -m int lt 0 }} {{ nbsrv({green}) gt 0 }}\n"
        f"  use_backend {green} if {{ nbsrv({blue}) eq 0 }}\n"
        f"  default_backend {blue}\n"
    )


def _backend(entry: Entry, slot: Slot) -> str:
    servers = [f"  server {server(address)} {added(address)}\n" for address in entry.side(slot)]
    told = f"  http-after-response set-header {SIDE_HEADER} {slot} if {{ var(txn.probe) -m found }}\n"
    return "".join([f"backend {backend(entry.port, slot)}\n", told, *servers])
