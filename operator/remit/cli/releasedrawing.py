"""The tree of a release as rich draws it."""

from __future__ import annotations

from typing import Final

from rich.text import Text
from rich.tree import Tree

from remit.describe.releasetree import Hook, ReleaseTree, RevisionBranch, SideSummary
from remit.telemetry.logs import escape

_COLOURS: Final = {
    **dict.fromkeys(("Healthy", "Promoted", "Succeeded", "live"), "green"),
    **dict.fromkeys(("Progressing", "InProgress", "Running", "preview"), "cyan"),
    **dict.fromkeys(
        (
            "Pending",
            "Queued",
            "Paused",
            "AwaitingPromotion",
            "RollingBack",
            "Pinned",
            "Terminating",
            "draining",
            "pinned",
        ),
        "yellow",
    ),
    **dict.fromkeys(("draining", "pinned"), "yellow"),
    **dict.fromkeys(("Degraded", "Failed", "Denied", "TimedOut"), "red"),
    **dict.fromkeys(("Aborted", "Superseded", "RolledBack", "Cancelled"), "magenta"),
}


def draw(tree: ReleaseTree) -> Tree:
    """What it says is text, and drives no terminal."""
    root = Tree(_line(("deployment " + tree.name, "bold"), tree.phase, (f"{tree.strategy} on {tree.target}", "dim")))
    root.add(_line(tree.message))
    if stage := tree.stage:
        since = f"for {stage.took}" if stage.took else ""
        root.add(_line("stage", (stage.name, "bold"), f"({stage.number} of {stage.of})", since, (stage.reason, "dim")))
    for revision in tree.revisions:
        _revision(root, revision)
    for advice in tree.advice:
        root.add(_line(("→", "bold"), advice))
    return root


def _revision(root: Tree, revision: RevisionBranch) -> None:
    took = f"in {revision.took}" if revision.took else ""
    title = (f"revision {revision.number}", "bold")
    branch = root.add(_line(title, revision.artifact, *revision.marks, revision.outcome, (took, "dim")))
    for side in revision.sides:
        branch.add(_side(side))
    for hook in revision.hooks:
        branch.add(_hook(hook))


def _side(side: SideSummary) -> Text:
    restarts = (f"{side.restarts} restarts" if side.restarts != 1 else "1 restart") if side.restarts else ""
    ready = (f"{side.ready}/{side.wanted} ready", "green" if side.whole else "yellow")
    return _line((side.slot, "blue" if side.slot == "blue" else "green"), ready, *side.marks, restarts, side.message)


def _hook(hook: Hook) -> Text:
    told = "" if hook.phase in {"Succeeded", "Running"} else hook.message
    return _line("hook", hook.name, (f"({hook.stage}, task {hook.task})", "dim"), hook.phase, told)


def _line(*parts: str | tuple[str, str]) -> Text:
    """The parts that say something, apart; a word that has a colour has it everywhere."""
    told = [(part, _COLOURS.get(part, "")) if isinstance(part, str) else part for part in parts]
    return Text("  ").join(Text(escape(text), style=style) for text, style in told if text)
