"""How much a task gets: what it asks for, or the strictest default, never more than any maximum."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from pydantic.alias_generators import to_camel

from remit.api.commandpolicy import CountLimit, PolicyLimits, QuantityLimit
from remit.api.executiontask import ExecutionTaskSpec
from remit.api.quantity import format_bytes, parse_bytes, parse_quantity

DEFAULT_TIMEOUT_SECONDS: Final = 300


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Amounts in base units: seconds, bytes, bytes a second, counts, and cores of `cpu`. None: nothing is said."""

    timeout_seconds: int | None = None
    deadline_seconds: int | None = None
    retries: int | None = None
    memory: int | None = None
    cpu: float | None = None
    pids: int | None = None
    disk: int | None = None
    open_files: int | None = None
    file_size: int | None = None
    disk_bytes_per_second: int | None = None
    network_bytes_per_second: int | None = None
    output_bytes: int | None = None
    termination_grace_period_seconds: int | None = None


NAMES: Final = tuple(field.name for field in dataclasses.fields(Limits))
_CLIPPED: Final = frozenset({"output_bytes", "termination_grace_period_seconds"})
"""Asking for more than the maximum is no offence: every task asks for some, if only by the field's default."""


_COUNTS: Final = frozenset(
    name for name in NAMES if name.endswith("_seconds") or name in {"retries", "pids", "open_files"}
)


@dataclass(frozen=True)
class Bounds:
    """A policy's limits."""

    default: Limits = Limits()
    max: Limits = Limits()


@dataclass(frozen=True)
class Excess:
    """More was asked for than is allowed."""

    name: str
    """The name as written in a policy, such as `timeoutSeconds`."""
    asked: str
    max: str
    needed: str | int
    """What is asked for, as a policy has it."""


def asked_for(spec: ExecutionTaskSpec) -> Limits:
    """The limits that a task asks for."""
    wanted = spec.resources
    return Limits(
        timeout_seconds=spec.timeout_seconds,
        deadline_seconds=spec.deadline_seconds,
        retries=spec.retry.max_retries,
        memory=_bytes(wanted.memory),
        cpu=None if wanted.cpu is None else float(parse_quantity(wanted.cpu)),
        pids=wanted.pids,
        disk=_bytes(wanted.disk),
        open_files=wanted.open_files,
        file_size=_bytes(wanted.file_size),
        disk_bytes_per_second=_bytes(wanted.disk_bytes_per_second),
        network_bytes_per_second=_bytes(wanted.network_bytes_per_second),
        output_bytes=parse_bytes(spec.output.max_bytes),
        termination_grace_period_seconds=spec.termination_grace_period_seconds,
    )


def bounds_of(limits: PolicyLimits) -> Bounds:
    """A policy's limits as numbers."""
    default: dict[str, int | float] = {}
    maximum: dict[str, int | float] = {}
    for name, limit in _set_limits(limits):
        for numbers, value in ((default, limit.default), (maximum, limit.max)):
            if value is not None:
                numbers[name] = float(parse_quantity(value)) if name == "cpu" else parse_bytes(value)
    return Bounds(_limits(default), _limits(maximum))


def contradictions(bounds: Bounds) -> list[str]:
    """Limits, as written in a policy, whose default is above their maximum."""
    return [to_camel(name) for name in NAMES if _over(getattr(bounds.default, name), getattr(bounds.max, name))]


def excess(asked: Limits, maximum: Limits) -> Excess | None:
    """The first thing of which more is asked for than `maximum` allows."""
    for name in NAMES:
        wanted, most = getattr(asked, name), getattr(maximum, name)
        if name not in _CLIPPED and _over(wanted, most):
            return Excess(to_camel(name), _written(name, wanted), _written(name, most), as_amount(name, wanted))
    return None


def effective(asked: Limits, bounds: Sequence[Bounds]) -> Limits:
    """The limits of a task under all of `bounds`: what it asks for, else the lowest default, cut to the lowest maximum.

    Where there is a maximum but no default, what is not asked for gets the maximum: nothing that a policy bounds is
    ever without a bound.
    """
    given: dict[str, int | float] = {}
    for name in NAMES:
        maxima = [value for bound in bounds if (value := getattr(bound.max, name)) is not None]
        defaults = [value for bound in bounds if (value := getattr(bound.default, name)) is not None]
        if name == "timeout_seconds":
            defaults = defaults or [DEFAULT_TIMEOUT_SECONDS]
        asked_value = getattr(asked, name)
        wanted = asked_value if asked_value is not None else min(defaults, default=None)
        candidates = [*maxima, *([] if wanted is None else [wanted])]
        if candidates:
            given[name] = min(candidates)
    return _limits(given)


def as_amount(name: str, value: float) -> str | int:
    """An amount of the limit `name`, as a policy has it: a number where that is a count, else a quantity."""
    return int(value) if name in _COUNTS else _written(name, value)


def _set_limits(limits: PolicyLimits) -> Iterator[tuple[str, CountLimit | QuantityLimit]]:
    for name in NAMES:
        limit: CountLimit | QuantityLimit | None = getattr(limits, name)
        if limit is not None:
            yield name, limit


def _limits(numbers: dict[str, int | float]) -> Limits:
    return dataclasses.replace(Limits(), **numbers)  # type: ignore[arg-type]  # only cpu is a float


def _over(value: float | None, maximum: float | None) -> bool:
    return value is not None and maximum is not None and value > maximum


def _bytes(quantity: str | int | None) -> int | None:
    return None if quantity is None else parse_bytes(quantity)


def _written(name: str, value: float) -> str:
    if name == "cpu":
        return f"{Decimal(str(value)).normalize():f}"
    if name in _COUNTS:
        return str(value)
    return format_bytes(int(value))
