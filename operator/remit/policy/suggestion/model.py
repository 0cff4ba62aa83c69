"""The data of suggestions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from remit.api.commandpolicy import CommandPolicy
from remit.api.group import API_VERSION
from remit.policy.commandrules import MOST_VALUES
from remit.policy.deciding import Decision
from remit.policy.hosts import Destination
from remit.policy.needs import Part
from remit.policy.request import PolicyRequest

DEFAULT_NAME: Final = "suggested"
Path = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Something that ran, or wanted to."""

    name: str
    """A name for people, such as `task hello` or `schedule nightly`. Runs of one name are counted together."""
    request: PolicyRequest
    """The request as it was judged."""
    destinations: frozenset[Destination] = frozenset()
    """Destinations that it connected to, or tried to, through the proxy of `network: restricted`."""
    stdin: bool = False
    """Whether its program was given an input."""
    mask: Callable[[str], str] = lambda text: text
    """Puts `masked` in the place of what must not be told, also where a text was cut off in the middle of it."""
    masked: str = "[redacted]"
    hidden: bool = False
    """Whether `request` has that in it already, as on the audit trail."""


@dataclass(frozen=True)
class SuggestedPolicy:
    """A policy in the words of YAML, and what to say beside it."""

    name: str
    namespace: str
    spec: Part
    runs: tuple[Run, ...]
    comments: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    """Comments by their path in `spec`, such as `("commands", "allow", 0)`."""

    @property
    def object(self) -> dict[str, Any]:
        metadata = {"name": self.name, "namespace": self.namespace}
        return {"apiVersion": API_VERSION, "kind": CommandPolicy.__name__, "metadata": metadata, "spec": self.spec}


@dataclass(frozen=True)
class LeftOut:
    """A run that no suggestion allows, and why."""

    run: Run
    why: str


@dataclass(frozen=True)
class Suggestion:
    policies: tuple[SuggestedPolicy, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    allowed: tuple[tuple[Run, Decision], ...] = ()
    """What policies that are enforced allow already."""


@dataclass(frozen=True, kw_only=True)
class Options:
    name: str | None = None
    """Name of the policy, which is extended if it exists. By default `suggested`, or a free one of `suggested-2` …"""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels of the tasks that the policy is to select; empty: all."""
    generalize: bool = False
    """One policy with fewer rules, which allow more than was seen."""
    most_values: int = MOST_VALUES
    """How many values of one argument are listed one by one."""


@dataclass(frozen=True)
class Need:
    """The need of one request, and how often it was made."""

    request: PolicyRequest
    shown: PolicyRequest
    part: Part
    runs: tuple[Run, ...]
    destinations: frozenset[Destination]
    """The destinations of all runs."""
    hides: bool
    """Whether something in its arguments is not told."""
