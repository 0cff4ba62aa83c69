"""The evidence that a report is made of, and its content. Data only; times are UTC, durations in seconds unless named
otherwise."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from remit.api.deploymentstatus import StageName, StageState
from remit.api.slots import Slot


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of the instances of one side, summed up."""

    cpu_seconds: float
    """Since they started; it falls when one is started again."""
    memory_bytes: int


@runtime_checkable
class Measured(Protocol):
    """A target that can tell what its instances use."""

    async def usage(self) -> Mapping[Slot, Usage]:
        """The usage of each side that has instances. Raises DeploymentError if it cannot be read."""


@runtime_checkable
class Proxied(Protocol):
    """A target with a proxy in front of it, which counts requests, but for those of the probe."""

    def probe_token(self) -> str:
        """The token by which the proxy knows the probe's requests. The proxy keeps it from the program. Raises
        DeploymentError, and OSError."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Both sides at one moment."""

    at: datetime.datetime
    healthy: Mapping[Slot, int]
    """Instances that could take requests."""
    usage: Mapping[Slot, Usage]
    """Empty where the target does not tell."""


@dataclass(frozen=True, slots=True)
class Switching:
    """One command to send requests elsewhere."""

    at: datetime.datetime
    to: Slot
    share: int = 0
    """Percent of the requests that go to the other side all the same."""
    milliseconds: float | None = None
    """Time from the command until the target was seen to have carried it out; None if nobody saw it."""


@dataclass(frozen=True, slots=True)
class Second:
    """The answers to the probe in one second."""

    at: datetime.datetime
    answered: Mapping[str, int]
    """Answers by side; the empty side is for answers that name none."""
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Probed:
    """The observations of the probe at the live entry."""

    what: str
    """What it did over and over, such as `GET http://127.0.0.1:8080/healthz`."""
    requests: int
    failed: int
    p50_milliseconds: float
    p99_milliseconds: float
    errors: tuple[str, ...] = ()
    """The first few, each once."""
    seconds: tuple[Second, ...] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    """The observations while the release went on. An operator that was killed has seen none of what was before."""

    samples: tuple[Sample, ...] = ()
    switchings: tuple[Switching, ...] = ()
    probed: Probed | None = None
    restarts: int | None = None
    """The most that were seen on the new side; None where nobody looked."""
    missing: tuple[str, ...] = ()
    """What is not known, and why, in one sentence each."""


@dataclass(frozen=True, slots=True)
class StageTime:
    name: StageName
    state: StageState
    started_at: datetime.datetime | None = None
    seconds: float | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """The Deployment that the report is about."""

    namespace: str
    name: str
    uid: str
    target: str
    """The kind of its target: process, docker or kubernetes."""
    node: str = ""
    """The node of the operator that keeps the report."""


@dataclass(frozen=True, slots=True)
class Report:
    """The whole report of one release that has ended."""

    subject: Subject
    revision: int
    artifact: str
    slot: Slot
    strategy: str
    rollback: bool
    outcome: str
    reason: str
    message: str
    started_at: datetime.datetime
    finished_at: datetime.datetime
    stages: tuple[StageTime, ...]
    restarts: int
    served: tuple[int, int] | None = None
    """How many requests the new side got since it was live, and how many of them failed."""
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def seconds(self) -> float:
        return (self.finished_at - self.started_at).total_seconds()

    @property
    def switch_milliseconds(self) -> float | None:
        """The slowest switch that was measured."""
        return max(
            (each.milliseconds for each in self.evidence.switchings if each.milliseconds is not None), default=None
        )
