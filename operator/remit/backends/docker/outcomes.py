"""How an attempt in a container ended, from what the engine and the container said. Pure, but for the time of day."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from remit.backends.base import AttemptRequest, ExitReason, Outcome, Usage
from remit.backends.docker.container import Container, State
from remit.backends.docker.planning import Walls
from remit.backends.ending import Conclusion, Ending, conclude
from remit.backends.exceeded import exceeded


def outcome_of(
    container: Container, request: AttemptRequest, state: State, stopped: ExitReason | None, given: Walls
) -> Outcome:
    met = exceeded(
        exit_code=state.exit_code,
        oom_kills=int(state.oom_killed),
        refused_tasks=None,
        stderr=container.first_stderr,
        timed_out=stopped is ExitReason.TIMED_OUT,
    )
    # With version 1 of cgroups, an engine can miss the kill that ends a container: the count went with the container.
    end = conclude(Ending(stopped, state.exit_code, None, met, container.first_stderr, kills_counted=False), request)
    if stopped is None and container.first_stderr.startswith(b"[FATAL tini"):
        said = container.first_stderr.partition(b"] ")[2].decode(errors="replace").strip()
        end = Conclusion(ExitReason.START_FAILED, None, None, f"could not be started: {said}")
    seconds = max(0.0, (state.finished_at - state.started_at).total_seconds())
    return Outcome(
        reason=end.reason,
        exit_code=end.exit_code,
        signal=end.signal,
        usage=replace(container.usage, wall_seconds=seconds),
        started_at=state.started_at,
        finished_at=state.finished_at,
        layers=given.layers,
        missing=given.missing,
        message=end.message,
        exceeded=met,
        enforced_by=given.enforced_by,
    )


def not_started(given: Walls, reason: ExitReason, message: str) -> Outcome:
    now = datetime.now(UTC)
    return Outcome(reason, None, None, Usage(), now, now, given.layers, given.missing, message)
