"""How a new side takes over from the old one."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from remit.api.base import Rule, SpecModel

CountOrPercent = Annotated[
    int | Annotated[str, Field(pattern=r"^(100|[0-9]{1,2})%$")],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": r"^(100|[0-9]{1,2})%$", "minimum": 0}),
]


class BlueGreen(SpecModel):
    """A whole second side is started, checked, and switched to at once."""

    rules = (
        Rule(
            "self.autoPromote || self.autoPromoteAfterSeconds == 0",
            "autoPromoteAfterSeconds goes with autoPromote: true",
        ),
    )

    auto_promote: bool = True
    """Switch as soon as the new side is healthy and its checks have passed. Otherwise wait for a promotion by hand."""
    auto_promote_after_seconds: Annotated[int, Field(ge=0, le=604_800)] = 0
    """How long the new side stays a preview before it is promoted by itself."""
    scale_down_delay_seconds: Annotated[int, Field(ge=0, le=604_800)] = 30
    """How long the old side is kept ready after the switch, for a fast rollback."""
    preview_replicas: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many replicas the new side has while it is a preview, at most `replicas`. It gets all of them, and they are
    healthy, before it is switched to. Not set: all from the beginning."""
    preview_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """The port where the new side is reached before it is live. Not set: no preview from outside."""


class CanaryStep(SpecModel):
    weight: Annotated[int, Field(ge=0, le=100)]
    """The share of requests that the new side gets, in percent."""
    pause_seconds: Annotated[int, Field(ge=0, le=604_800)] | None = None
    """How long to stay at this weight. Not set: until promoted by hand."""


class Canary(SpecModel):
    """The new side gets a growing share of the requests."""

    steps: Annotated[list[CanaryStep], Field(min_length=1, max_length=32)]
    """The shares, one after the other; after the last one the new side gets everything."""


class Rolling(SpecModel):
    """Replicas are replaced a few at a time."""

    rules = (
        Rule(
            "!(self.maxSurge in [dyn(0), dyn('0%')] && self.maxUnavailable in [dyn(0), dyn('0%')])",
            "maxSurge and maxUnavailable must not both be 0: nothing could ever be replaced",
        ),
    )

    max_surge: CountOrPercent = 1
    """How many replicas there may be beyond the wanted number, as a count or a percentage."""
    max_unavailable: CountOrPercent = 0
    """How many replicas may be missing from the wanted number, as a count or a percentage."""


class Strategy(SpecModel):
    """How the new side takes over. The settings of a type go with that type; not set, its defaults hold."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule("!has(self.blueGreen) || self.type == 'BlueGreen'", "blueGreen goes with type BlueGreen"),
        Rule("!has(self.canary) || self.type == 'Canary'", "canary goes with type Canary"),
        Rule("!has(self.rolling) || self.type == 'Rolling'", "rolling goes with type Rolling"),
        # `has(self.type)`: the API server tries the rules on the bare default `{}` too
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
