"""A report as one HTML page that needs nothing else: no script, no font, no other file. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape as html
from typing import Final

from remit.api.slots import SLOTS, Slot, other
from remit.release.report import plots, series
from remit.release.report.facts import facts, usage_rows
from remit.release.report.model import Report, Switching
from remit.release.report.wording import duration, moment, rough
from remit.telemetry.logs import escape as harmless

_STYLE: Final = """
:root { color-scheme: light dark; --ink: #1c2128; --dim: #5b6570; --paper: #fff; --card: #f6f8fa; --line: #d8dee4;
  --blue: #2563c9; --green: #1a8245; --bad: #c62a2f; --stage: #7a869a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e2e7ec; --dim: #99a4b0; --paper: #12161b; --card: #1b2027;
  --line: #333b45; --blue: #6ba4ff; --green: #4cc27c; --bad: #ff7b7b; --stage: #8592a3; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 56rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.2rem 0 .6rem; }
p { margin: .25rem 0; overflow-wrap: anywhere; } .dim { color: var(--dim); }
.badge { font-size: .85rem; font-weight: 600; padding: .15rem .6rem; border-radius: 1rem; border: 1.5px solid;
  vertical-align: middle; white-space: nowrap; } .badge.good { color: var(--green); } .badge.bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.card b { display: block; font-size: 1.25rem; font-weight: 600; } .card.bad b { color: var(--bad); }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  overflow-wrap: anywhere; } th { font-weight: 600; color: var(--dim); white-space: nowrap; }
.missing { border-left: 3px solid var(--bad); padding: .2rem 1rem; background: var(--card); }
.key { margin-right: 1rem; color: var(--dim); font-size: .85rem; white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em;
  background: currentColor; } .key.blue::before { background: var(--blue); }
.key.green::before { background: var(--green); } .key.bad::before { background: var(--bad); }
.key.other::before { background: var(--stage); }
svg { width: 100%; min-width: 34rem; height: auto; display: block; } svg text { font-size: 12px; fill: var(--dim); }
svg .grid { stroke: var(--line); } svg .mark { stroke: var(--ink); stroke-dasharray: 3 3; }
svg text.note { fill: var(--ink); } svg rect { fill: var(--stage); } svg rect.bad { fill: var(--bad); }
svg rect.blue { fill: var(--blue); } svg rect.green { fill: var(--green); }
svg polyline { fill: none; stroke-width: 2; stroke-linejoin: round; }
svg polyline.blue { stroke: var(--blue); } svg polyline.green { stroke: var(--green); }
svg circle.blue { fill: var(--blue); } svg circle.green { fill: var(--green); }
@media print { body { max-width: none; } h2, svg { break-inside: avoid; } }
"""
_MEBIBYTE: Final = 1 << 20
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'"
"""Even if something in the page were a script, no browser would run it."""


def page(report: Report) -> str:
    """The whole report with its plots."""
    title = f"{report.subject.namespace}/{report.subject.name}, revision {report.revision}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{_text(title)}: {_text(report.outcome)}</title><style>{_STYLE}</style></head>\n<body>\n"
        + f'<h1>{_text(title)} <span class="badge {_verdict(report)}">{_text(report.outcome)}</span></h1>\n'
        + fragment(report)
        + "\n</body></html>\n"
    )


def fragment(report: Report) -> str:
    """All of the page but its title and style, for another page that has styles for it."""
    return "\n".join(filter(None, _parts(report)))


def _verdict(report: Report) -> str:
    return "good" if report.outcome == "Promoted" else "bad"


def _parts(report: Report) -> Iterator[str]:
    yield f'<p class="dim">{_text(report.artifact)}, {moment(report.started_at)}</p>'
    if report.outcome != report.reason:
        yield f"<p><b>{_text(report.reason)}</b>: {_text(report.message)}</p>"
    yield _cards(report)
    if report.evidence.missing:
        lines = "".join(f"<p>{_text(each)}</p>" for each in report.evidence.missing)
        yield f'<div class="missing"><p><b>What is missing</b></p>{lines}</div>'
    yield from _stages(report)
    yield from _requests(report)
    yield from _sides(report)
    yield "<h2>In short</h2>"
    yield _table((), facts(report))


def _cards(report: Report) -> str:
    probed, switch = report.evidence.probed, report.switch_milliseconds
    cards = [
        ("The release took", rough(report.seconds), False),
        ("The switch took", "not measured" if switch is None else duration(switch / 1000), False),
        (
            f"failed of {probed.requests} requests" if probed else "failed requests",
            str(probed.failed) if probed else "not probed",
            bool(probed and probed.failed),
        ),
        ("restarts of the new side", str(report.restarts), report.restarts > 0),
    ]
    drawn = (f'<div class="card{" bad" if bad else ""}"><b>{_text(b)}</b>{_text(a)}</div>' for a, b, bad in cards)
    return f'<div class="cards">{"".join(drawn)}</div>'


def _stages(report: Report) -> Iterator[str]:
    bars = [
        plots.Bar(
            stage.name,
            series.since(report.started_at, stage.started_at),
            stage.seconds,
            rough(stage.seconds),
            "bad" if stage.state == "Failed" else "",
        )
        for stage in report.stages
        if stage.started_at is not None and stage.seconds is not None
    ]
    yield "<h2>Stages</h2>"
    yield _wide(plots.timeline("How long each stage took", bars, report.seconds, x=duration))
    told = [(stage.name, stage.state, stage.message) for stage in report.stages if stage.message]
    if told:
        yield _table((), told)
    skipped = [stage.name for stage in report.stages if stage.state == "Skipped"]
    if skipped:
        yield f'<p class="dim">Skipped: {_text(", ".join(skipped))}</p>'


def _requests(report: Report) -> Iterator[str]:
    probed = report.evidence.probed
    switchings = [(moment(each.at), _where(each), _took(each)) for each in report.evidence.switchings]
    if switchings:
        yield "<h2>The switch</h2>"
        yield _table(("At", "Requests go to", "Took"), switchings)
    if probed is None:
        return
    stacks = [
        (
            series.since(report.started_at, each.at),
            {**{slot or "other": each.answered.get(slot, 0) for slot in (*SLOTS, "")}, "bad": each.failed},
        )
        for each in probed.seconds
    ]
    yield "<h2>Requests of the probe, each second</h2>"
    named = any(each.answered.get(slot) for each in probed.seconds for slot in SLOTS)
    keys = (_key("blue") + _key("green")) if named else _key("other", "answered")
    yield f"<p>{keys}{_key('bad', 'failed')}</p>"
    drawn = plots.columns(
        "Requests of the probe by the side that answered" if named else "Requests of the probe",
        stacks,
        series.span(report),
        x=duration,
        y=lambda value: f"{value:g}",
        marks=_marks(report),
    )
    yield _wide(drawn)
    half, most = duration(probed.p50_milliseconds / 1000), duration(probed.p99_milliseconds / 1000)
    what = f"{probed.what}: {probed.requests} requests, {probed.failed} failed;"
    what += f" answered within {half} (median), {most} (99 %)"
    yield f'<p class="dim">{_text(what)}</p>'
    if probed.errors:
        yield "<ul>" + "".join(f"<li>{_text(error)}</li>" for error in probed.errors) + "</ul>"


def _sides(report: Report) -> Iterator[str]:
    samples, start, span = report.evidence.samples, report.started_at, series.span(report)
    drawn = (
        ("Healthy instances", series.healthy, 1, lambda value: f"{value:g}" if value == int(value) else ""),
        ("Memory, MiB", series.memory, _MEBIBYTE, lambda value: f"{value:g}"),
        ("Processor time, cores", series.cores, 1, lambda value: f"{value:g}"),
    )
    for title, line, unit, shown in drawn:
        lines = [plots.Series(slot, [(x, y / unit) for x, y in line(samples, slot, start)]) for slot in SLOTS]
        if any(each.points for each in lines):
            yield f"<h2>{title}</h2>"
            yield "<p>" + "".join(_key(slot, _role(report, slot)) for slot in SLOTS) + "</p>"
            yield _wide(plots.lines(title, lines, span, x=duration, y=shown, marks=_marks(report)))
    rows = usage_rows(report)
    if rows:
        yield _table(("Side", "CPU, mean", "CPU, most", "Memory, mean", "Memory, most"), rows)


def _marks(report: Report) -> list[plots.Mark]:
    return [
        plots.Mark(series.since(report.started_at, each.at), f"to {_where(each)}")
        for each in report.evidence.switchings
    ]


def _where(each: Switching) -> str:
    return f"{each.to}, but {each.share} % to {other(each.to)}" if each.share else each.to


def _took(each: Switching) -> str:
    return "not seen" if each.milliseconds is None else duration(each.milliseconds / 1000)


def _role(report: Report, slot: Slot) -> str:
    return f"{slot}, the new side" if slot == report.slot else slot


def _key(style: str, label: str = "") -> str:
    return f'<span class="key {style}">{_text(label or style)}</span>'


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    heads = "".join(f"<th>{_text(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return _wide(f"<table>{f'<tr>{heads}</tr>' if heads else ''}{body}</table>")


def _wide(content: str) -> str:
    """`content`, which scrolls by itself on a narrow screen, also by keys."""
    return f'<div class="wide" tabindex="0">{content}</div>'


def _text(text: str) -> str:
    """`text` as itself: no mark-up, and no character that turns the line around."""
    return html(harmless(text))
