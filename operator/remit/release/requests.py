"""Requests by hand: each is taken once, and answered whether it could be followed or not."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, replace

from remit.api.deploymentstatus import PipelineState, Release, ReleaseFailure, RequestAnswer, RequestKind
from remit.release.context import Context
from remit.release.ending import fail, last_good
from remit.release.model import Desired, MalformedRequest, ObservedState, ReleaseRequest


class RequestRefused(Exception):
    """The request cannot be followed; the message says why."""


def consume(desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime) -> PipelineState:
    """The state after the request, if there is one that was not answered yet."""
    request = desired.request
    if request is None or (state.answer is not None and state.answer.id == request.id):
        return state
    if isinstance(request, MalformedRequest):
        refused = RequestAnswer(id=request.id, accepted=False, message=request.message, at=now)
        return replace(state, answer=refused)
    try:
        state, message = _FOLLOW[request.kind](_Asked(request, desired, observed, state, now))
        accepted = True
    except RequestRefused as refusal:
        message, accepted = str(refusal), False
    answer = RequestAnswer(id=request.id, kind=request.kind, accepted=accepted, message=message, at=now)
    return replace(state, answer=answer)


@dataclass(frozen=True, slots=True)
class _Asked:
    request: ReleaseRequest
    desired: Desired
    observed: ObservedState
    state: PipelineState
    now: datetime.datetime

    def ongoing(self) -> Release:
        release = self.state.releasing
        if release is None:
            raise RequestRefused(f"there is no release to {self.request.kind}")
        if release.failure is not None:
            raise RequestRefused(f"revision {release.revision} goes back already: {release.failure.message}")
        if self.request.revision not in {None, release.revision}:
            raise RequestRefused(
                f"revision {release.revision} is on its way by now, not revision {self.request.revision}"
            )
        return release

    def give_up(self, release: Release, reason: str, message: str) -> PipelineState:
        failure = ReleaseFailure(outcome="Aborted", reason=reason, message=message, at=self.now, asked=True)
        return fail(Context(self.desired, self.observed, self.state, release, self.now), failure)


def _promote(ask: _Asked) -> tuple[PipelineState, str]:
    release = ask.ongoing()
    # If the side is live already, the only stage left to skip is the bake.
    full = release.full or ask.request.full or release.promoted_at is not None
    release = replace(release, go_ahead=True, full=full)
    return replace(ask.state, release=release), f"revision {release.revision} goes on"


def _abort(ask: _Asked) -> tuple[PipelineState, str]:
    release = ask.ongoing()
    return ask.give_up(release, "Aborted", "aborted by request"), f"revision {release.revision} is aborted"


def _rollback(ask: _Asked) -> tuple[PipelineState, str]:
    desired, state, release = ask.desired, ask.state, ask.state.releasing
    if release is not None and release.failure is None and release.rollback and ask.request.revision is None:
        # A second request in quick succession must not return to the revision that the user wants to leave.
        raise RequestRefused(f"the rollback to revision {release.revision} goes on already")
    number = ask.request.revision or _last_good(state)
    if number is None:
        raise RequestRefused("there is no earlier revision that was live")
    live = state.live.revision if state.live else None
    if number != live and number not in desired.revisions:
        kept = ", ".join(map(str, sorted(desired.revisions))) or "none"
        raise RequestRefused(f"revision {number} is not kept; kept are: {kept}")
    if (obstacle := desired.obstacles.get(number)) is not None:
        raise RequestRefused(f"revision {number} cannot be returned to: {obstacle.message}")
    record = state.record(number)
    if record is not None and record.promoted_at is None:
        raise RequestRefused(
            f"revision {number} was never live, so there is nothing to return to; apply its spec instead"
        )
    if release is not None and release.failure is None:
        state = ask.give_up(release, "RollbackRequested", f"a rollback to revision {number} was asked for")
    return replace(state, rollback_to=number), f"returns to revision {number}"


def _retry(ask: _Asked) -> tuple[PipelineState, str]:
    state, last, live = ask.state, ask.state.release, ask.state.live
    if state.releasing is not None:
        raise RequestRefused("a release goes on; abort it first")
    if last is not None and live is not None and last.outcome == "Failed" and last.revision == live.revision:
        # The release failed, but its side is live nevertheless. It is released once more, to the other side.
        live = replace(live, spec_hash="")
    return replace(state, live=live, settled=False, pin=None, rollback_to=None), "what the spec declares is released"


def _pause(ask: _Asked) -> tuple[PipelineState, str]:
    return replace(ask.state, paused=True), "paused; what is live stays live"


def _resume(ask: _Asked) -> tuple[PipelineState, str]:
    if ask.desired.spec.paused:
        raise RequestRefused("spec.paused is true; set it to false to go on")
    return replace(ask.state, paused=False), "goes on"


_FOLLOW: dict[RequestKind, Callable[[_Asked], tuple[PipelineState, str]]] = {
    "promote": _promote,
    "abort": _abort,
    "rollback": _rollback,
    "retry": _retry,
    "pause": _pause,
    "resume": _resume,
}


def rollback_target(desired: Desired, state: PipelineState) -> int | None:
    """The revision that is about to be returned to, where it has to be brought to the target again for that."""
    request, back = desired.request, desired.spec.rollback_to
    number = None
    if isinstance(request, ReleaseRequest) and (state.answer is None or state.answer.id != request.id):
        number = (request.revision or _last_good(state)) if request.kind == "rollback" else None
    if number is None and back is not None and state.releasing is None:
        number = None if state.settled and state.key == desired.key else back.revision
    live = state.live.revision if state.live else None
    return None if number == live else number


def _last_good(state: PipelineState) -> int | None:
    """The last good revision. During a release it is the side to return to."""
    if state.releasing is not None:
        return state.live.revision if state.live else None
    return last_good(state)
