"""Recreate: the old side stops before the new one starts, for programs that cannot run twice."""

from __future__ import annotations

from remit.release.context import Context
from remit.release.strategies.base import Verdict, switch_over


class RecreateTakeover:
    exclusive = True
    moves_replicas = True

    def old_replicas(self, ctx: Context) -> int:
        # The old side runs until the artifact is available, so that an image that does not exist does not stop it.
        at_hand = ctx.release.stage_record("Prepare").state == "Done"
        return 0 if at_hand or ctx.live is None else ctx.live.replicas

    def new_replicas(self, ctx: Context) -> int:
        return ctx.release.replicas

    def promote(self, ctx: Context) -> Verdict:
        return switch_over(ctx, ctx.release.replicas)
