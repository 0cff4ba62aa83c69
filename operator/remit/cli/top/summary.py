"""The lines above the tables: what is looked at, whether it is seen, how many, how fast. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.text import Text

from remit.cli.top.board import KINDS, Board
from remit.cli.top.cells import clipped, sparkline
from remit.cli.top.rates import Rate
from remit.cli.top.views import TASKS, VIEWS, View, style_of
from remit.describe.ages import short

_PHASES: Final = (
    "Running", "Queued", "Backoff", "Pending", "Succeeded", "Failed", "TimedOut", "Denied", "Cancelled",
)  # fmt: skip
_LONGEST_BAR: Final = 20


def title(where: str, server: str, board: Board, now: float, width: int) -> Text:
    """What is looked at on the left, whether it is seen on the right."""
    state, style = sight(board, now)
    state = clipped(state, max(10, width - 12))
    left = clipped(f"{where}  {server}", max(0, width - len("remit top  ") - len(state) - 2))
    text = Text.assemble(("remit top", "bold"), "  ", (left, "dim"), no_wrap=True)
    text.append(" " * max(1, width - text.cell_len - Text(state).cell_len))
    text.append(state, style)
    text.truncate(width, overflow="ellipsis")
    return text


def sight(board: Board, now: float) -> tuple[str, str]:
    """A summary in a few words, with their style. The worst comes first."""
    states = {each.state: each for each in board.sights.values()}
    if (lost := states.get("lost")) is not None:
        return f"○ no answer for {short(now - lost.since)}", "bold red"
    if "refused" in states:
        return (
            f"● {len([each for each in board.sights.values() if each.state == 'refused'])} of {len(KINDS)} refused",
            "bold yellow",
        )
    return ("● live", "green") if "looking" not in states else ("○ looking …", "yellow")


def trouble(board: Board) -> str:
    """Why something is not seen; empty where everything is."""
    names = {"tasks": "tasks", "releases": "Deployments", "policies": "policies"}
    for state in ("lost", "refused"):
        wrong = [kind for kind, each in board.sights.items() if each.state == state]
        if wrong:
            what = " and ".join(names[kind] for kind in wrong)
            says = "this is the last that was seen; reconnecting" if state == "lost" else f"{what} may not be seen"
            return f"{says}: {board.sights[wrong[0]].why}"
    return ""


def counts(board: Board, width: int) -> Text:
    """How many tasks are in each phase."""
    phases = board.phases()
    known = [(phase, phases.pop(phase)) for phase in _PHASES if phases.get(phase)]
    others = sum(phases.values())
    parts = [
        Text.assemble((str(count), f"bold {style_of(phase)}".strip()), f" {phase.lower()}") for phase, count in known
    ]
    parts += [Text(f"{others} other")] if others else []
    parts += [Text(f"{board.left_out} more are not kept", style="dim")] if board.left_out else []
    text = Text("  ").join(parts) if parts else Text("no tasks yet", style="dim")
    text.truncate(width, overflow="ellipsis")
    return text


def rates(board: Board, now: float, width: int) -> Text:
    """Tasks started, ended and failed in the last minute, with how that went."""
    known: Sequence[tuple[str, Rate, str]] = (
        ("started", board.rates.started, "cyan"),
        ("finished", board.rates.finished, "green"),
        ("failed", board.rates.failed, "red"),
    )
    said = [(f"{name} {rate.per_minute(now)}/min", f"({rate.total})") for name, rate, _ in known]
    bare = sum(len(words) + len(total) + 1 for words, total in said) + 2 * 2
    bars = min(_LONGEST_BAR, (width - bare) // 3 - 1)
    totals = bars >= 0
    text = Text(no_wrap=True)
    for (words, total), (_, rate, style) in zip(said, known, strict=True):
        if text:
            text.append("  ")
        text.append(words, f"bold {style}" if rate.per_minute(now) else "")
        if totals:
            text.append(f" {total}", "dim")
        if bars >= 4:
            text.append(" " + sparkline(rate.bars(now), bars), style)
    text.truncate(width, overflow="ellipsis")
    return text


def tabs(board: Board, shown: View, filter_text: str, found: int, width: int) -> Text:
    """The tables with how many rows each has, the one that is shown marked."""
    text = Text(no_wrap=True)
    for number, view in enumerate(VIEWS, 1):
        if text:
            text.append(" ")
        has = len(board.of(view))
        words = f" {view.title} {has} " if width >= 56 else f" {number}:{view.title[:5]} "
        text.append(words, "bold reverse" if view is shown else "")
    if filter_text:
        text.append(f"  /{clipped(filter_text, 40)}", "yellow")
        text.append(f" {found} of {len(board.of(shown))}", "dim")
    elif shown is TASKS and board.sights["tasks"].state == "looking":
        text.append("  looking …", "dim")
    text.truncate(width, overflow="ellipsis")
    return text
