"""Templates. What is not marked as safe is escaped for HTML, and its control and reordering characters are shown."""

from __future__ import annotations

import datetime
import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from remit import safeyaml
from remit.execution.durations import human_duration
from remit.telemetry.logs import escape as harmless

SECTIONS: Final[Mapping[str, str]] = {
    "overview": "/",
    "tasks": "/tasks",
    "releases": "/releases",
    "schedules": "/schedules",
    "policies": "/policies",
    "audit": "/audit",
}
"""The entries of the navigation, in order, and where each leads. An entry is called as its section, capitalized."""
_FOLDER: Final = Path(__file__).parent
_KINDS: Final = {
    **dict.fromkeys(("Succeeded", "Healthy", "Promoted", "Completed", "Allowed", "True", "Ready", "Done"), "ok"),
    **dict.fromkeys(("Running", "Progressing", "InProgress", "Started"), "run"),
    **dict.fromkeys(
        (
            "Pending",
            "Queued",
            "Backoff",
            "AwaitingPromotion",
            "Paused",
            "RollingBack",
            "Unknown",
            "Waiting",
            "Terminating",
        ),
        "wait",
    ),
    **dict.fromkeys(("Failed", "TimedOut", "Degraded", "False", "Interrupted"), "bad"),
    **dict.fromkeys(("Denied",), "no"),
    **dict.fromkeys(("Cancelled", "Aborted", "Superseded", "RolledBack", "Pinned", "Skipped", "Suspended"), "off"),
    "Scheduled": "clock",
}
"""Which shape and colour a word has. The word itself is always there."""


@dataclass(frozen=True)
class View:
    """A page. `regions` are blocks of the template that change while it is looked at."""

    template: str
    title: str
    section: str
    """The entry of the navigation to which it belongs."""
    context: Mapping[str, Any] = field(default_factory=dict)
    regions: tuple[str, ...] = ()
    status: int = 200
    every: float = 5.0
    """Seconds after which a live page looks again although nothing is known to have changed: what it shows may depend
    on the time, or on what no watch tells of."""


def kind_of(word: str) -> str:
    return _KINDS.get(word, "off")


def age(since: float | None, now: float | None = None) -> str:
    """How long ago, in one or two units, such as `42s` and `3h12m`."""
    if since is None:
        return ""
    seconds = int(max(0.0, (time.time() if now is None else now) - since))
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60}s" if seconds < 600 else f"{seconds // 60}m"
    if seconds < 86400:
        return f"{seconds // 3600}h{seconds % 3600 // 60}m"
    return f"{seconds // 86400}d{seconds % 86400 // 3600}h"


def ago(since: float | None, form: str = "age") -> Markup:
    """A moment as its age, which the page's script counts on. `form`: `age`, or `until` for what is to come."""
    if since is None:
        return Markup("")
    moment = datetime.datetime.fromtimestamp(since, datetime.UTC)
    shown = age(2 * time.time() - since) if form == "until" else age(since)
    return Markup('<time datetime="{}" title="{}" data-{}="{}">{}</time>').format(
        f"{moment:%FT%TZ}", f"{moment:%F %T} UTC", form, round(since, 1), shown
    )


def clock(at: float | None) -> Markup:
    """A moment as itself."""
    if at is None:
        return Markup("")
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        f"{moment:%FT%TZ}", f"{moment:%F %T} UTC", f"{moment:%b} {moment.day} {moment:%T}"
    )


def span(seconds: float | None) -> str:
    return "" if seconds is None else human_duration(datetime.timedelta(seconds=seconds))


def size(count: float | None) -> str:
    if count is None:
        return ""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1024
    return ""


def as_yaml(document: Any) -> str:
    text: str = yaml.dump(document, Dumper=safeyaml.Dumper, sort_keys=False, allow_unicode=True)
    return text


def paragraphs(text: str) -> Markup:
    """A text of several lines, which stay lines."""
    return Markup("\n").join(escape(harmless(line)) for line in text.split("\n"))


def _finalize(value: Any) -> Any:
    if value is None:
        return ""
    return harmless(value) if type(value) is str else value


class Renderer:
    """Makes the HTML of views whose links all lead beneath `base`, such as `/s-cs1J`."""

    def __init__(self, base: str) -> None:
        self._environment = _environment(base)

    def page(self, view: View, **around: Any) -> str:
        return self._environment.get_template(view.template).render(**view.context, **around, view=view)

    def regions(self, view: View) -> dict[str, str]:
        """The HTML of each region."""
        template = self._environment.get_template(view.template)
        context = {**view.context, "view": view}
        return {name: "".join(template.blocks[name](template.new_context(context))) for name in view.regions}


def _environment(base: str) -> Environment:
    def link(path: str) -> str:
        """The address of a view. Templates make each of theirs by this."""
        return base + path

    made = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "age": age,
        "ago": ago,
        "clock": clock,
        "span": span,
        "size": size,
        "kind": kind_of,
        "lines": paragraphs,
    }
    made.globals |= {"asset": asset, "link": link, "sections": SECTIONS}
    made.globals["ui"] = made.get_template("macros.html").module
    return made


@lru_cache(8)
def asset(name: str) -> str:
    """The address of a file under `static/`. It changes with the file, so browsers may keep what they have. The files
    are the same for everybody, and the login needs them too, so they are not beneath the base."""
    digest = hashlib.sha256((_FOLDER / "static" / name).read_bytes()).hexdigest()[:12]
    return f"/static/{name}?{digest}"
