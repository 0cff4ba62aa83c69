"""Decides where a release is probed, and sums up the answers. Pure."""

from __future__ import annotations

import datetime
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from remit.api.deployment import DeploymentSpec, Port, protocol_of
from remit.release.report.model import Probed, Second
from remit.release.traffic.probe import ProbeSample

_MAX_ERRORS = 10


@dataclass(frozen=True, slots=True)
class Entry:
    """The address that is probed: the path of the health check, or `tcp://` for a plain connection."""

    url: str
    http: bool
    """Whether what is sent there is HTTP to a proxy, too: headers for it do not get to either side's program."""


def entry(spec: DeploymentSpec, before: DeploymentSpec, address: str) -> Entry | None:
    """The live entry that both sides have.

    None where there is none: nothing is published at `address`, or only one side publishes it.
    """
    if not address or not spec.ports:
        return None
    http = spec.health_check.http if spec.health_check else None
    checked = http or (spec.health_check.tcp if spec.health_check else None)
    named = next((port for port in spec.ports if checked and checked.port in (port.name, port.container_port)), None)
    own = named or spec.ports[0]
    port = _published(own)
    theirs = next((each for each in before.ports if _published(each) == port), None)
    if theirs is None:
        return None
    if http is not None and named is not None and http.scheme == "HTTP":
        spoken = {protocol_of(spec, own), protocol_of(before, theirs)}
        return Entry(f"http://{address}:{port}{http.path}", spoken == {"http"})
    return Entry(f"tcp://{address}:{port}", http=False)


def summed(url: str, requests: Sequence[ProbeSample], origin: datetime.datetime) -> Probed | None:
    """Sum up the results of the requests; `origin` is when the clock of their times was 0. None where there were
    none."""
    if not requests:
        return None
    answered: dict[datetime.datetime, Counter[str]] = defaultdict(Counter)
    failed: Counter[datetime.datetime] = Counter()
    for each in requests:
        second = (origin + datetime.timedelta(seconds=each.sent)).replace(microsecond=0)
        if each.error:
            failed[second] += 1
        else:
            answered[second][each.side] += 1
    took = sorted((each.ended - each.sent) * 1000 for each in requests)
    return Probed(
        what=("connect to " if url.startswith("tcp://") else "GET ") + url.partition("?")[0],
        requests=len(requests),
        failed=failed.total(),
        p50_milliseconds=statistics.median(took),
        p99_milliseconds=took[len(took) * 99 // 100],
        errors=tuple(dict.fromkeys(each.error for each in requests if each.error))[:_MAX_ERRORS],
        seconds=tuple(Second(at, dict(answered[at]), failed[at]) for at in sorted(answered.keys() | failed.keys())),
    )


def _published(port: Port) -> int:
    return port.published or port.container_port
