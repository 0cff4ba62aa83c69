"""The live side, and the one that was live before: kept as they should be, with their instances and requests."""

from __future__ import annotations

from remit.api.deploymentstatus import LiveSide, PipelineState
from remit.api.slots import other
from remit.release.context import Context
from remit.release.model import Desired, ObservedState, Revision
from remit.release.steps import Provision, Scale, Step, Switch
from remit.release.strategies import STRATEGIES


def maintain_live(desired: Desired, observed: ObservedState, state: PipelineState) -> Step | None:
    """Returns the step that repairs the live side while no release is in progress. None if it is complete."""
    live = state.live
    if live is None:
        return None
    if observed.live != live.slot or observed.share:
        return Switch(live.slot)
    return _instances(desired, observed, live, live.replicas)


def maintain_previous(ctx: Context) -> Step | None:
    """Mend what the old side lacks during a release. A side that cannot be mended must not stop its successor."""
    live, observed, strategy = ctx.live, ctx.observed, STRATEGIES[ctx.release.strategy]
    if live is None or (observed.error is not None and observed.error.revision == live.revision):
        return None
    if live.slot != other(ctx.slot) or (ctx.paused and strategy.moves_replicas):
        return None
    replicas, view = strategy.old_replicas(ctx), ctx.old
    if ctx.switched:
        # The old side is kept for a rollback. If it is removed by other means, a rollback starts it again.
        return Scale(live.slot, replicas) if view.revision == live.revision and view.wanted != replicas else None
    if observed.live is None:
        return Switch(live.slot)
    return _instances(ctx.desired, observed, live, replicas)


def _instances(desired: Desired, observed: ObservedState, live: LiveSide, replicas: int) -> Step | None:
    view, revision = observed.slot(live.slot), desired.revisions.get(live.revision)
    if view.revision is None or (view.draining and view.revision == live.revision):
        if revision is None and live.spec_hash == desired.snapshot.spec_hash:
            revision = Revision(live.revision, desired.snapshot)
        return Provision(live.slot, revision, replicas) if revision is not None else None
    return Scale(live.slot, replicas) if view.revision == live.revision and view.wanted != replicas else None
