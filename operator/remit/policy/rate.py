"""How often: a token bucket, as data. The caller keeps the state and the clock."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from remit.api.commandpolicy import Rate

_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class RateSpec:
    """Starts a minute in the long run, starts at once after a quiet time, and tasks running at once. None: no bound."""

    per_minute: int | None = None
    burst: int | None = None
    max_concurrent: int | None = None

    @classmethod
    def of(cls, rate: Rate) -> RateSpec | None:
        """None when the policy says nothing about it."""
        spec = cls(rate.per_minute, rate.burst or rate.per_minute, rate.max_concurrent)
        return None if spec == cls() else spec


@dataclass(frozen=True)
class Bucket:
    """Tokens that were there at a moment, in seconds of the caller's clock."""

    tokens: float
    at: float


@dataclass(frozen=True)
class RateClaim:
    """A rate that a task must respect, and the policy, as `namespace/name`, that sets it.

    With `workspace`, instead, that it has the workspace of that name in its namespace to itself; `policy` then tells
    workspaces apart.
    """

    policy: str
    spec: RateSpec
    workspace: str = ""

    @classmethod
    def of_workspace(cls, namespace: str, name: str) -> RateClaim:
        return cls(f"workspace {namespace}/{name}", RateSpec(max_concurrent=1), name)


def take(bucket: Bucket | None, spec: RateSpec, now: float) -> tuple[Bucket, float]:
    """Take one token: the new state and 0.0, or the state without it and the seconds until there is one.

    No state yet is a full bucket. A clock that went back adds no tokens and takes none away.
    """
    bucket = _filled(bucket, spec, now)
    if spec.per_minute is None:
        return bucket, 0.0
    if bucket.tokens >= 1 - _ROUNDING:
        return Bucket(max(0.0, bucket.tokens - 1), bucket.at), 0.0
    return bucket, (1 - bucket.tokens) * 60 / spec.per_minute


def give_back(bucket: Bucket, spec: RateSpec) -> Bucket:
    """One token that was taken and not used."""
    if spec.per_minute is None:
        return bucket
    return Bucket(min(float(spec.burst or spec.per_minute), bucket.tokens + 1), bucket.at)


def full_at(bucket: Bucket, spec: RateSpec) -> float:
    """When it has all its tokens again, and so is as good as no state."""
    if spec.per_minute is None:
        return bucket.at
    return bucket.at + (float(spec.burst or spec.per_minute) - bucket.tokens) * 60 / spec.per_minute


def replay(starts: Iterable[float], spec: RateSpec, now: float) -> Bucket:
    """The bucket that starts at these times, in any order, have left behind. Those in the future count as of now."""
    bucket: Bucket | None = None
    for at in sorted(starts):
        bucket, _ = take(bucket, spec, min(at, now))
    return _filled(bucket, spec, now)


def _filled(bucket: Bucket | None, spec: RateSpec, now: float) -> Bucket:
    capacity = float(spec.burst or spec.per_minute or 0)
    if bucket is None:
        return Bucket(capacity, now)
    gained = max(0.0, now - bucket.at) * (spec.per_minute or 0) / 60
    return Bucket(min(capacity, bucket.tokens + gained), now)
