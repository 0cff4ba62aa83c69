"""Strategies by which a new side takes over from the old one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from remit.api.base import Rule, SpecModel

CountOrPercent = Annotated[
    int | Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})%$")],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": r"^(100|[0-9]{1,2})%$", "minimum": 0}),
]


class BlueGreen(SpecModel):
    """A complete second side is started and checked, and all requests are switched to it at once."""

    rules = (
        Rule(
            "self.autoPromote || self.autoPromoteAfterSeconds == 0",
            "autoPromoteAfterSeconds goes with autoPromote: true",
        ),
    )

    auto_promote: bool = True
    """Whether to switch as soon as the new side is healthy and its checks have passed. If false, the release waits for
    a manual promotion."""
    auto_promote_after_seconds: Annotated[int, Field(ge=0, le=604_800)] = 0
    """How long the new side stays a preview before it is promoted automatically, in seconds."""
    scale_down_delay_seconds: Annotated[int, Field(ge=0, le=604_800)] = 30
    """How long the old side is kept ready after the switch for a fast rollback, in seconds."""
    preview_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Number of replicas of the new side while it is a preview, at most `replicas`. Before the switch the new side is
    scaled to `replicas`, and all of them must be healthy. Not set: `replicas` from the beginning."""
    preview_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The port at which the new side can be reached before it is live. Not set: it cannot be reached from outside."""


class CanaryStep(SpecModel):
    weight: Annotated[int, Field(ge=0, le=100)]
    """The share of requests that the new side gets, in percent."""
    pause_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """How long to stay at this weight, in seconds. Not set: until a manual promotion."""


class Canary(SpecModel):
    """The new side gets a growing share of the requests."""

    steps: Annotated[list[CanaryStep], Field(min_length=1, max_length=32)]
    """The steps, in order. After the last step the new side gets all requests."""


class Rolling(SpecModel):
    """Replicas are replaced a few at a time."""

    rules = (
        Rule(
            "!(self.maxSurge in [dyn(0), dyn('0%')] && self.maxUnavailable in [dyn(0), dyn('0%')])",
            "maxSurge and maxUnavailable must not both be 0: nothing could ever be replaced",
        ),
    )

    max_surge: CountOrPercent = 1
    """Maximum number of replicas above the desired number, as a count or a percentage."""
    max_unavailable: CountOrPercent = 0
    """Maximum number of replicas that may be missing from the desired number, as a count or a percentage."""


class Strategy(SpecModel):
    """How the new side takes over. Settings of a type may be set only with that type; if they are not set, its defaults
    apply."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.blueGreen) || self.type == 'BlueGreen'", "blueGreen goes with type BlueGreen"),
        Rule("!has(self.canary) || self.type == 'Canary'", "canary goes with type Canary"),
        Rule("!has(self.rolling) || self.type == 'Rolling'", "rolling goes with type Rolling"),
        # `has(self.type)` is needed because the API server also evaluates the rules on the bare default `{}`.
        Rule("has(self.canary) || !has(self.type) || self.type != 'Canary'", "type Canary needs canary.steps"),
    )

    type: Literal["BlueGreen", "Canary", "Rolling", "Recreate"] = "BlueGreen"
    """BlueGreen starts a whole second side and switches at once; Canary shifts requests step by step; Rolling replaces
    replicas a few at a time; Recreate stops the old side first, for programs that cannot run twice."""
    blue_green: BlueGreen | None = None
    """Settings of BlueGreen."""
    canary: Canary | None = None
    """Settings of Canary."""
    rolling: Rolling | None = None
    """Settings of Rolling."""
