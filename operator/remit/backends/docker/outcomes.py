"""How an attempt in a container ended, from what the engine and the container said."""

from __future__ import annotations

from dataclasses import replace

from remit.backends.base import AttemptRequest
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.docker.container import Container, State
from remit.backends.ending import Ending, conclude
from remit.backends.exceeded import exceeded
from remit.backends.outcome import ExitReason, Outcome, Usage


def outcome_of(
    container: Container,
    request: AttemptRequest,
    state: State,
    stopped: ExitReason | None,
    enforcement: ConfinementStatus,
) -> Outcome:
    met = exceeded(
        exit_code=state.exit_code,
        oom_kills=int(state.oom_killed),
        refused_tasks=None,
        stderr=container.first_stderr,
        timed_out=stopped is ExitReason.TIMED_OUT,
    )
    # With cgroups v1, an engine can miss the OOM kill that ends a container, because the counter is removed with the
    # container.
    end = conclude(Ending(stopped, state.exit_code, None, met, container.first_stderr, kills_counted=False), request)
    if stopped is None and container.first_stderr.startswith(b"[FATAL tini"):
        said = container.first_stderr.partition(b"] ")[2].decode(errors="replace").strip()
        end = Outcome(ExitReason.START_FAILED, f"could not be started: {said}", exceeded=met)
    seconds = max(0.0, (state.finished_at - state.started_at).total_seconds())
    return replace(
        end,
        finished_at=state.finished_at,
        usage=replace(container.usage, wall_seconds=seconds),
        layers=enforcement.layers,
        missing=enforcement.missing,
        enforced_by=enforcement.enforced_by,
    )


def not_started(enforcement: ConfinementStatus, reason: ExitReason, message: str) -> Outcome:
    return Outcome(reason, message, usage=Usage(), layers=enforcement.layers, missing=enforcement.missing)
