"""HAProxy's configuration of a route, as text. Everything in it is a number or was checked by `Route`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from remit.api.slots import SLOTS, Slot, other
from remit.release.traffic.route import POOLS, Entry, Pool, Route

_REWRITTEN_BYTES: Final = 1024
_TUNNEL: Final = "24h"
_BACKUP: Final = "backup-"
RELAYED: Final = 2000
"""Weight with which requests on kept connections are relayed to the proxy that replaced this one."""
PROBE_HEADER: Final = "Remit-Probe"
"""A request that has the token in it is told by `SIDE_HEADER` which side answered; replicas do not see it."""
SIDE_HEADER: Final = "Remit-Side"
WEIGHTS: Final = "weights"
"""The file of a map from port to the percentage of green. Negative: closed; from `FAILOVER` on: with failover."""
FAILOVER: Final = 1000
COUNTS: Final = "counts"
"""The table of how many requests each side answered at each port, and how many of them with a status of 500 and above,
by `PORT.SIDE`. Requests of the probe are not counted: they would hide those of others that fail."""

CHANGES: Final = "changes"
"""The ring buffer in which it tells of replicas that it finds up or down."""

_CHECK: Final = "check inter 1s downinter 200ms fall 3 rise 1"
_GIVE_UP: Final = "observe layer4 error-limit 1 on-error mark-down"
"""If the other side can take over, one refused connection marks a replica as down. A check finds it again soon."""


@dataclass(frozen=True)
class Process:
    """How the proxy itself runs. `uid`: the user that it becomes, for an operator that is root.

    `probe` is the hash of the token that the probe's requests have; empty: none is taken for the probe's.
    """

    threads: int = 2
    uid: int | None = None
    probe: str = ""


def render(route: Route, process: Process) -> str:
    # The socket has a name of its own, because a proxy that takes over sockets takes all sockets with the same name.
    socket = f"global\n  stats socket unix@{digest(route, process)} mode 600 level admin expose-fd listeners\n"
    backends = [_backend(entry, pool) for entry in route.entries for pool in POOLS]
    return "".join([socket, frame(route, process), *backends])


def frame(route: Route, process: Process) -> str:
    """The part of a configuration that cannot be changed in a running proxy: everything but addresses and weights."""
    table = f"backend {COUNTS}\n  stick-table type string len 16 size 1k store gpc(2)\n"
    return (
        _settings(process, route.max_header_bytes)
        + table
        + "".join(_frontend(entry, process) for entry in route.entries)
    )


def digest(route: Route, process: Process) -> str:
    """Names the frame, and the socket of the runtime API of a proxy that has it."""
    return hashlib.sha256(frame(route, process).encode()).hexdigest()[:12]


def render_weights(route: Route) -> str:
    return "".join(f"{entry.port} {weight(entry)}\n" for entry in route.entries)


def weight(entry: Entry) -> int:
    if entry.green_percent is None:
        return -1
    return entry.green_percent + (FAILOVER if entry.fails_over else 0)


def backend(port: int, pool: Pool) -> str:
    return f"{port}.{pool.slot}{'.failover' if pool.failover else ''}"


def relay(port: int) -> str:
    return f"{port}.relay"


def server(address: str, *, backup: bool) -> str:
    """A name made of the address, so that what runs can be compared with what is wanted."""
    return (_BACKUP if backup else "") + address.replace("[", "").replace("]", "")


def added(address: str, pool: Pool, *, backup: bool) -> str:
    """How a server is described, in a file and to a running proxy."""
    return " ".join([address, _CHECK, *([_GIVE_UP] if pool.failover else []), *(["backup"] if backup else [])])


def _settings(process: Process, max_header_bytes: int) -> str:
    # noreuseport: a second proxy must not silently get a share of the first one's connections.
    # idle-close-on-response: an idle connection is closed after its next response, not during its next request.
    # bufsize: the headers of a request must fit, with those that the proxy adds.
    # stats timeout: how long a client may wait for changes without receiving one.
    # redispatch 1, and retries for failed connects only (the default): a request that a replica may have received is
    # never sent twice.
    user = "" if process.uid is None else f"  uid {process.uid}\n  gid {process.uid}\n  chroot empty\n"
    return (
        "global\n"
        f"{user}"
        f"  nbthread {process.threads}\n"
        "  fd-hard-limit 65536\n"
        "  noreuseport\n"
        "  stats timeout 24h\n"
        f"  tune.bufsize {max_header_bytes + _REWRITTEN_BYTES}\n"
        f"ring {CHANGES}\n"
        "  format raw\n"
        "  size 16384\n"
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
        f"  timeout tunnel {_TUNNEL}\n"
    )


def _recognise(process: Process) -> str:
    """Only the hash of what came is compared: neither the time that takes nor what HAProxy reports tells the token."""
    if not process.probe:
        return ""
    came = f"req.fhdr({PROBE_HEADER}),sha2(256),hex"
    return f"  http-request set-var(txn.probe) bool(true) if {{ {came} -m str {process.probe} }}\n"


def _frontend(entry: Entry, process: Process) -> str:
    """The side is chosen by one look into a map, so that one command switches all replicas at once."""
    port = entry.port
    blue, blue_failover, green, green_failover = (backend(port, pool) for pool in POOLS)
    green_share, closed = f"str({port}),map_str_int({WEIGHTS},-1)", "{ var(txn.green) -m int lt 0 }"
    relayed = ""
    if entry.protocol == "http":
        relayed = f"  use_backend {relay(port)} if {{ var(txn.green) -m int {RELAYED} }}\n"
        tracked = "".join(
            f"  http-request track-sc{index} str({port}.{slot}) table {COUNTS} unless {{ var(txn.probe) -m found }}\n"
            for index, slot in enumerate(SLOTS)
        )
        rules, rule = (
            (
                f"{_recognise(process)}"
                f"  http-request del-header {PROBE_HEADER}\n"
                f"{tracked}"
                f"  http-request set-var(txn.green) {green_share}\n"
                f"  http-request return status 503 if {closed}\n"
            ),
            "http-request",
        )
    else:
        rules, rule = (
            (
                "  mode tcp\n"
                f"  timeout client {_TUNNEL}\n"
                f"  tcp-request content set-var(txn.green) {green_share}\n"
                f"  tcp-request content reject if {closed}\n"
            ),
            "tcp-request content",
        )
    return (
        f"frontend {port}\n"
        f"  bind *:{port}\n"
        f"{rules}"
        f"  {rule} set-var(txn.dice) rand(100),add({FAILOVER}),sub(txn.green)\n"
        f"{relayed}"
        f"  use_backend {green} if {{ var(txn.green) -m int 100 }}\n"
        f"  use_backend {blue} if {{ var(txn.green) -m int 0 }}\n"
        f"  use_backend {green_failover} if {{ var(txn.dice) -m int lt 0 }}\n"
        f"  default_backend {blue_failover}\n"
        f"{f'backend {relay(port)}{chr(10)}  server next 127.0.0.1:{port}{chr(10)}' if relayed else ''}"
    )


def _backend(entry: Entry, pool: Pool) -> str:
    members = entry.members(pool).items()
    servers = [
        f"  server {server(each, backup=backup)} {added(each, pool, backup=backup)}\n" for each, backup in members
    ]
    # The log of a frontend would have a line for each request.
    name = backend(entry.port, pool)
    lines = [f"backend {name}\n  log ring@{CHANGES} local0 notice\n", "  option allbackups\n" if pool.failover else ""]
    if entry.protocol == "tcp":
        lines += ["  mode tcp\n", f"  timeout server {_TUNNEL}\n"]
    else:
        for slot, which in _answering(pool):
            counter = SLOTS.index(slot)
            lines += [
                f"  http-after-response set-header {SIDE_HEADER} {slot} if {{ var(txn.probe) -m found }}{which}\n",
                f"  http-after-response sc-inc-gpc(0,{counter}){which and f' if{which}'}\n",
                f"  http-after-response sc-inc-gpc(1,{counter}) if {{ status ge 500 }}{which}\n",
            ]
    return "".join([*lines, *servers])


def _answering(pool: Pool) -> list[tuple[Slot, str]]:
    """The sides that may answer for a pool, each with its condition."""
    backup = f"srv_name -m beg {_BACKUP}"
    if not pool.failover:
        return [(pool.slot, "")]
    return [(pool.slot, f" !{{ {backup} }}"), (other(pool.slot), f" {{ {backup} }}")]
